//! `format.json`: the document that makes a repository exist, written once and never changed.

use super::crypto::RepositoryId;
use super::document::{self, DocumentError};
use super::layout;
use super::timestamp;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::store::{Created, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Kind of the document.
pub(super) const KIND: &str = "repository";
/// The version that this revenant writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Far above what the document needs.
pub(super) const MAX_LEN: u64 = 64 << 10;

/// How page images are cut into chunks. Lengths are in pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunking {
    /// Shortest chunk, except at the end of a run of pages.
    pub min_pages: u32,
    /// Length that chunks have on average on random content.
    pub average_pages: u32,
    /// Longest chunk.
    pub max_pages: u32,
}

impl Chunking {
    /// Whether a chunker can work with these, and a reader can bound its buffers by them: 1 ≤ min ≤
    /// average ≤ max ≤ 4096 (16 MiB).
    pub fn is_usable(&self) -> bool {
        1 <= self.min_pages
            && self.min_pages <= self.average_pages
            && self.average_pages <= self.max_pages
            && self.max_pages <= 4096
    }
}

/// Whether and how content is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// Digests only.
    None,
    /// AES-256-GCM; the repository key lies wrapped in the key slots.
    Aes256Gcm,
}

/// What is fixed for the life of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Version of the format of everything in the repository.
    pub version: u32,
    /// Random identity of this repository.
    pub repository: RepositoryId,
    /// When it was made.
    #[serde(with = "timestamp")]
    pub created: SystemTime,
    /// How page images are cut.
    pub chunking: Chunking,
    /// How content is encrypted.
    pub encryption: Encryption,
}

/// Why a repository's format cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It was written by a newer revenant.
    #[error("the repository has format version {found}, this revenant reads up to version {VERSION}")]
    Newer {
        /// The repository's version.
        found: u64,
    },
    /// It is not revenant's, or damaged.
    #[error("{} is damaged or not revenant's: {reason}", layout::FORMAT)]
    Damaged {
        /// In what respect.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DocumentError> for FormatError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Newer { found } => Self::Newer { found },
            DocumentError::Damaged(reason) => Self::Damaged { reason },
        }
    }
}

impl Explain for FormatError {
    fn explain(&self) -> Problem {
        match self {
            Self::Newer { .. } => Problem::new(
                Exit::RestoreRefused,
                self.to_string(),
                "the job was started by a newer revenant than the one in this image",
                "use an image with at least that revenant; nothing was changed",
            ),
            Self::Damaged { .. } => Problem::new(
                Exit::Damaged,
                self.to_string(),
                "the file was changed or cut, or --store and --job point at something else",
                "check --store and --job; restore format.json from a copy of the store, or start the job under a new name",
            ),
            Self::Store(error) => error.explain(),
        }
    }
}

impl Format {
    /// The format of a new repository.
    pub fn new(chunking: Chunking, encryption: Encryption) -> Self {
        Self { version: VERSION, repository: RepositoryId::random(), created: timestamp::now(), chunking, encryption }
    }

    /// From the bytes of `format.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let damaged = |reason: String| FormatError::Damaged { reason };
        let format: Self = document::decode(KIND, bytes).map_err(FormatError::from)?;
        match format.version {
            VERSION => {}
            0 => return Err(damaged("there is no version 0".to_owned())),
            found => return Err(FormatError::Newer { found: u64::from(found) }),
        }
        if !format.chunking.is_usable() {
            return Err(damaged("its chunk lengths make no sense".to_owned()));
        }
        Ok(format)
    }

    /// The format of the repository in `store`, or none when there is no repository.
    pub async fn read(store: &Store) -> Result<Option<Self>, FormatError> {
        match store.get(layout::FORMAT, MAX_LEN).await {
            Ok(bytes) => Self::parse(&bytes).map(Some),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the repository exist. Of several writers one succeeds; all continue with its format, so
    /// the result may differ from `self`.
    pub async fn establish(self, store: &Store) -> Result<Self, FormatError> {
        let bytes = document::encode(KIND, &self)?;
        match store.put_new(layout::FORMAT, bytes.into()).await? {
            Created::New => Ok(self),
            Created::AlreadyExists => match Self::read(store).await? {
                Some(other) => Ok(other),
                None => Err(FormatError::Damaged { reason: "it vanished while it was read".to_owned() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNKING: Chunking = Chunking { min_pages: 4, average_pages: 16, max_pages: 64 };

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(Format::parse(&bytes).is_err());
        }

        #[test]
        fn a_damaged_document_never_panics(at: prop::sample::Index, byte: u8) {
            let mut bytes = document::encode(KIND, &Format::new(CHUNKING, Encryption::None)).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Format::parse(&bytes);
        }
    }

    #[tokio::test]
    async fn the_first_writer_decides() {
        let store = Store::memory();
        assert_eq!(Format::read(&store).await.unwrap(), None);
        let first = Format::new(CHUNKING, Encryption::None).establish(&store).await.unwrap();
        let second = Format::new(CHUNKING, Encryption::Aes256Gcm).establish(&store).await.unwrap();
        assert_eq!(first, second);
        assert_eq!(Format::read(&store).await.unwrap(), Some(first));
    }

    #[test]
    fn a_newer_version_is_named() {
        let newer = Format { version: 7, ..Format::new(CHUNKING, Encryption::None) };
        let newer = document::encode(KIND, &newer).unwrap();
        insta::assert_snapshot!(Format::parse(&newer).unwrap_err().explain(), @r"
the repository has format version 7, this revenant reads up to version 1
  why:  the job was started by a newer revenant than the one in this image
  next: use an image with at least that revenant; nothing was changed
");
    }
}
