//! Test support: a store that fails, or waits, at a chosen operation.

use super::backend::{Backend, Created, ObjectInfo};
use super::{Store, StoreError, limit::Limit};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When a fault strikes: before the operation reaches the store, or after it took effect and before
/// the caller learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The store never sees the operation.
    Before,
    /// The operation took effect; its answer is lost.
    After,
}

/// One operation on the store, for a fault to choose by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Counted from 1 over all users of this decorator.
    pub number: u64,
    /// The method's name: `put_new`, `put`, `get`, `get_range`, `head`, `list`, `delete`.
    pub name: &'static str,
    /// The complete key or prefix.
    pub key: String,
}

/// Decides what happens around each operation.
#[async_trait]
pub trait Fault: Send + Sync + Debug {
    /// Fails, waits, or lets the operation pass.
    async fn strike(&self, moment: Moment, operation: &Operation) -> Result<(), StoreError>;
}

/// Fails one operation, counted from 1, or that one and all later ones.
#[derive(Debug, Clone)]
pub struct FailNth {
    /// Which operation.
    pub number: u64,
    /// Whether all later ones fail too.
    pub and_later: bool,
    /// Before or after it took effect.
    pub moment: Moment,
}

#[async_trait]
impl Fault for FailNth {
    async fn strike(&self, moment: Moment, operation: &Operation) -> Result<(), StoreError> {
        let hit = operation.number == self.number || self.and_later && operation.number > self.number;
        if hit && moment == self.moment {
            return Err(StoreError::Failed {
                store: "fault:".to_owned(),
                key: operation.key.clone(),
                reason: format!("injected failure of operation {} ({})", operation.number, operation.name),
            });
        }
        Ok(())
    }
}

/// Slows each operation.
#[derive(Debug, Clone)]
pub struct Slow(pub Duration);

#[async_trait]
impl Fault for Slow {
    async fn strike(&self, moment: Moment, _: &Operation) -> Result<(), StoreError> {
        if moment == Moment::Before {
            tokio::time::sleep(self.0).await;
        }
        Ok(())
    }
}

impl Store {
    /// This store with faults. Operations are counted from 1 for each call of this method.
    #[must_use]
    pub fn with_fault(self, fault: Arc<dyn Fault>) -> Self {
        self.wrapped(|inner| Arc::new(Faulty { inner, fault, count: AtomicU64::new(0) })).not_as_files()
    }

    /// This store behind a link of that many bytes per second in each direction.
    #[must_use]
    pub fn with_bandwidth(self, bytes_per_second: u64) -> Self {
        self.wrapped(|inner| Arc::new(Limit::link(inner, bytes_per_second))).not_as_files()
    }
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Backend>,
    fault: Arc<dyn Fault>,
    count: AtomicU64,
}

impl Faulty {
    async fn around<T>(
        &self,
        name: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let operation = Operation { number, name, key: key.to_owned() };
        self.fault.strike(Moment::Before, &operation).await?;
        let result = work.await;
        self.fault.strike(Moment::After, &operation).await?;
        result
    }
}

#[async_trait]
impl Backend for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.around("put_new", key, self.inner.put_new(key, bytes)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.around("put", key, self.inner.put(key, bytes)).await
    }

    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        self.around("get", key, self.inner.get(key, max_len)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.around("get_range", key, self.inner.get_range(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.around("head", key, self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.around("list", prefix, self.inner.list(prefix)).await
    }

    async fn directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.around("directories", prefix, self.inner.directories(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.around("delete", key, self.inner.delete(key)).await
    }

    async fn sweep(&self, prefix: &str, age: Duration) -> Result<(), StoreError> {
        self.inner.sweep(prefix, age).await
    }
}
