//! Tries again what failed for a passing reason, with growing, jittered pauses, until it works or
//! the patience is at its end. Each attempt has a time limit of its own.

use super::StoreError;
use super::backend::{Backend, Created, ObjectInfo};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Operations of this process that failed for good, and attempts that were repeated.
static ERRORS: AtomicU64 = AtomicU64::new(0);
static RETRIES: AtomicU64 = AtomicU64::new(0);

/// How often this process has met trouble with its stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Operations that failed for good. An object that is not there is no trouble.
    pub errors: u64,
    /// Attempts that were repeated.
    pub retries: u64,
}

/// The trouble since the last call.
pub fn take_trouble() -> Trouble {
    Trouble { errors: ERRORS.swap(0, Ordering::Relaxed), retries: RETRIES.swap(0, Ordering::Relaxed) }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Retry {
    inner: Arc<dyn Backend>,
    patience: Duration,
    request_timeout: Duration,
}

impl Retry {
    pub(super) fn new(inner: Arc<dyn Backend>, patience: Duration, request_timeout: Duration) -> Self {
        Self { inner, patience, request_timeout }
    }

    /// `payload` is the number of bytes that travel.
    fn tries<'a>(&'a self, key: &'a str, payload: u64) -> Tries<'a> {
        let limit = self.request_timeout + Duration::from_secs(payload >> 20);
        Tries { retry: self, key, begun: Instant::now(), limit, pause: FIRST_PAUSE, first: true }
    }
}

/// The attempts at one operation.
struct Tries<'a> {
    retry: &'a Retry,
    key: &'a str,
    begun: Instant,
    limit: Duration,
    pause: Duration,
    first: bool,
}

impl Tries<'_> {
    /// Makes one attempt. Returns how the operation ended, or none, after a pause, when it is to be
    /// attempted again.
    async fn settle<T>(
        &mut self,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<Result<T, StoreError>> {
        let reason = match tokio::time::timeout(self.limit, attempt).await {
            Ok(Err(StoreError::Unreachable { reason, .. })) => reason,
            Ok(result) => {
                if !matches!(result, Ok(_) | Err(StoreError::NotFound { .. } | StoreError::TooLarge { .. })) {
                    ERRORS.fetch_add(1, Ordering::Relaxed);
                }
                return Some(result);
            }
            Err(_) => format!("no answer within {} s", self.limit.as_secs()),
        };
        let pause = self.pause.mul_f64(rand::random_range(0.5..1.0));
        let tried = self.begun.elapsed();
        if tried + pause > self.retry.patience {
            ERRORS.fetch_add(1, Ordering::Relaxed);
            let store = self.retry.inner.name().to_owned();
            return Some(Err(StoreError::Unreachable { store, reason, tried }));
        }
        tracing::debug!(key = self.key, %reason, pause_ms = pause.as_millis(), "store operation failed, trying again");
        RETRIES.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.first = false;
        None
    }
}

#[async_trait]
impl Backend for Retry {
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// When the answer to an earlier attempt was lost, the object that is there may be ours. Callers
    /// put a random text in objects that they contend for, so equal content means our own object.
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let len = bytes.len() as u64;
        let mut tries = self.tries(key, len);
        loop {
            let first = tries.first;
            let attempt = async {
                let created = self.inner.put_new(key, bytes.clone()).await?;
                if first || created == Created::New {
                    return Ok(created);
                }
                match self.inner.get(key, len).await {
                    Ok(there) if there == bytes => Ok(Created::New),
                    Ok(_) | Err(StoreError::TooLarge { .. }) => Ok(Created::AlreadyExists),
                    Err(error) => Err(error),
                }
            };
            if let Some(result) = tries.settle(attempt).await {
                return result;
            }
        }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let mut tries = self.tries(key, bytes.len() as u64);
        loop {
            if let Some(result) = tries.settle(self.inner.put(key, bytes.clone())).await {
                return result;
            }
        }
    }

    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        let mut tries = self.tries(key, max_len);
        loop {
            if let Some(result) = tries.settle(self.inner.get(key, max_len)).await {
                return result;
            }
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let mut tries = self.tries(key, range.end - range.start);
        loop {
            if let Some(result) = tries.settle(self.inner.get_range(key, range.clone())).await {
                return result;
            }
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let mut tries = self.tries(key, 0);
        loop {
            if let Some(result) = tries.settle(self.inner.head(key)).await {
                return result;
            }
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut tries = self.tries(prefix, 0);
        loop {
            if let Some(result) = tries.settle(self.inner.list(prefix)).await {
                return result;
            }
        }
    }

    async fn directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut tries = self.tries(prefix, 0);
        loop {
            if let Some(result) = tries.settle(self.inner.directories(prefix)).await {
                return result;
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let mut tries = self.tries(key, 0);
        loop {
            if let Some(result) = tries.settle(self.inner.delete(key)).await {
                return result;
            }
        }
    }

    async fn sweep(&self, prefix: &str, age: Duration) -> Result<(), StoreError> {
        self.inner.sweep(prefix, age).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::fault::{Fault, Moment, Operation};
    use super::*;

    /// Fails the first operations for a passing reason.
    #[derive(Debug)]
    struct Flaky {
        failures: u64,
        moment: Moment,
    }

    #[async_trait]
    impl Fault for Flaky {
        async fn strike(&self, moment: Moment, operation: &Operation) -> Result<(), StoreError> {
            if moment == self.moment && operation.number <= self.failures {
                let (store, reason) = ("flaky:".to_owned(), "connection reset".to_owned());
                return Err(StoreError::Unreachable { store, reason, tried: Duration::ZERO });
            }
            Ok(())
        }
    }

    /// Never answers.
    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl Fault for Silent {
        async fn strike(&self, _: Moment, _: &Operation) -> Result<(), StoreError> {
            std::future::pending().await
        }
    }

    fn patient(store: Store) -> Store {
        store.wrapped(|inner| Arc::new(Retry::new(inner, Duration::from_secs(60), Duration::from_secs(5))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_not_seen() {
        for moment in [Moment::Before, Moment::After] {
            let store = patient(Store::memory().with_fault(Arc::new(Flaky { failures: 3, moment })));
            store.put("key", Bytes::from_static(b"value")).await.unwrap();
            assert_eq!(store.get("key", 100).await.unwrap(), "value");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_creation_whose_answer_was_lost_is_still_ours() {
        let lost = |failures| Arc::new(Flaky { failures, moment: Moment::After });
        let store = patient(Store::memory().with_fault(lost(1)));
        assert_eq!(store.put_new("key", Bytes::from_static(b"mine")).await.unwrap(), Created::New);
        let memory = Store::memory();
        assert_eq!(memory.put_new("key", Bytes::from_static(b"theirs")).await.unwrap(), Created::New);
        let store = patient(memory.with_fault(lost(1)));
        assert_eq!(store.put_new("key", Bytes::from_static(b"mine")).await.unwrap(), Created::AlreadyExists);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let begun = Instant::now();
        let silent = patient(Store::memory().with_fault(Arc::new(Silent)));
        let error = silent.get("key", 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        // The last attempt begins within the patience and has its own time limit.
        assert!(begun.elapsed() > Duration::from_secs(50) && begun.elapsed() < Duration::from_secs(70));
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_pass_is_not_tried_again() {
        let begun = Instant::now();
        let error = patient(Store::memory()).get("missing", 1).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
