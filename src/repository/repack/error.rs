//! Why packs are not repacked.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::generations::GenerationError;
use crate::repository::read::ReadError;
use crate::repository::retention::PruneError;
use crate::store::StoreError;

/// Why packs are not repacked. Every generation is still there.
#[derive(Debug, thiserror::Error)]
pub enum RepackError {
    /// Another container has the job.
    #[error("another container has taken this job; nothing more is repacked here")]
    Fenced,
    /// A thread died, or was told to stop.
    #[error("repacking was interrupted")]
    Interrupted,
    /// What lives in a pack, or a recipe, cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A generation cannot be read or committed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The end of it: what was given up cannot be removed.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for RepackError {
    fn explain(&self) -> Problem {
        match self {
            Self::Fenced => Problem::new(
                Exit::Fenced,
                self.to_string(),
                "this process was silent for longer than its lease, or a container was started with --takeover",
                "nothing; the other container continues the job and prunes it",
            ),
            Self::Interrupted => {
                Problem::new(Exit::Internal, self.to_string(), "a bug in revenant", "prune again; please report this")
            }
            Self::Read(error) => error.explain(),
            Self::Generation(error) => error.explain(),
            Self::Prune(error) => error.explain(),
            Self::Store(error) => error.explain(),
        }
    }
}
