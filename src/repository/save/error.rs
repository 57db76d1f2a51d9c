//! Why a save failed.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::store::StoreError;
use std::sync::Arc;

/// Why a save failed. Cheap to clone: every thread of the save reports the first failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SaveError {
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// Two images of one name: CRIU never does that.
    #[error("the image {0:?} was given twice")]
    Twice(String),
    /// An image's name is not usable.
    #[error("{0:?} is not a possible image name")]
    Name(String),
    /// The save was given up.
    #[error("the save was given up")]
    Aborted,
    /// A bug.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl SaveError {
    pub(super) fn system(what: &'static str, source: std::io::Error) -> Self {
        Self::System { what, source: Arc::new(source) }
    }
}

impl From<StoreError> for SaveError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl Explain for SaveError {
    fn explain(&self) -> Problem {
        let (exit, cause, next) = match self {
            Self::Store(error) => return error.explain(),
            Self::System { .. } => (
                Exit::Failure,
                "memory, threads, file descriptors, or the spool's space or permissions are exhausted",
                "check the container's limits and --spool; the last durable checkpoint is untouched",
            ),
            Self::Twice(_) | Self::Name(_) | Self::Internal(_) => {
                (Exit::Internal, "this is a bug", "please report it; the last durable checkpoint is untouched")
            }
            Self::Aborted => (
                Exit::Failure,
                "something else failed or the save was interrupted",
                "see the messages before this one; the last durable checkpoint is untouched",
            ),
        };
        Problem::new(exit, self.to_string(), cause, next)
    }
}
