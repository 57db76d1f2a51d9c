//! From a repository into an archive.

use super::MANIFESTS_LIMIT;
use super::contents::Contents;
use super::error::ArchiveError;
use super::member::Member;
use super::writer::Writer;
use crate::job::{Generation, JobName};
use crate::repository::crypto::ObjectId;
use crate::repository::generations::GenerationError;
use crate::repository::manifest::{self, Manifest};
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::repository::{keys, layout, pack, timestamp};
use crate::store::StoreError;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::io::Write;

/// Packs that are read and checked ahead of the one that is written.
const AHEAD: usize = 2;

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The job.
    pub job: JobName,
    /// The generations, oldest first.
    pub generations: Vec<Generation>,
    /// How many packs they need.
    pub packs: u64,
    /// Bytes of all packs and index objects.
    pub bytes: u64,
    /// Bytes of these that the generations really use.
    pub used: u64,
    /// Whether the content is encrypted.
    pub encrypted: bool,
}

struct Sealed {
    generation: Generation,
    manifest: Manifest,
    bytes: Bytes,
}

/// Writes these generations of a job into an archive, oldest first. Every object is checked before it
/// is written, so what arrives was sound. `progress` is told bytes done and bytes to do.
pub async fn export<W: Write>(
    repository: &Repository,
    job: &JobName,
    generations: &[Generation],
    out: W,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Exported, W), ArchiveError> {
    let mut generations = generations.to_vec();
    generations.sort_unstable();
    generations.dedup();
    let sealed = manifests(repository, &generations).await?;
    // Each pack with the first generation that needs it, to be named if it is damaged.
    let mut packs: BTreeMap<ObjectId, (u64, Generation)> = BTreeMap::new();
    let mut used: BTreeMap<ObjectId, u64> = BTreeMap::new();
    for Sealed { generation, manifest, .. } in &sealed {
        for pack in &manifest.packs {
            packs.entry(pack.id).or_insert((pack.len, *generation));
        }
        for pack in index(repository, *generation, manifest).await? {
            let used = used.entry(pack.id).or_default();
            *used = (*used).max(pack.used);
        }
    }
    let index_bytes: u64 = sealed.iter().map(|sealed| sealed.manifest.index.len).sum();
    let contents = Contents {
        job: job.clone(),
        repository: repository.format.repository,
        exported: timestamp::now(),
        generations: generations.clone(),
        bytes: index_bytes + packs.values().map(|(len, _)| len).sum::<u64>(),
    };
    let mut writer = Writer::new(out, &contents);
    head(repository, &contents, &mut writer).await?;
    let mut done = 0;
    for Sealed { generation, manifest, .. } in &sealed {
        let bytes = sound(repository, &layout::index(&manifest.index.id), manifest.index.len, *generation).await?;
        write(&mut writer, &Member::Index(manifest.index.id), &bytes)?;
        done += bytes.len() as u64;
    }
    let count = packs.len() as u64;
    let mut checked =
        futures::stream::iter(packs).map(|(id, (len, user))| checked_pack(repository, id, len, user)).buffered(AHEAD);
    while let Some(pack) = checked.next().await {
        let (id, bytes) = pack?;
        write(&mut writer, &Member::Pack(id), &bytes)?;
        crate::failpoint!("export.pack.written");
        done += bytes.len() as u64;
        progress(done, contents.bytes);
    }
    for Sealed { generation, bytes, .. } in &sealed {
        write(&mut writer, &Member::Manifest(*generation), bytes)?;
    }
    crate::failpoint!("export.objects.written");
    let out = tokio::task::block_in_place(|| writer.finish()).map_err(ArchiveError::Output)?;
    let exported = Exported {
        job: job.clone(),
        generations,
        packs: count,
        bytes: contents.bytes,
        used: used.values().sum::<u64>() + index_bytes,
        encrypted: repository.crypt.is_encrypted(),
    };
    Ok((exported, out))
}

