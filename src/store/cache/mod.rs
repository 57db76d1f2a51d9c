//! Packs that were read lately, on a disk of this node: the next restore here fetches them from there.
//!
//! A decorator. What it keeps is sealed as it is in the store, and opened by its seal like what comes from there; whoever
//! finds that it does not open says so ([`Backend::forget`]), and gets it from the store. A cache that does not work is
//! no reason to fail: then there is none.

mod folder;

use super::StoreError;
use super::backend::{Backend, Created, ObjectInfo};
use async_trait::async_trait;
use bytes::Bytes;
use folder::Folder;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A store whose packs are kept on this node.
#[derive(Debug)]
pub(super) struct Cached {
    inner: Arc<dyn Backend>,
    folder: Arc<Folder>,
}

impl Cached {
    /// With a folder (0700) of its own, and at most so many bytes in it.
    pub fn new(inner: Arc<dyn Backend>, folder: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self { inner, folder: Arc::new(Folder::open(folder, limit)?) })
    }

    /// Files are read and written beside the threads that wait for the network.
    async fn beside<T: Send + 'static>(&self, work: impl FnOnce(&Folder) -> T + Send + 'static) -> Option<T> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || work(&folder)).await.ok()
    }
}

/// The name of a pack, by which it can be found wherever it lies: 64 digits of chance.
fn pack(key: &str) -> Option<String> {
    let (folders, name) = key.rsplit_once('/')?;
    let is_pack = format!("/{folders}").contains("/packs/");
    (is_pack && name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| name.to_owned())
}

#[async_trait]
impl Backend for Cached {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.inner.put_new(key, bytes).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        self.inner.get(key, max_len).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Some(pack) = pack(key) else { return self.inner.get_range(key, range).await };
        let (name, wanted) = (pack.clone(), range.clone());
        if let Some(Some(bytes)) = self.beside(move |folder| folder.get(&name, &wanted)).await {
            return Ok(bytes);
        }
        let bytes = self.inner.get_range(key, range.clone()).await?;
        let kept = bytes.clone();
        // Nobody waits for it.
        drop(tokio::task::spawn_blocking({
            let folder = Arc::clone(&self.folder);
            move || folder.put(&pack, range.start, &kept)
        }));
        Ok(bytes)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.directories(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn sweep(&self, prefix: &str, age: Duration) -> Result<(), StoreError> {
        self.inner.sweep(prefix, age).await
    }

    fn forget(&self, key: &str) -> bool {
        let Some(pack) = pack(key) else { return false };
        // Also where nothing is left: another thread may have been told just before that it does not open.
        self.folder.forget(&pack);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[tokio::test]
    async fn packs_are_kept_and_nothing_else_and_what_is_forgotten_comes_from_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::memory();
        let cached = store.clone().child("job").cached(&folder.path().join("cache"), 1 << 20).unwrap();
        let key = format!("packs/ab/{}", "ab".repeat(32));
        let index = format!("index/{}", "cd".repeat(32));
        for key in [&key, &index] {
            store.child("job").put(key, Bytes::from(vec![7; 1000])).await.unwrap();
            assert_eq!(cached.get_range(key, 0..1000).await.unwrap(), vec![7; 1000]);
        }
        // It is written beside.
        let file = folder.path().join("cache").join(format!("{}-0", "ab".repeat(32)));
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for key in [&key, &index] {
            store.child("job").put(key, Bytes::from(vec![8; 1000])).await.unwrap();
        }
        assert_eq!(cached.get_range(&key, 10..20).await.unwrap(), vec![7; 10]);
        assert_eq!(cached.get_range(&index, 10..20).await.unwrap(), vec![8; 10]);
        assert!(cached.forget(&key));
        assert_eq!(cached.get_range(&key, 10..20).await.unwrap(), vec![8; 10]);
        assert!(!store.forget(&key), "a store without a cache has nothing to forget");
    }
}
