//! Finds damage: reads all documents, and as much of the packs as asked for, and says which
//! generations each damage hurts.

use super::claims;
use super::generations::{self, GenerationError};
use super::manifest::Manifest;
use super::open::Repository;
use super::pack::{self, PackError, TRAILER};
use super::read::{Opened, ReadError};
use super::{completion, document, format, keys, layout};
use crate::job::Generation;
use crate::store::{ObjectInfo, StoreError};
use futures::StreamExt;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, BTreeSet};

/// Packs that are read at once: with packs of tens of MiB this bounds the memory.
const AT_ONCE: usize = 3;
/// No JSON document is longer.
const DOCUMENT_LIMIT: u64 = 64 << 20;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    /// All documents, and of each pack its presence, its length and its footer.
    Metadata,
    /// Also every byte of this share of the packs, chosen at random, in percent.
    Data {
        /// More than 0, at most 100.
        percent: f64,
    },
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The object.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// Which generations cannot be trusted for it, oldest first.
    pub hurts: Vec<Generation>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Generations that exist, oldest first.
    pub generations: Vec<Generation>,
    /// Those without any damage found.
    pub good: Vec<Generation>,
    /// Each damage, by key.
    pub damages: Vec<Damage>,
    /// Packs that generations refer to.
    pub packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes that were read of packs.
    pub bytes_read: u64,
    /// Packs that no generation refers to: a save under way, or leftovers that prune removes.
    pub unreferenced_packs: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
}

/// Verifies a repository. `progress` is told packs done and packs to do. Fails only when the store does.
pub async fn verify(
    repository: &Repository,
    depth: Depth,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut found = Found::default();
    documents(repository, &mut found).await?;
    let manifests = manifests(repository, &mut found).await?;
    indexes(repository, &manifests, &mut found).await?;

    let mut users: BTreeMap<String, (u64, Vec<Generation>)> = BTreeMap::new();
    for manifest in &manifests {
        for pack in &manifest.packs {
            users.entry(layout::pack(&pack.id)).or_insert((pack.len, Vec::new())).1.push(manifest.generation);
        }
    }
    let stored: BTreeMap<String, ObjectInfo> =
        repository.store.list(layout::PACKS).await?.into_iter().map(|info| (info.key.clone(), info)).collect();
    for (key, info) in &stored {
        if !users.contains_key(key) {
            found.report.unreferenced_packs += 1;
            found.report.unreferenced_bytes += info.size;
        }
    }
    let total = users.len() as u64;
    found.report.packs = total;
    let (stored, whole) = (&stored, &sample(users.keys(), depth));
    let mut checks = futures::stream::iter(users)
        .map(|(key, (len, users))| async move {
            let result = check_pack(repository, &key, len, stored.get(&key), whole.contains(&key)).await;
            (key, users, result)
        })
        .buffer_unordered(AT_ONCE);
    let mut done = 0;
    while let Some((key, users, result)) = checks.next().await {
        match result? {
            Checked::Sound { whole, bytes } => {
                found.report.packs_read += u64::from(whole);
                found.report.bytes_read += bytes;
            }
            Checked::Damaged(what) => found.add(key, what, users),
        }
        done += 1;
        progress(done, total);
    }
    Ok(found.finish())
}

/// The packs to be read whole: that share of them, chosen at random, and at least one.
fn sample<'a>(packs: impl ExactSizeIterator<Item = &'a String>, depth: Depth) -> BTreeSet<String> {
    let Depth::Data { percent } = depth else { return BTreeSet::new() };
    // A number of packs is far below 2^52.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = (packs.len() as f64 * percent / 100.0).ceil() as usize;
    packs.sample(&mut rand::rng(), count).into_iter().cloned().collect()
}

#[derive(Default)]
struct Found {
    report: Report,
}

impl Found {
    fn add(&mut self, key: impl Into<String>, what: impl std::fmt::Display, hurts: Vec<Generation>) {
        self.report.damages.push(Damage { key: key.into(), what: what.to_string(), hurts });
    }

    fn finish(mut self) -> Report {
        let hurt: BTreeSet<Generation> = self.report.damages.iter().flat_map(|damage| damage.hurts.clone()).collect();
        self.report.good =
            self.report.generations.iter().copied().filter(|generation| !hurt.contains(generation)).collect();
        self.report.damages.sort_by(|a, b| a.key.cmp(&b.key));
        self.report
    }
}

