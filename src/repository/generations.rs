//! Which generations exist, what they are, and how a new one comes to be.

use super::claim::{Claim, ClaimError, Standing};
use super::claims::Claims;
use super::manifest::{self, Manifest, ManifestError};
use super::open::Repository;
use super::{layout, saves};
use crate::checkpoint::protocol::Holder;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::{Epoch, Generation};
use crate::store::{Created, Store, StoreError};
use std::collections::BTreeSet;

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// The generation exists, durably.
    Committed,
    /// Another container has taken the job; nobody will ever see the generation.
    Fenced {
        /// The newer claim. None when the claims were removed altogether.
        by: Option<(Epoch, Option<Holder>)>,
    },
}

/// Why a generation cannot be read or committed.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// There is no such generation.
    #[error("there is no generation {0}")]
    Unknown(Generation),
    /// Its manifest cannot be used.
    #[error("the manifest of generation {generation} cannot be used: {source}")]
    Manifest {
        /// Which.
        generation: Generation,
        /// Why.
        source: ManifestError,
    },
    /// The name is taken already, which the marks of saves should have prevented.
    #[error("generation {0} exists already")]
    Exists(Generation),
    /// The claims cannot be read.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for GenerationError {
    fn explain(&self) -> Problem {
        match self {
            Self::Unknown(_) => Problem::new(
                Exit::Usage,
                self.to_string(),
                "it was pruned, was never completed, or the name is mistyped",
                "`revenant list` shows the generations of a job",
            ),
            Self::Manifest { source: ManifestError::Newer { .. }, .. } => Problem::new(
                Exit::RestoreRefused,
                self.to_string(),
                "it was saved by a newer revenant than the one in this image",
                "use an image with at least that revenant; nothing was changed",
            ),
            Self::Manifest { .. } => Problem::new(
                Exit::Damaged,
                self.to_string(),
                "the object was changed or cut in the store",
                "run `revenant verify`; an older generation is used meanwhile",
            ),
            Self::Exists(_) => Problem::new(
                Exit::Internal,
                self.to_string(),
                "two saves of one container ran at the same time, which is a bug",
                "please report this; both checkpoints are intact",
            ),
            Self::Claim(error) => error.explain(),
            Self::Store(error) => error.explain(),
        }
    }
}

/// All stored manifests, also those that no seal accepts.
pub(super) async fn stored(store: &Store) -> Result<BTreeSet<Generation>, StoreError> {
    let objects = store.list(layout::GENERATIONS).await?;
    Ok(objects.iter().filter_map(|info| layout::parse_manifest(&info.key)).collect())
}

/// The generations that exist, oldest first. Needs no key.
pub async fn list(store: &Store) -> Result<Vec<Generation>, GenerationError> {
    // The generations first: one that is committed between the two listings is merely not shown. The
    // other way round, a claim taken in between could hide one.
    let stored = stored(store).await?;
    Ok(Claims::read(store).await?.visible(store, stored).await?)
}

/// The manifest of a generation.
pub async fn load(repository: &Repository, generation: Generation) -> Result<Manifest, GenerationError> {
    let bytes = match repository.store.get(&layout::manifest(generation), manifest::MAX_LEN).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Err(GenerationError::Unknown(generation)),
        Err(StoreError::TooLarge { .. }) => {
            let source = ManifestError::Damaged("it is longer than any manifest");
            return Err(GenerationError::Manifest { generation, source });
        }
        Err(error) => return Err(error.into()),
    };
    Manifest::open(&bytes, generation, &repository.crypt)
        .map_err(|source| GenerationError::Manifest { generation, source })
}

/// Makes a generation exist. All that it refers to has to be durable before.
///
/// When this fails, the generation may or may not exist; either way it is whole.
pub async fn commit(repository: &Repository, claim: &Claim, manifest: &Manifest) -> Result<Commit, GenerationError> {
    let generation = manifest.generation;
    // Saves the round trip of a manifest that nobody would see. The check that counts comes after.
    if let Standing::Fenced { by } = claim.check().await? {
        return Ok(Commit::Fenced { by });
    }
    let bytes = manifest.seal(&repository.crypt).map_err(|source| GenerationError::Manifest { generation, source })?;
    crate::failpoint!("commit-before-manifest");
    match repository.store.put_new(&layout::manifest(generation), bytes.into()).await? {
        Created::New => {}
        Created::AlreadyExists => return Err(GenerationError::Exists(generation)),
    }
    crate::failpoint!("commit-after-manifest");
    match claim.check().await? {
        Standing::Fenced { by } => Ok(Commit::Fenced { by }),
        Standing::Held => {
            saves::end(&repository.store, generation).await;
            Ok(Commit::Committed)
        }
    }
}
