//! From a URL to an object store that keeps its promises: fsync, retries, time limits.
//!
//! A [`Store`] is a place for small and large objects, named by keys. It has four kinds of
//! back end (`local`, `cloud`, `memory`), and decorators around them, one behaviour each: `retry`,
//! `limit`, `cache`, `fault`. The repository builds on two properties only: an object appears whole or not
//! at all, and of two writers that create the same object exactly one is told that it did.

mod backend;
mod cache;
mod cloud;
mod error;
pub mod fault;
mod key;
mod limit;
mod local;
mod memory;
mod open;
mod retry;
mod tls;

pub use backend::{Created, ObjectInfo};
pub use error::StoreError;
pub use open::StoreSettings;
pub use retry::{Trouble, take_trouble};

use backend::Backend;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place for objects. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    /// Empty, or ends with a slash.
    prefix: String,
    local: Option<PathBuf>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({}/{})", self.backend.name(), self.prefix)
    }
}

impl Store {
    /// Opens the store that a URL names: `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix`, or `memory:` (for tests: a new empty one). Nothing is contacted and
    /// nothing is created yet.
    ///
    /// Credentials come from the environment: `AWS_*` (with `AWS_ENDPOINT_URL`; plain HTTP is allowed
    /// when that is an `http:` URL), `GOOGLE_*`, `AZURE_*`.
    pub fn open(url: &str, settings: &StoreSettings) -> Result<Self, StoreError> {
        open::open(url, settings)
    }

    /// An empty store in memory, without decorators.
    pub fn memory() -> Self {
        Self::from_backend(Arc::new(memory::Memory::default()))
    }

    fn from_backend(backend: Arc<dyn Backend>) -> Self {
        Self { backend, prefix: String::new(), local: None }
    }

    /// The store of everything below `prefix`.
    #[must_use]
    pub fn child(&self, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        Self {
            backend: Arc::clone(&self.backend),
            prefix: if prefix.is_empty() { self.prefix.clone() } else { format!("{}{prefix}/", self.prefix) },
            local: self.local.as_ref().map(|path| path.join(prefix)),
        }
    }

    /// Creates an object if there is none of that name. Durable when it returns. Of any number of
    /// concurrent callers exactly one gets [`Created::New`].
    pub async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.backend.put_new(&self.full(key)?, bytes).await
    }

    /// Writes a whole object, replacing what was there. Durable when it returns; readers see the old
    /// or the new content, never a mixture.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.backend.put(&self.full(key)?, bytes).await
    }

    /// Reads a whole object; one longer than `max_len` is refused before anything is allocated.
    pub async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        self.backend.get(&self.full(key)?, max_len).await
    }

    /// Reads exactly these bytes of an object. An object that ends before is [`StoreError::ShortRead`].
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        self.backend.get_range(&self.full(key)?, range).await
    }

    /// Keeps the packs that are read in a folder of this node, at most so many bytes of them.
    pub fn cached(self, folder: &Path, limit: u64) -> std::io::Result<Self> {
        let cached = cache::Cached::new(Arc::clone(&self.backend), folder, limit)?;
        Ok(self.wrapped(|_| Arc::new(cached)))
    }

    /// What was read of this object is wrong: next time it comes from the store itself. False where it always does. Blocks.
    pub fn forget(&self, key: &str) -> bool {
        self.full(key).is_ok_and(|key| self.backend.forget(&key))
    }

    /// Size and time of an object, or none.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let found = self.backend.head(&self.full(key)?).await?;
        Ok(found.map(|info| ObjectInfo { key: key.to_owned(), ..info }))
    }

    /// All objects below the directory `prefix` (empty: all), at any depth, sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let below = match prefix.trim_matches('/') {
            "" => self.prefix.clone(),
            prefix => format!("{}/", self.full(prefix)?),
        };
        let mut found = self.backend.list(&below).await?;
        for info in &mut found {
            info.key = info.key.split_off(self.prefix.len());
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// The names of the directories right below this store that hold objects, at any depth; sorted.
    pub async fn directories(&self) -> Result<Vec<String>, StoreError> {
        let mut found = self.backend.directories(&self.prefix).await?;
        found.sort();
        Ok(found)
    }

    /// Removes an object. It is no error when there is none.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.backend.delete(&self.full(key)?).await
    }

    /// Removes what interrupted writes left below `prefix`, if it is older than `age`. Object stores
    /// have no such leftovers that can be seen; a file system has temporary files.
    pub async fn sweep(&self, age: std::time::Duration) -> Result<(), StoreError> {
        self.backend.sweep(&self.prefix, age).await
    }

    /// The directory that holds the objects, for a `file:` store whose objects may be read as files.
    pub fn is_local(&self) -> Option<&Path> {
        self.local.as_deref()
    }

    /// The same place through another decorator.
    fn wrapped(self, wrap: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>) -> Self {
        Self { backend: wrap(self.backend), ..self }
    }

    /// The same place, read through its decorators only.
    fn not_as_files(self) -> Self {
        Self { local: None, ..self }
    }

    fn full(&self, key: &str) -> Result<String, StoreError> {
        key::check(key)?;
        Ok(format!("{}{key}", self.prefix))
    }
}
