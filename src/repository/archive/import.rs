//! From an archive into a store.
//!
//! ```text
//! head: format, keys ─▶ open or create the job ─▶ claim ─▶ index, packs: check, put ─▶ digests of all
//!   ─▶ each manifest: a number of its own, sealed anew, committed as a save is ─▶ release
//! ```

use super::contents::Contents;
use super::error::ArchiveError;
use super::intake::Intake;
use super::member::Member;
use super::reader;
use crate::checkpoint::protocol::Holder;
use crate::job::{Generation, JobName};
use crate::repository::claim::{self, Claim, Standing, Take, Terms};
use crate::repository::format::Format;
use crate::repository::keys::{self, KeyError};
use crate::repository::open::{OpenError, Repository};
use crate::repository::user_key::UserKey;
use crate::repository::{completion, document, layout};
use crate::store::{Created, Store};
use bytes::Bytes;
use std::io::Read;
use std::time::Duration;
use tokio::sync::mpsc;

/// How an import goes about it.
#[derive(Debug)]
pub struct ImportTerms<'a> {
    /// The job's name in the store; the archive's own if none is given.
    pub job: Option<JobName>,
    /// Opens the archive and, if it is there already, the job.
    pub key: Option<&'a UserKey>,
    /// Who imports.
    pub holder: Holder,
    /// How the job is claimed meanwhile.
    pub terms: Terms,
}

/// One generation that was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Renamed {
    /// Its number where it was exported.
    pub from: Generation,
    /// Its number here.
    pub to: Generation,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    /// The job here.
    pub job: JobName,
    /// The new generations, oldest first.
    pub generations: Vec<Renamed>,
    /// Those that were there already, under the number on the right.
    pub known: Vec<Renamed>,
    /// Packs in the archive.
    pub packs: u64,
    /// Bytes of packs and index objects that the store did not have.
    pub new_bytes: u64,
    /// Objects of the store that were damaged or cut and are whole again.
    pub mended: u64,
}

pub(super) enum Item {
    Member(Member, Vec<u8>),
    /// The archive is complete and every digest matched.
    End,
    Failed(ArchiveError),
}

/// Imports all generations of an archive. Fails before anything is visible, or not at all: what was
/// stored by then is garbage that prune removes. `progress` is told bytes done and bytes to do.
pub async fn import(
    root: &Store,
    source: impl Read + Send + 'static,
    terms: &ImportTerms<'_>,
    progress: impl FnMut(u64, u64),
) -> Result<Imported, ArchiveError> {
    let (sender, mut items) = mpsc::channel(1);
    // A thread of its own, not awaited: it may hang in a read of a pipe on which nothing comes.
    let read = move || {
        let listened = reader::read(source, |member, bytes| sender.blocking_send(Item::Member(member, bytes)).is_ok());
        let last = match listened {
            Ok(true) => Item::End,
            Ok(false) => return,
            Err(error) => Item::Failed(error),
        };
        let _ = sender.blocking_send(last);
    };
    std::thread::Builder::new()
        .name("import-read".to_owned())
        .spawn(read)
        .map_err(|error| ArchiveError::Source(error.to_string()))?;

    let (head, first) = Head::receive(&mut items).await?;
    let sealed_as = head.open(terms.key).await?;
    let job = terms.job.clone().unwrap_or_else(|| head.contents.job.clone());
    let store = root.child(job.as_str());
    let repository = establish(&store, &job, &head, &sealed_as, terms.key).await?;
    if completion::completion(&store).await?.is_some() {
        return Err(ArchiveError::Complete(job));
    }
    crate::failpoint!("import.job.made");
    let claim = match claim::take(&store, &terms.holder, &terms.terms).await? {
        Take::Taken { claim, .. } => claim,
        Take::InUse(holder) => return Err(ArchiveError::InUse { job, holder: Box::new(holder) }),
    };
    let intake = Intake::new(job.clone(), repository, claim.clone(), head.contents.bytes);
    let done = tokio::select! {
        done = intake.run(first, &mut items, progress) => done,
        lost = beat(&claim, &job) => Err(lost),
    };
    let released = claim.release().await;
    let imported = done?;
    released?;
    Ok(imported)
}

/// What comes before the objects.
struct Head {
    contents: Contents,
    format: Bytes,
    started: Option<Bytes>,
    slots: Vec<(String, Bytes)>,
}

