//! `revenant-export.json`: what an archive is, at its beginning.

use super::error::ArchiveError;
use crate::job::{Generation, JobName};
use crate::repository::crypto::RepositoryId;
use crate::repository::document::{self, DocumentError};
use crate::repository::timestamp;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

const KIND: &str = "export";

/// The first member of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// The job that was exported.
    pub job: JobName,
    /// Its repository: what seals open in.
    pub repository: RepositoryId,
    /// When.
    #[serde(with = "timestamp")]
    pub exported: SystemTime,
    /// The generations, oldest first.
    pub generations: Vec<Generation>,
    /// Bytes of all index objects and packs, for people who wait.
    pub bytes: u64,
}

impl Contents {
    pub fn encode(&self) -> Result<Vec<u8>, ArchiveError> {
        document::encode(KIND, self).map_err(|error| ArchiveError::damaged("revenant-export.json", error))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ArchiveError> {
        document::decode(KIND, bytes).map_err(|error| match error {
            DocumentError::Newer { found } => ArchiveError::Newer { found },
            damaged @ DocumentError::Damaged(_) => ArchiveError::damaged("revenant-export.json", damaged),
        })
    }
}
