//! What became of a job: started, complete, crashed after a restore.

use super::document::{self, DocumentError};
use super::{layout, timestamp};
use crate::checkpoint::protocol::Holder;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::Generation;
use crate::store::{Created, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

pub(super) const MAX_LEN: u64 = 64 << 10;

/// Kinds of the documents.
pub(super) const START: &str = "started";
pub(super) const COMPLETION: &str = "complete";
pub(super) const CRASH: &str = "crash";

/// When something happened, and in which container. `started.json`, `complete.json`, `crashes/…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    #[serde(with = "timestamp")]
    pub at: SystemTime,
    /// In which container.
    pub holder: Holder,
}

impl Record {
    /// Now, in this container.
    pub fn now(holder: &Holder) -> Self {
        Self { at: timestamp::now(), holder: holder.clone() }
    }
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record exists and cannot be used.
    #[error("{key} cannot be used: {source}")]
    Document {
        /// Which object.
        key: String,
        /// Why.
        source: DocumentError,
    },
}

impl Explain for RecordError {
    fn explain(&self) -> Problem {
        match self {
            Self::Store(error) => error.explain(),
            Self::Document { source: DocumentError::Newer { .. }, .. } => Problem::new(
                Exit::RestoreRefused,
                self.to_string(),
                "it was written by a newer revenant than the one in this image",
                "use an image with at least that revenant; nothing was changed",
            ),
            Self::Document { key, .. } => Problem::new(
                Exit::Damaged,
                self.to_string(),
                "the object was changed or cut in the store",
                format!("look at {key} in the store: remove it if the job is not complete, so that it runs again"),
            ),
        }
    }
}

/// Remembers that the job was started. The first call decides when.
pub async fn record_start(store: &Store, record: &Record) -> Result<(), RecordError> {
    match store.put_new(layout::STARTED, encode(layout::STARTED, START, record)?).await? {
        Created::New | Created::AlreadyExists => Ok(()),
    }
}

/// When the job was first started, if ever. A damaged record still says that it was: only the
/// presence counts, so that a job is never silently started from nothing.
pub async fn started(store: &Store) -> Result<bool, StoreError> {
    Ok(store.head(layout::STARTED).await?.is_some())
}

/// Remembers that the job has ended with success.
pub async fn record_completion(store: &Store, record: &Record) -> Result<(), RecordError> {
    Ok(store.put(layout::COMPLETE, encode(layout::COMPLETE, COMPLETION, record)?).await?)
}

/// When and where the job ended with success, if it has.
pub async fn completion(store: &Store) -> Result<Option<Record>, RecordError> {
    let bytes = match store.get(layout::COMPLETE, MAX_LEN).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let decoded = document::decode(COMPLETION, &bytes);
    decoded.map(Some).map_err(|source| RecordError::Document { key: layout::COMPLETE.to_owned(), source })
}

/// Remembers that the workload died soon after a restore of `generation`. Returns how often it has.
pub async fn record_crash(store: &Store, generation: Generation, record: &Record) -> Result<u64, RecordError> {
    let mut n = crashes(store, generation).await? + 1;
    loop {
        let key = layout::crash(generation, n);
        match store.put_new(&key, encode(&key, CRASH, record)?).await? {
            Created::New => return Ok(n),
            Created::AlreadyExists => n += 1,
        }
    }
}

/// How often the workload died soon after a restore of `generation`.
pub async fn crashes(store: &Store, generation: Generation) -> Result<u64, StoreError> {
    Ok(store.list(&layout::crashes_of(generation)).await?.len() as u64)
}

/// Forgets the crashes of a generation: it has proved itself.
pub async fn forget_crashes(store: &Store, generation: Generation) -> Result<(), StoreError> {
    for info in store.list(&layout::crashes_of(generation)).await? {
        store.delete(&info.key).await?;
    }
    Ok(())
}

fn encode(key: &str, kind: &str, record: &Record) -> Result<bytes::Bytes, RecordError> {
    let bytes =
        document::encode(kind, record).map_err(|source| RecordError::Document { key: key.to_owned(), source })?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Epoch;

    #[tokio::test]
    async fn remembers() {
        let store = Store::memory();
        let record = Record::now(&Holder { host: "node-1".to_owned(), ..Holder::default() });
        assert!(!started(&store).await.unwrap());
        record_start(&store, &record).await.unwrap();
        record_start(&store, &record).await.unwrap();
        assert!(started(&store).await.unwrap());
        assert_eq!(completion(&store).await.unwrap(), None);
        record_completion(&store, &record).await.unwrap();
        assert_eq!(completion(&store).await.unwrap(), Some(record.clone()));
        let generation = Generation { epoch: Epoch(1), sequence: 2 };
        for n in 1..=3 {
            assert_eq!(record_crash(&store, generation, &record).await.unwrap(), n);
        }
        assert_eq!(crashes(&store, generation).await.unwrap(), 3);
        assert_eq!(crashes(&store, Generation { sequence: 20, ..generation }).await.unwrap(), 0);
        forget_crashes(&store, generation).await.unwrap();
        assert_eq!(crashes(&store, generation).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_damaged_completion_is_an_error_not_an_absence() {
        let store = Store::memory();
        store.put(layout::COMPLETE, "{}".into()).await.unwrap();
        assert!(matches!(completion(&store).await, Err(RecordError::Document { .. })));
    }
}