impl Head {
    /// Also returns the first item that does not belong to the head.
    async fn receive(items: &mut mpsc::Receiver<Item>) -> Result<(Self, Item), ArchiveError> {
        let (mut contents, mut format, mut started, mut slots) = (None, None, None, Vec::new());
        loop {
            let item = items.recv().await.unwrap_or(Item::Failed(ArchiveError::CutOff));
            match item {
                Item::Failed(error) => return Err(error),
                Item::Member(Member::Contents, bytes) => contents = Some(Contents::decode(&bytes)?),
                Item::Member(member, _) if contents.is_none() => {
                    return Err(ArchiveError::Foreign(format!("it begins with {}", member.name())));
                }
                Item::Member(Member::Format, bytes) => format = Some(Bytes::from(bytes)),
                Item::Member(Member::Started, bytes) => started = Some(Bytes::from(bytes)),
                Item::Member(member @ Member::Key(_), bytes) => slots.push((member.name(), bytes.into())),
                other => {
                    let (Some(contents), Some(format)) = (contents, format) else {
                        return Err(ArchiveError::damaged(layout::FORMAT, "it is missing"));
                    };
                    return Ok((Self { contents, format, started, slots }, other));
                }
            }
        }
    }

    /// The repository that the objects are sealed for, without its objects.
    async fn open(&self, key: Option<&UserKey>) -> Result<Repository, ArchiveError> {
        let documents = self.slots.iter().map(|(name, bytes)| (name.as_str(), keys::KIND, bytes));
        let started = self.started.iter().map(|bytes| (layout::STARTED, completion::START, bytes));
        for (name, kind, bytes) in documents.chain(started) {
            document::check(kind, bytes).map_err(|error| ArchiveError::damaged(name, error))?;
        }
        let store = Store::memory();
        store.put(layout::FORMAT, self.format.clone()).await?;
        for (name, bytes) in &self.slots {
            store.put(name, bytes.clone()).await?;
        }
        let repository = Repository::open(&store, key).await.map_err(in_the_archive)?;
        match repository {
            Some(repository) if repository.format.repository == self.contents.repository => Ok(repository),
            _ => Err(ArchiveError::damaged(layout::FORMAT, "it is of another repository")),
        }
    }
}

fn in_the_archive(error: OpenError) -> ArchiveError {
    match error {
        OpenError::Format(error) => ArchiveError::damaged(layout::FORMAT, error),
        OpenError::Key(KeyError::NoSlots) => ArchiveError::damaged(layout::KEYS, "the archive has no key slot"),
        OpenError::Key(error) => OpenError::Key(error).into(),
    }
}

/// Opens the job, or makes it: with the archive's own format and keys, so that the objects fit.
async fn establish(
    store: &Store,
    job: &JobName,
    head: &Head,
    sealed_as: &Repository,
    key: Option<&UserKey>,
) -> Result<Repository, ArchiveError> {
    let ours = |format: &Format| format.repository == sealed_as.format.repository;
    if let Some(format) = Format::read(store).await.map_err(OpenError::from)? {
        if !ours(&format) {
            return Err(ArchiveError::OtherRepository(job.clone()));
        }
        // Its own keys: they may have been changed since the export, for good reasons.
        let opened = Repository::open(store, key).await?;
        return opened.ok_or_else(|| ArchiveError::OtherRepository(job.clone()));
    }
    for (name, bytes) in &head.slots {
        store.put(name, bytes.clone()).await?;
    }
    crate::failpoint!("import.keys.stored");
    // Before the format, which makes the job exist: it is never taken for one that was not begun.
    if let Some(started) = &head.started {
        let _ = store.put_new(layout::STARTED, started.clone()).await?;
    }
    match store.put_new(layout::FORMAT, head.format.clone()).await? {
        Created::New => {}
        Created::AlreadyExists => {
            let there = Format::read(store).await.map_err(OpenError::from)?;
            if !there.as_ref().is_some_and(ours) {
                return Err(ArchiveError::OtherRepository(job.clone()));
            }
        }
    }
    Ok(Repository { store: store.clone(), ..sealed_as.clone() })
}

/// Shows that the import lives, until somebody else has the job.
async fn beat(claim: &Claim, job: &JobName) -> ArchiveError {
    loop {
        tokio::time::sleep((claim.lease / 3).max(Duration::from_millis(50))).await;
        match claim.beat().await {
            Ok(Standing::Held) => {}
            Ok(Standing::Fenced { .. }) => return ArchiveError::Fenced(job.clone()),
            // A store that is away: whatever is being stored will tell.
            Err(error) => tracing::debug!(%error, "a beat was lost"),
        }
    }
}
