//! A store in memory, for tests.

use super::StoreError;
use super::backend::{Backend, Created, ObjectInfo};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Memory {
    objects: Mutex<BTreeMap<String, (Bytes, SystemTime)>>,
    /// Times follow tokio's clock, so that tests can let hours pass in no time.
    origin: (SystemTime, Instant),
}

impl Default for Memory {
    fn default() -> Self {
        Self { objects: Mutex::default(), origin: (SystemTime::now(), Instant::now()) }
    }
}

impl Memory {
    /// Every change is one map operation, so a panic elsewhere leaves nothing half done.
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, SystemTime)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> SystemTime {
        self.origin.0 + self.origin.1.elapsed()
    }

    fn find(&self, key: &str) -> Result<Bytes, StoreError> {
        let found = self.objects().get(key).map(|(bytes, _)| bytes.clone());
        found.ok_or_else(|| StoreError::NotFound { store: self.name().to_owned(), key: key.to_owned() })
    }
}

#[async_trait]
impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory:"
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        match self.objects().entry(key.to_owned()) {
            Entry::Occupied(_) => Ok(Created::AlreadyExists),
            Entry::Vacant(place) => {
                place.insert((bytes, self.now()));
                Ok(Created::New)
            }
        }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let now = self.now();
        self.objects().insert(key.to_owned(), (bytes, now));
        Ok(())
    }

    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        let bytes = self.find(key)?;
        let size = bytes.len() as u64;
        if size > max_len {
            return Err(StoreError::TooLarge { key: key.to_owned(), size, limit: max_len });
        }
        Ok(bytes)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.find(key)?;
        let size = bytes.len() as u64;
        if range.end > size {
            let (offset, wanted) = (range.start, range.end - range.start);
            return Err(StoreError::ShortRead {
                key: key.to_owned(),
                offset,
                wanted,
                got: size.saturating_sub(range.start),
            });
        }
        // Both ends are at most the length of a buffer in memory.
        #[allow(clippy::cast_possible_truncation)]
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        Ok(self.objects().get(key).map(|(bytes, modified)| info(key, bytes, *modified)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.objects();
        let below = objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(below.map(|(key, (bytes, modified))| info(key, bytes, *modified)).collect())
    }

    async fn directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let infos = self.list(prefix).await?;
        let names: BTreeSet<&str> =
            infos.iter().filter_map(|info| Some(info.key[prefix.len()..].split_once('/')?.0)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }
}

fn info(key: &str, bytes: &Bytes, modified: SystemTime) -> ObjectInfo {
    ObjectInfo { key: key.to_owned(), size: bytes.len() as u64, modified }
}
