//! `revenant key`: who may read a job's checkpoints.

use super::stored_job::{StoredJob, block_on};
use crate::explain::{Explain, Problem};
use crate::repository::format::Format;
use crate::repository::keys::{self, KeyError};
use crate::repository::user_key::UserKey;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Options of `revenant key`.
#[derive(Debug, Clone, Args)]
pub struct KeyOptions {
    #[command(flatten)]
    job: StoredJob,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Show the key slots
    List,
    /// Let another key open the checkpoints too
    Add {
        /// A file with the new key
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
    },
    /// Replace the key by another; no checkpoint is rewritten
    Rotate {
        /// A file with the new key
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
    },
    /// Take a key's access away
    Remove {
        /// The slot, as `revenant key list` shows it
        slot: String,
    },
}

/// Lists, adds, rotates or removes.
pub fn run(options: &KeyOptions) -> Result<u8, Problem> {
    block_on(async {
        let store = options.job.place()?;
        let format = Format::read(&store).await.map_err(|error| error.explain())?;
        let repository = format.ok_or_else(|| options.job.absent())?.repository;
        let explain = |error: KeyError| error.explain();
        let own_key = || options.job.key()?.ok_or_else(|| KeyError::Missing.explain());
        match &options.action {
            Action::List => {
                for slot in keys::slots(&store, repository).await.map_err(explain)? {
                    let kind = if slot.is_passphrase() { "passphrase" } else { "256-bit key" };
                    println!("{}  {kind:12} since {}", slot.slot, humantime::format_rfc3339_seconds(slot.created));
                }
            }
            Action::Add { new_key_file } => {
                let new = UserKey::from_file(new_key_file).map_err(explain)?;
                let (key, _) = keys::unlock(&store, repository, &own_key()?).await.map_err(explain)?;
                let slot = keys::add(&store, repository, &key, &new).await.map_err(explain)?;
                println!("added slot {slot}");
            }
            Action::Rotate { new_key_file } => {
                let new = UserKey::from_file(new_key_file).map_err(explain)?;
                let slot = keys::rotate(&store, repository, &own_key()?, &new).await.map_err(explain)?;
                println!("the new key opens slot {slot}; the old key opens nothing any more");
            }
            Action::Remove { slot } => {
                // Only who can open the checkpoints may lock others out.
                keys::unlock(&store, repository, &own_key()?).await.map_err(explain)?;
                keys::remove(&store, repository, slot).await.map_err(explain)?;
                println!("removed slot {slot}");
            }
        }
        Ok(0)
    })
}
