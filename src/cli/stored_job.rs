//! Which job in which store a subcommand is about.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::JobName;
use crate::repository::open::Repository;
use crate::repository::user_key::UserKey;
use crate::store::{Store, StoreSettings};
use clap::Args;
use std::path::PathBuf;

/// A job in a store.
#[derive(Debug, Clone, Args)]
pub struct StoredJob {
    /// Where checkpoints are kept: `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`
    #[arg(long, env = "REVENANT_STORE", value_name = "URL", default_value = "file:///checkpoints")]
    pub store: String,
    /// The job's name
    #[arg(long, env = "REVENANT_JOB", value_name = "NAME")]
    pub job: JobName,
    #[allow(clippy::doc_markdown)] // Shown to people as it is.
    /// A file with the key: 32 bytes in base64 or hexadecimal, or a passphrase (REVENANT_KEY holds one itself)
    #[arg(long, env = "REVENANT_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

impl StoredJob {
    /// The job's part of the store. Nothing is contacted yet.
    pub fn place(&self) -> Result<Store, Problem> {
        let store = Store::open(&self.store, &StoreSettings::default()).map_err(|error| error.explain())?;
        Ok(store.child(self.job.as_str()))
    }

    /// The user's key, if one is given.
    pub fn key(&self) -> Result<Option<UserKey>, Problem> {
        UserKey::from_environment(self.key_file.as_deref()).map_err(|error| error.explain())
    }

    /// Opens the job's repository.
    pub async fn open(&self) -> Result<Repository, Problem> {
        let key = self.key()?;
        let opened = Repository::open(&self.place()?, key.as_ref()).await.map_err(|error| error.explain())?;
        opened.ok_or_else(|| self.absent())
    }

    /// There is no such job.
    pub fn absent(&self) -> Problem {
        Problem::new(
            Exit::Failure,
            format!("the store {} has no job {}", self.store, self.job),
            "the job never saved anything, or its name or the store's URL is mistyped",
            "`revenant list --jobs --store URL` shows the jobs of a store",
        )
    }
}

/// Runs a subcommand's work on an event loop with threads of its own.
pub fn block_on<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    threads()?.block_on(work)
}

/// An event loop with threads of its own.
pub fn threads() -> Result<tokio::runtime::Runtime, Problem> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| {
        Problem::new(
            Exit::Failure,
            format!("the event loop cannot be started: {error}"),
            "the container has no threads or file descriptors left",
            "raise its limits",
        )
    })
}

/// One JSON value on a line of its own.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Problem> {
    let text = serde_json::to_string(value)
        .map_err(|error| Problem::new(Exit::Internal, error.to_string(), "a bug in revenant", "please report it"))?;
    println!("{text}");
    Ok(())
}