/// Claims, keys, records: they hurt no generation, but somebody should know.
async fn documents(repository: &Repository, found: &mut Found) -> Result<(), StoreError> {
    let store = &repository.store;
    let mut kinds: Vec<(String, &str)> = vec![(layout::FORMAT.to_owned(), format::KIND)];
    for info in store.list(layout::CLAIMS).await? {
        match layout::parse_claim(&info.key) {
            Some((_, what)) => {
                let known = [claims::CLAIM, claims::SEAL, claims::BEAT, claims::RELEASED];
                match known.into_iter().find(|known| *known == what) {
                    Some(kind) => kinds.push((info.key.clone(), kind)),
                    None => found.add(&info.key, "it is no object of revenant's", Vec::new()),
                }
            }
            None => found.add(&info.key, "it is no object of revenant's", Vec::new()),
        }
    }
    kinds.extend(store.list(layout::KEYS).await?.into_iter().map(|info| (info.key, keys::KIND)));
    kinds.extend(store.list(layout::CRASHES).await?.into_iter().map(|info| (info.key, completion::CRASH)));
    kinds.extend([
        (layout::STARTED.to_owned(), completion::START),
        (layout::COMPLETE.to_owned(), completion::COMPLETION),
    ]);
    for (key, kind) in kinds {
        match store.get(&key, DOCUMENT_LIMIT).await {
            Ok(bytes) => {
                if let Err(error) = document::check(kind, &bytes) {
                    found.add(key, error, Vec::new());
                }
            }
            // Records that were never made, or a beat that was taken back since the listing.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) if error.is_damage() => found.add(key, error, Vec::new()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The manifests of the generations that exist.
async fn manifests(repository: &Repository, found: &mut Found) -> Result<Vec<Manifest>, StoreError> {
    let store = &repository.store;
    for info in store.list(layout::GENERATIONS).await? {
        if layout::parse_manifest(&info.key).is_none() {
            found.add(&info.key, "it is no object of revenant's", Vec::new());
        }
    }
    match generations::list(store).await {
        Ok(list) => found.report.generations = list,
        Err(GenerationError::Store(error)) => return Err(error),
        Err(error) => found.add(layout::CLAIMS, error, Vec::new()),
    }
    let mut manifests = Vec::new();
    for generation in found.report.generations.clone() {
        match generations::load(repository, generation).await {
            Ok(manifest) => manifests.push(manifest),
            Err(GenerationError::Store(error)) => return Err(error),
            Err(error) => found.add(layout::manifest(generation), error, vec![generation]),
        }
    }
    Ok(manifests)
}

async fn indexes(repository: &Repository, manifests: &[Manifest], found: &mut Found) -> Result<(), StoreError> {
    let runtime = tokio::runtime::Handle::current();
    for manifest in manifests {
        let key = layout::index(&manifest.index.id);
        let hurts = vec![manifest.generation];
        match Opened::open(repository, manifest.index.id, manifest.index.len, &runtime).await {
            Ok(opened) => {
                let named: BTreeSet<_> = manifest.packs.iter().map(|pack| pack.id).collect();
                if opened.packs().iter().any(|pack| !named.contains(&pack.id)) {
                    found.add(key, "it needs packs that the manifest does not name", hurts);
                }
            }
            Err(ReadError::Store(error)) if !error.is_damage() => return Err(StoreError::clone(&error)),
            Err(error) => found.add(key, error, hurts),
        }
    }
    Ok(())
}

enum Checked {
    Sound { whole: bool, bytes: u64 },
    Damaged(String),
}

async fn check_pack(
    repository: &Repository,
    key: &str,
    len: u64,
    stored: Option<&ObjectInfo>,
    whole: bool,
) -> Result<Checked, StoreError> {
    let Some(stored) = stored else { return Ok(Checked::Damaged("it is missing".to_owned())) };
    if stored.size != len {
        return Ok(Checked::Damaged(format!("it has {} bytes instead of {len}", stored.size)));
    }
    let Some(id) = layout::parse_pack(key) else { return Ok(Checked::Damaged("its name is damaged".to_owned())) };
    let read = if whole { repository.store.get(key, len).await } else { footer(repository, key, len).await };
    let mut bytes = match read {
        Ok(bytes) => Vec::from(bytes),
        Err(error) if error.is_damage() => return Ok(Checked::Damaged(error.to_string())),
        Err(error) => return Err(error),
    };
    let count = bytes.len() as u64;
    let crypt = repository.crypt.clone();
    // Opening seals and decompressing takes a core for a while.
    let checked = tokio::task::spawn_blocking(move || {
        if whole {
            return pack::check(&crypt, &id, &mut bytes, |_, _| {});
        }
        let split = bytes.len().saturating_sub(TRAILER);
        let range = pack::footer_range(len, &bytes[split..])?;
        let sealed = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let start = split.checked_sub(sealed).unwrap_or(split);
        pack::open_footer(&crypt, &id, &range, bytes[start..split].to_vec()).map(drop)
    })
    .await;
    Ok(match checked {
        Ok(Ok(())) => Checked::Sound { whole, bytes: count },
        Ok(Err(error)) => Checked::Damaged(describe(&error)),
        Err(_) => Checked::Damaged("checking it failed".to_owned()),
    })
}

fn describe(error: &PackError) -> String {
    error.to_string()
}

/// Footer and trailer of a pack.
async fn footer(repository: &Repository, key: &str, len: u64) -> Result<bytes::Bytes, StoreError> {
    let end = len.saturating_sub(TRAILER as u64);
    let trailer = repository.store.get_range(key, end..len).await?;
    match pack::footer_range(len, &trailer) {
        Ok(range) => repository.store.get_range(key, range.start..len).await,
        // The caller finds the same.
        Err(_) => Ok(trailer),
    }
}
