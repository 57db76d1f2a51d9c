//! What a back end and a decorator have to do. Keys are complete and already checked.

use super::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// What became of a put-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The object is this caller's.
    New,
    /// Another object of that name was there; it is unchanged.
    AlreadyExists,
}

/// What a store knows about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name, relative to the store that was asked.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was written, by the store's clock (for a file system: the clock of the host that keeps
    /// the files). Comparable only with other objects of the same store.
    pub modified: SystemTime,
}

/// See the methods of the same name of [`super::Store`].
#[async_trait]
pub(super) trait Backend: Send + Sync + Debug {
    /// For messages: scheme and place, without secrets, without a trailing slash.
    fn name(&self) -> &str;
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError>;
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;
    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError>;
    /// `range` is not empty.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError>;
    /// `prefix` is empty or ends with a slash. In any order.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;
    /// `prefix` as in `list`. The last component only, in any order.
    async fn directories(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
    async fn sweep(&self, _prefix: &str, _age: Duration) -> Result<(), StoreError> {
        Ok(())
    }
    /// Whether what was read of the object may have come from anywhere but the store; it does not do so again.
    fn forget(&self, _key: &str) -> bool {
        false
    }
}
