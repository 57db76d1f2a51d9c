//! An import under its claim: objects are checked and stored, then generations committed.

use super::MANIFESTS_LIMIT;
use super::error::ArchiveError;
use super::import::{Imported, Item, Renamed};
use super::member::Member;
use crate::job::{Generation, JobName};
use crate::repository::claim::Claim;
use crate::repository::crypto::{Crypt, ObjectId, ObjectKind};
use crate::repository::generations::{self, Commit, GenerationError};
use crate::repository::index::Index;
use crate::repository::manifest::{IndexRef, Manifest};
use crate::repository::open::Repository;
use crate::repository::{layout, pack, saves};
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::mpsc;

/// While so many bytes are being checked and stored, nothing more is taken from the archive.
const AT_ONCE: u64 = 32 << 20;

/// An import under its claim.
pub(super) struct Intake {
    job: JobName,
    repository: Repository,
    claim: Claim,
    /// Bytes of objects that the archive promises.
    total: u64,
    done: u64,
    /// Lengths of what has come.
    objects: BTreeMap<Member, u64>,
    manifests: Vec<Manifest>,
    manifest_bytes: u64,
    new_bytes: u64,
    mended: u64,
}

/// What became of an object.
#[derive(Clone, Copy)]
enum Kept {
    New(u64),
    Known,
    Mended,
}

impl Intake {
    pub fn new(job: JobName, repository: Repository, claim: Claim, total: u64) -> Self {
        Self {
            job,
            repository,
            claim,
            total,
            done: 0,
            objects: BTreeMap::new(),
            manifests: Vec::new(),
            manifest_bytes: 0,
            new_bytes: 0,
            mended: 0,
        }
    }

