//! A limit on the rate at which bytes are written (and, for tests, read).

use super::StoreError;
use super::backend::{Backend, Created, ObjectInfo};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Limit {
    inner: Arc<dyn Backend>,
    upload: Option<Rate>,
    download: Option<Rate>,
}

/// Bytes per second, kept on average: each transfer books its share of the time line, and begins
/// when the shares before it have passed. Several writers share one line.
#[derive(Debug)]
struct Rate {
    bytes_per_second: u64,
    booked_until: Mutex<Option<Instant>>,
}

impl Rate {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), booked_until: Mutex::new(None) }
    }

    async fn take(&self, bytes: u64) {
        // A rate is far below 2^52 bytes per second.
        #[allow(clippy::cast_precision_loss)]
        let share = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let until = {
            let mut booked = self.booked_until.lock().unwrap_or_else(PoisonError::into_inner);
            let until = booked.unwrap_or_else(Instant::now).max(Instant::now()) + share;
            *booked = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

impl Limit {
    pub(super) fn upload(inner: Arc<dyn Backend>, bytes_per_second: u64) -> Self {
        Self { inner, upload: Some(Rate::new(bytes_per_second)), download: None }
    }

    /// A slow link in both directions.
    pub(super) fn link(inner: Arc<dyn Backend>, bytes_per_second: u64) -> Self {
        Self { inner, upload: Some(Rate::new(bytes_per_second)), download: Some(Rate::new(bytes_per_second)) }
    }
}

async fn take(rate: Option<&Rate>, bytes: u64) {
    if let Some(rate) = rate {
        rate.take(bytes).await;
    }
}

#[async_trait]
impl Backend for Limit {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        take(self.upload.as_ref(), bytes.len() as u64).await;
        self.inner.put_new(key, bytes).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        take(self.upload.as_ref(), bytes.len() as u64).await;
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(key, max_len).await?;
        take(self.download.as_ref(), bytes.len() as u64).await;
        Ok(bytes)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        take(self.download.as_ref(), range.end - range.start).await;
        self.inner.get_range(key, range).await
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
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_all_writers() {
        let store = Store::memory().wrapped(|inner| Arc::new(Limit::upload(inner, 1 << 20)));
        let begun = Instant::now();
        let writers = (0..4).map(|n| {
            let store = store.clone();
            async move {
                for piece in 0..5 {
                    store.put(&format!("{n}/{piece}"), Bytes::from(vec![0; 1 << 19])).await.unwrap();
                }
            }
        });
        futures::future::join_all(writers).await;
        // 10 MiB at 1 MiB/s, in virtual time.
        assert_eq!(begun.elapsed().as_secs(), 10);
        store.get("0/0", 1 << 20).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 10, "reading is not limited");
    }
}
