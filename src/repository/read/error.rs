//! Why a generation cannot be read.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::store::StoreError;
use std::fmt;
use std::sync::Arc;

/// Why a generation cannot be read. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// A stored object is damaged.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// Its key, relative to the job.
        object: String,
        /// In what respect.
        reason: String,
    },
    /// The generation has no such image.
    #[error("the checkpoint has no image {0:?}")]
    NoSuchImage(String),
    /// An image is longer than anything that belongs there.
    #[error("the image {name:?} has {length} bytes, more than the {limit} that are possible there")]
    TooLarge {
        /// Its name.
        name: String,
        /// Its length.
        length: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// Another thread of the same read failed first.
    #[error("reading was given up")]
    Aborted,
}

impl ReadError {
    pub(super) fn damaged(object: &str, reason: impl fmt::Display) -> Self {
        Self::Damaged { object: object.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn system(what: &'static str, source: std::io::Error) -> Self {
        Self::System { what, source: Arc::new(source) }
    }

    /// Whether the stored data is at fault: another generation may do. Otherwise trying again may.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_damage(),
            Self::Damaged { .. } | Self::NoSuchImage(_) | Self::TooLarge { .. } => true,
            Self::System { .. } | Self::Aborted => false,
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl Explain for ReadError {
    fn explain(&self) -> Problem {
        let (exit, cause, next) = match self {
            Self::Store(error) if !error.is_damage() => return error.explain(),
            Self::Store(_) | Self::Damaged { .. } | Self::NoSuchImage(_) | Self::TooLarge { .. } => (
                Exit::Damaged,
                "the store lost or changed data, or something else wrote there",
                "run `revenant verify` to learn which generations it hurts; an older one may be whole",
            ),
            Self::System { .. } | Self::Aborted => (
                Exit::Failure,
                "memory, threads or file descriptors are exhausted",
                "check the container's limits, then try again",
            ),
        };
        Problem::new(exit, self.to_string(), cause, next)
    }
}
