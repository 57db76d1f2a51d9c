//! Opens or creates a job's repository: its store, its format, its keys.

use super::crypto::{Crypt, RepositoryKey};
use super::format::{Chunking, Encryption, Format, FormatError};
use super::keys::{self, KeyError};
use super::user_key::UserKey;
use crate::explain::{Explain, Problem};
use crate::store::{Store, StoreError};

/// An open repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Scoped to the job.
    pub store: Store,
    /// What is fixed for the repository's life.
    pub format: Format,
    /// Names chunks, seals and opens objects.
    pub crypt: Crypt,
}

/// Why a repository does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its format cannot be used.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Its key is missing or wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Format(error.into())
    }
}

impl Explain for OpenError {
    fn explain(&self) -> Problem {
        match self {
            Self::Format(error) => error.explain(),
            Self::Key(error) => error.explain(),
        }
    }
}

impl Repository {
    /// Opens the repository in `store` (scoped to the job), or returns none when there is none.
    pub async fn open(store: &Store, key: Option<&UserKey>) -> Result<Option<Self>, OpenError> {
        match Format::read(store).await? {
            Some(format) => Self::unlock(store, format, key).await.map(Some),
            None => Ok(None),
        }
    }

    /// Opens the repository, or creates one: encrypted if there is a key.
    pub async fn open_or_create(store: &Store, key: Option<&UserKey>, chunking: Chunking) -> Result<Self, OpenError> {
        if let Some(repository) = Self::open(store, key).await? {
            return Ok(repository);
        }
        let format = match key {
            None => Format::new(chunking, Encryption::None),
            Some(user) => {
                // The slot goes first: a repository that exists can be opened. A slot that loses the
                // race names another repository and is passed over.
                let format = Format::new(chunking, Encryption::Aes256Gcm);
                keys::add(store, format.repository, &RepositoryKey::random(), user).await?;
                format
            }
        };
        let format = format.establish(store).await?;
        Self::unlock(store, format, key).await
    }

    async fn unlock(store: &Store, format: Format, key: Option<&UserKey>) -> Result<Self, OpenError> {
        let crypt = match (format.encryption, key) {
            (Encryption::None, None) => Crypt::unencrypted(format.repository),
            // Whoever can write to the store must not be able to switch encryption off by it.
            (Encryption::None, Some(_)) => return Err(KeyError::NotEncrypted.into()),
            (Encryption::Aes256Gcm, None) => return Err(KeyError::Missing.into()),
            (Encryption::Aes256Gcm, Some(user)) => {
                Crypt::encrypted(format.repository, &keys::unlock(store, format.repository, user).await?.0)
            }
        };
        Ok(Self { store: store.clone(), format, crypt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKING: Chunking = Chunking { min_pages: 4, average_pages: 16, max_pages: 64 };

    fn key() -> UserKey {
        UserKey::from_text(&"5a".repeat(32)).unwrap()
    }

    #[tokio::test]
    async fn opens_what_it_created() {
        for key in [None, Some(key())] {
            let store = Store::memory();
            assert!(Repository::open(&store, key.as_ref()).await.unwrap().is_none());
            let made = Repository::open_or_create(&store, key.as_ref(), CHUNKING).await.unwrap();
            let again = Repository::open_or_create(&store, key.as_ref(), CHUNKING).await.unwrap();
            assert_eq!(made.crypt.chunk_id(b"x"), again.crypt.chunk_id(b"x"));
            assert_eq!(made.crypt.is_encrypted(), key.is_some());
        }
    }

    #[tokio::test]
    async fn concurrent_creators_agree_on_one_key() {
        let store = Store::memory();
        let key = key();
        let (a, b) = tokio::join!(
            Repository::open_or_create(&store, Some(&key), CHUNKING),
            Repository::open_or_create(&store, Some(&key), CHUNKING)
        );
        assert_eq!(a.unwrap().crypt.chunk_id(b"x"), b.unwrap().crypt.chunk_id(b"x"));
    }

    #[tokio::test]
    async fn refuses_a_missing_or_needless_key() {
        let (plain, encrypted) = (Store::memory(), Store::memory());
        Repository::open_or_create(&plain, None, CHUNKING).await.unwrap();
        Repository::open_or_create(&encrypted, Some(&key()), CHUNKING).await.unwrap();
        let error = Repository::open(&encrypted, None).await.unwrap_err();
        assert!(matches!(error, OpenError::Key(KeyError::Missing)));
        let error = Repository::open(&plain, Some(&key())).await.unwrap_err();
        assert!(matches!(error, OpenError::Key(KeyError::NotEncrypted)));
    }
}