    pub async fn run(
        mut self,
        first: Item,
        items: &mut mpsc::Receiver<Item>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Imported, ArchiveError> {
        let repository = self.repository.clone();
        let mut storing = FuturesUnordered::new();
        let (mut under_way, mut ended) = (0, false);
        let mut next = Some(first);
        while !ended || !storing.is_empty() {
            let item = if let Some(item) = next.take() {
                item
            } else {
                tokio::select! {
                    Some(stored) = storing.next(), if !storing.is_empty() => {
                        under_way -= self.count(stored?, &mut progress);
                        continue;
                    }
                    item = items.recv(), if !ended && under_way < AT_ONCE => {
                        item.unwrap_or(Item::Failed(ArchiveError::CutOff))
                    }
                }
            };
            match item {
                Item::End => ended = true,
                Item::Failed(error) => return Err(error),
                Item::Member(Member::Manifest(generation), bytes) => self.take_manifest(generation, &bytes)?,
                Item::Member(member @ (Member::Index(_) | Member::Pack(_)), bytes) => {
                    let len = bytes.len() as u64;
                    self.objects.insert(member.clone(), len);
                    under_way += len;
                    storing.push(check_and_store(&repository, member, bytes));
                }
                Item::Member(member, _) => {
                    return Err(ArchiveError::damaged(member.name(), "it comes behind what needs it"));
                }
            }
        }
        drop(storing);
        crate::failpoint!("import.objects.stored");
        self.commit().await
    }

    /// Counts an object that was stored; returns its length.
    fn count(&mut self, (len, kept): (u64, Kept), progress: &mut impl FnMut(u64, u64)) -> u64 {
        crate::failpoint!("import.object.stored");
        match kept {
            Kept::New(bytes) => self.new_bytes += bytes,
            Kept::Known => {}
            Kept::Mended => self.mended += 1,
        }
        self.done += len;
        progress(self.done, self.total);
        len
    }

    fn take_manifest(&mut self, generation: Generation, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.manifest_bytes += bytes.len() as u64;
        if self.manifest_bytes > MANIFESTS_LIMIT {
            return Err(ArchiveError::TooMany(self.manifests.len() + 1));
        }
        let name = layout::manifest(generation);
        let manifest = Manifest::open(bytes, generation, &self.repository.crypt)
            .map_err(|error| ArchiveError::damaged(&name, error))?;
        let there = |member: Member, len: u64| match self.objects.get(&member) {
            Some(found) if *found == len => Ok(()),
            Some(_) => Err(ArchiveError::damaged(member.name(), "it is not as long as its generation says")),
            None => Err(ArchiveError::damaged(member.name(), "it is missing")),
        };
        there(Member::Index(manifest.index.id), manifest.index.len)?;
        for pack in &manifest.packs {
            there(Member::Pack(pack.id), pack.len)?;
        }
        self.manifests.push(manifest);
        Ok(())
    }

    /// Everything is there and sound: the generations come to be, oldest first.
    async fn commit(mut self) -> Result<Imported, ArchiveError> {
        if self.manifests.is_empty() {
            return Err(ArchiveError::damaged(layout::GENERATIONS, "the archive has no generation"));
        }
        let mut known = self.known().await?;
        let mut imported = Imported {
            job: self.job.clone(),
            generations: Vec::new(),
            known: Vec::new(),
            packs: self.objects.keys().filter(|member| matches!(member, Member::Pack(_))).count() as u64,
            new_bytes: self.new_bytes,
            mended: self.mended,
        };
        self.manifests.sort_by_key(|manifest| manifest.generation);
        for manifest in std::mem::take(&mut self.manifests) {
            let from = manifest.generation;
            if let Some(&to) = known.get(&manifest.index) {
                imported.known.push(Renamed { from, to });
                continue;
            }
            let to = saves::begin(&self.claim, &self.repository.store).await?;
            let index = manifest.index;
            // Numbers of another place mean nothing here.
            let renamed = Manifest { generation: to, base: None, replaces: None, ..manifest };
            match generations::commit(&self.repository, &self.claim, &renamed).await? {
                Commit::Committed => {}
                Commit::Fenced { .. } => return Err(ArchiveError::Fenced(self.job)),
            }
            crate::failpoint!("import.generation.committed");
            known.insert(index, to);
            imported.generations.push(Renamed { from, to });
        }
        Ok(imported)
    }

    /// The generations that the job has, by their index: its identity is random, so equal means the same.
    async fn known(&self) -> Result<HashMap<IndexRef, Generation>, ArchiveError> {
        let mut known = HashMap::new();
        for generation in generations::list(&self.repository.store).await? {
            match generations::load(&self.repository, generation).await {
                Ok(manifest) => drop(known.insert(manifest.index, generation)),
                Err(GenerationError::Store(error)) => return Err(error.into()),
                Err(error) => tracing::warn!(%generation, %error, "a generation cannot be read"),
            }
        }
        Ok(known)
    }
}

async fn check_and_store(repository: &Repository, member: Member, bytes: Vec<u8>) -> Result<(u64, Kept), ArchiveError> {
    let name = member.name();
    let len = bytes.len() as u64;
    let bytes = Bytes::from(bytes);
    let (crypt, copy) = (repository.crypt.clone(), bytes.to_vec());
    // Opening every seal and decompressing takes a core for a while.
    let checked = tokio::task::spawn_blocking(move || check(&crypt, &member, copy)).await;
    checked
        .unwrap_or_else(|_| Err("checking it failed".to_owned()))
        .map_err(|why| ArchiveError::damaged(&name, why))?;
    Ok((len, keep(&repository.store, &name, bytes).await?))
}

/// Every seal opens: the object belongs to this repository and is whole.
fn check(crypt: &Crypt, member: &Member, mut bytes: Vec<u8>) -> Result<(), String> {
    match member {
        Member::Pack(id) => pack::check(crypt, id, &mut bytes, |_, _| {}).map_err(|error| error.to_string()),
        Member::Index(id) => check_index(crypt, id, bytes),
        other => Err(format!("{} is no object", other.name())),
    }
}

fn check_index(crypt: &Crypt, id: &ObjectId, mut bytes: Vec<u8>) -> Result<(), String> {
    crypt.for_object(ObjectKind::Index, id).open(0, &[], &mut bytes).map_err(|error| error.to_string())?;
    Index::decode(&bytes).map(drop).map_err(|error| error.to_string())
}

/// Stores an object, or sees that it is there. One that is there and damaged becomes whole: its name
/// is random and its seals were checked, so only this content belongs there.
async fn keep(store: &Store, key: &str, bytes: Bytes) -> Result<Kept, StoreError> {
    let len = bytes.len() as u64;
    match store.put_new(key, bytes.clone()).await? {
        Created::New => return Ok(Kept::New(len)),
        Created::AlreadyExists => {}
    }
    match store.get(key, len).await {
        Ok(there) if there == bytes => return Ok(Kept::Known),
        Ok(_) => {}
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    store.put(key, bytes).await?;
    Ok(Kept::Mended)
}