/// What an archive begins with.
async fn head<W: Write>(
    repository: &Repository,
    contents: &Contents,
    writer: &mut Writer<W>,
) -> Result<(), ArchiveError> {
    let store = &repository.store;
    write(writer, &Member::Contents, &contents.encode()?)?;
    write(writer, &Member::Format, &store.get(layout::FORMAT, Member::Format.limit()).await?)?;
    match store.get(layout::STARTED, Member::Started.limit()).await {
        Ok(bytes) => write(writer, &Member::Started, &bytes)?,
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if repository.crypt.is_encrypted() {
        for slot in keys::slots(store, contents.repository).await? {
            let member = Member::Key(slot.slot);
            write(writer, &member, &store.get(&member.name(), member.limit()).await?)?;
        }
    }
    Ok(())
}

async fn manifests(repository: &Repository, generations: &[Generation]) -> Result<Vec<Sealed>, ArchiveError> {
    let mut sealed = Vec::with_capacity(generations.len());
    let mut total = 0;
    for &generation in generations {
        let bytes = match repository.store.get(&layout::manifest(generation), manifest::MAX_LEN).await {
            Err(StoreError::NotFound { .. }) => return Err(GenerationError::Unknown(generation).into()),
            other => other?,
        };
        total += bytes.len() as u64;
        if total > MANIFESTS_LIMIT {
            return Err(ArchiveError::TooMany(generations.len()));
        }
        let manifest = Manifest::open(&bytes, generation, &repository.crypt)
            .map_err(|source| GenerationError::Manifest { generation, source })?;
        sealed.push(Sealed { generation, manifest, bytes });
    }
    Ok(sealed)
}

/// The packs that a generation uses; its index opens.
async fn index(
    repository: &Repository,
    generation: Generation,
    manifest: &Manifest,
) -> Result<Vec<crate::repository::index::PackUse>, ArchiveError> {
    let runtime = tokio::runtime::Handle::current();
    let key = layout::index(&manifest.index.id);
    match Opened::open(repository, manifest.index.id, manifest.index.len, &runtime).await {
        Ok(opened) => Ok(opened.packs().to_vec()),
        Err(error) if error.is_damage() => Err(ArchiveError::Unsound { generation, key, reason: error.to_string() }),
        Err(error) => Err(error.into()),
    }
}

async fn checked_pack(
    repository: &Repository,
    id: ObjectId,
    len: u64,
    user: Generation,
) -> Result<(ObjectId, Bytes), ArchiveError> {
    let key = layout::pack(&id);
    let bytes = sound(repository, &key, len, user).await?;
    let (crypt, mut copy) = (repository.crypt.clone(), bytes.to_vec());
    let checked = tokio::task::spawn_blocking(move || pack::check(&crypt, &id, &mut copy, |_, _| {})).await;
    match checked {
        Ok(Ok(())) => Ok((id, bytes)),
        Ok(Err(error)) => Err(ArchiveError::Unsound { generation: user, key, reason: error.to_string() }),
        Err(_) => Err(ArchiveError::Unsound { generation: user, key, reason: "checking it failed".to_owned() }),
    }
}

/// A stored object, as long as it must be.
async fn sound(repository: &Repository, key: &str, len: u64, generation: Generation) -> Result<Bytes, ArchiveError> {
    let unsound = |reason: String| ArchiveError::Unsound { generation, key: key.to_owned(), reason };
    match repository.store.get(key, len).await {
        Ok(bytes) if bytes.len() as u64 == len => Ok(bytes),
        Ok(bytes) => Err(unsound(format!("it has {} bytes instead of {len}", bytes.len()))),
        Err(error) if error.is_damage() => Err(unsound(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn write<W: Write>(writer: &mut Writer<W>, member: &Member, bytes: &[u8]) -> Result<(), ArchiveError> {
    tokio::task::block_in_place(|| writer.add(member, bytes)).map_err(ArchiveError::Output)
}
