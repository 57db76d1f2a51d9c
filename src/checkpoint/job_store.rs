//! A job's repository as the engine uses it: opened under a claim.

use super::engine::Events;
use super::protocol::JobContext;
use super::record::Record;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::{Epoch, Generation, JobName};
use crate::repository::claim::Claim;
use crate::repository::generations::{self, Commit};
use crate::repository::manifest::{ImageEntry, IndexRef, Manifest, PackRef, Stats};
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::repository::retention::{self, Keep};
use crate::repository::save::Stored;
use crate::repository::saves;
use crate::repository::user_key::UserKey;
use crate::store::{Store, StoreSettings};
use std::time::{Duration, SystemTime};
use tokio::runtime::{Handle, Runtime};

/// A job under a claim of this container.
#[derive(Debug)]
pub struct OpenJob {
    /// Its name.
    pub name: JobName,
    /// Its repository.
    pub repository: Repository,
    /// The right to write.
    pub claim: Claim,
}

/// The job's part of the store. Nothing is contacted yet.
pub fn store(context: &JobContext, settings: &StoreSettings) -> Result<Store, Problem> {
    let store = Store::open(&context.store, settings).map_err(|error| error.explain())?;
    Ok(store.child(context.job.as_str()))
}

/// The user's key, if there is one.
pub fn user_key() -> Result<Option<UserKey>, Problem> {
    let file = std::env::var_os("REVENANT_KEY_FILE").map(std::path::PathBuf::from);
    UserKey::from_environment(file.as_deref()).map_err(|error| error.explain())
}

/// The repository of a job that is claimed already.
pub async fn open_claimed(context: &JobContext, epoch: Epoch, settings: &StoreSettings) -> Result<OpenJob, Problem> {
    let store = store(context, settings)?;
    let repository = Repository::open(&store, user_key()?.as_ref()).await.map_err(|error| error.explain())?;
    let repository = repository.ok_or_else(|| {
        Problem::new(
            Exit::StoreUnavailable,
            format!("the store {} has lost job {}", context.store, context.job),
            "its directory or prefix was removed while the job was running",
            "restore it from a backup, or start the job under another name",
        )
    })?;
    // The lease is renewed by PID 1; the engine only writes under the claim.
    let claim = Claim::resume(&store, epoch, Duration::ZERO);
    Ok(OpenJob { name: context.job.clone(), repository, claim })
}

impl OpenJob {
    /// Begins a save: the name of the generation that it is to become.
    pub async fn next_generation(&self) -> Result<Generation, Problem> {
        saves::begin(&self.claim, &self.repository.store).await.map_err(|error| error.explain())
    }

    /// The generation that a save is compared with. One that cannot be read costs space, not safety.
    pub async fn parent(&self, base: Option<Generation>) -> Option<Opened> {
        match open_generation(&self.repository, base?, &Handle::current()).await {
            Ok((_, opened)) => Some(opened),
            Err(problem) => {
                tracing::warn!(base = %base?, %problem, "cannot compare with the last generation; saving everything");
                None
            }
        }
    }

    /// Makes the generation exist, and says so only when it does.
    pub async fn commit(
        &self,
        generation: Generation,
        base: Option<Generation>,
        stored: Stored,
        record: &Record,
        total: Duration,
    ) -> Result<(), Problem> {
        let progress = stored.progress;
        let manifest = Manifest {
            repository: self.repository.format.repository,
            job: self.name.clone(),
            generation,
            created: SystemTime::now(),
            base,
            replaces: None,
            reason: record.reason.clone(),
            images: stored.images.into_iter().map(|(name, len)| ImageEntry { name, len }).collect(),
            index: IndexRef { id: stored.index, len: stored.index_length },
            packs: stored.packs.iter().map(|pack| PackRef { id: pack.id, len: pack.size }).collect(),
            checkpoint: serde_json::to_value(record).map_err(|error| {
                Problem::new(Exit::Internal, format!("the record cannot be written: {error}"), "", "please report it")
            })?,
            stats: Stats {
                image_bytes: progress.image_bytes,
                new_bytes: progress.new_bytes,
                stored_bytes: progress.stored_bytes,
                frozen_ms: record.frozen_ms,
                total_ms: u64::try_from(total.as_millis()).unwrap_or(u64::MAX),
                ..Stats::default()
            },
        };
        let committed = generations::commit(&self.repository, &self.claim, &manifest).await;
        match committed.map_err(|error| error.explain())? {
            Commit::Committed => Ok(()),
            Commit::Fenced { by } => Err(fenced(by.and_then(|(_, holder)| holder).map(|holder| holder.host))),
        }
    }

    /// Removes what the policy does not keep. A failure costs space only; the next save tries again.
    pub fn prune(&self, keep: u32, events: &Events, runtime: &Runtime) {
        let policy = Keep { last: keep.max(1), within: None };
        if let Err(error) = runtime.block_on(retention::prune(&self.repository, &self.claim, policy, &[])) {
            events.warn(error.explain());
        }
    }
}

/// A generation's manifest and images.
pub async fn open_generation(
    repository: &Repository,
    generation: Generation,
    runtime: &Handle,
) -> Result<(Manifest, Opened), Problem> {
    let manifest = generations::load(repository, generation).await.map_err(|error| error.explain())?;
    let opened = Opened::open(repository, manifest.index.id, manifest.index.len, runtime)
        .await
        .map_err(|error| error.explain())?;
    Ok((manifest, opened))
}

/// Another container has the job.
pub fn fenced(by: Option<String>) -> Problem {
    Problem::new(
        Exit::Fenced,
        match by {
            Some(host) => format!("another container ({host}) has taken this job over"),
            None => "another container has taken this job over".to_owned(),
        },
        "this container was silent for longer than its lease, or the job was started twice",
        "nothing to do: the other container continues the job",
    )
}
