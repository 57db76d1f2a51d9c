//! What can go wrong with a store, told apart by what a person has to do about it.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use std::time::Duration;

/// Why a store did not do what was asked. `store` is its URL without secrets.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Not one of the schemes that are supported.
    #[error("unknown store scheme {scheme:?}")]
    UnknownScheme {
        /// As given.
        scheme: String,
    },
    /// The URL or the environment that goes with it makes no sense.
    #[error("the store URL {url:?} is not usable: {reason}")]
    InvalidUrl {
        /// As given, without its query, fragment and password.
        url: String,
        /// In what respect.
        reason: String,
    },
    /// A key that does not belong in a store: a bug, or damaged data that named it.
    #[error("{key:?} is not a possible object name")]
    InvalidKey {
        /// As given.
        key: String,
    },
    /// Reading may work, writing does not.
    #[error("cannot write {key} to {store}: {reason}")]
    NotWritable {
        /// Which store.
        store: String,
        /// Which object.
        key: String,
        /// What the system or the server said.
        reason: String,
    },
    /// No space, or a quota.
    #[error("{store} is full: cannot write {key}")]
    Full {
        /// Which store.
        store: String,
        /// Which object.
        key: String,
    },
    /// The bucket or container does not exist.
    #[error("{store} does not exist")]
    BucketMissing {
        /// Which store.
        store: String,
    },
    /// Credentials are missing, wrong, or do not allow this.
    #[error("{store} refuses the credentials: {reason}")]
    Credentials {
        /// Which store.
        store: String,
        /// What the server said.
        reason: String,
    },
    /// No answer, or an answer that says "later".
    #[error("cannot reach {store}: {reason}")]
    Unreachable {
        /// Which store.
        store: String,
        /// The last failure.
        reason: String,
        /// For how long it was tried.
        tried: Duration,
    },
    /// No such object.
    #[error("{key} is not in {store}")]
    NotFound {
        /// Which store.
        store: String,
        /// Which object.
        key: String,
    },
    /// An object is longer than anything that belongs there.
    #[error("{key} has {size} bytes, more than the {limit} that are possible there")]
    TooLarge {
        /// Which object.
        key: String,
        /// Its length.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// An object ends before the bytes that were asked for.
    #[error("{key} is cut off: {wanted} bytes were expected at {offset}, {got} are there")]
    ShortRead {
        /// Which object.
        key: String,
        /// Where reading began.
        offset: u64,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes found.
        got: u64,
    },
    /// Anything else.
    #[error("{store} failed at {key}: {reason}")]
    Failed {
        /// Which store.
        store: String,
        /// Which object.
        key: String,
        /// What the system or the server said.
        reason: String,
    },
}

impl StoreError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether it is the object that is damaged or gone, rather than the store that fails.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::TooLarge { .. } | Self::ShortRead { .. } | Self::InvalidKey { .. })
    }
}

impl Explain for StoreError {
    fn explain(&self) -> Problem {
        let (exit, cause, next) = match self {
            Self::UnknownScheme { .. } => (
                Exit::Usage,
                "the store URL names a kind of storage that revenant does not know".to_owned(),
                "use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
            ),
            Self::InvalidUrl { .. } => (
                Exit::Usage,
                "the store URL or an environment variable that belongs to it is mistyped".to_owned(),
                "use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and check AWS_*, GOOGLE_* or AZURE_*",
            ),
            Self::InvalidKey { .. } => (
                Exit::Damaged,
                "a document in the store is damaged, or this is a bug".to_owned(),
                "run `revenant verify`; if it finds nothing, please report this",
            ),
            Self::NotWritable { reason, .. } => (
                Exit::StoreUnavailable,
                reason.clone(),
                "mount the volume read-write and let the container's user write to it (fsGroup), or grant write access to the bucket",
            ),
            Self::Full { .. } => (
                Exit::StoreUnavailable,
                "no space left, or a quota is reached".to_owned(),
                "enlarge the volume, or remove old generations with `revenant prune`; the last durable checkpoint is untouched",
            ),
            Self::BucketMissing { .. } => (
                Exit::StoreUnavailable,
                "the bucket or container does not exist, or its name or region is mistyped".to_owned(),
                "create it, or correct --store (REVENANT_STORE); revenant does not create buckets",
            ),
            Self::Credentials { reason, .. } => (
                Exit::StoreUnavailable,
                reason.clone(),
                "check the AWS_*, GOOGLE_* or AZURE_* variables or the pod's service account, and that they may read, write, list and delete below the prefix",
            ),
            Self::Unreachable { tried, .. } => (
                Exit::StoreUnavailable,
                format!("no usable answer for {}", humantime::format_duration(Duration::from_secs(tried.as_secs()))),
                "check the endpoint, the network policy, DNS, and the proxy settings of the pod",
            ),
            Self::NotFound { .. } => (
                Exit::StoreUnavailable,
                "something else removed it, or it was never written".to_owned(),
                "check that --store and --job name the right place; run `revenant verify`",
            ),
            Self::TooLarge { .. } | Self::ShortRead { .. } => (
                Exit::Damaged,
                "the object is damaged, or is not revenant's".to_owned(),
                "run `revenant verify` to learn which generations it hurts",
            ),
            Self::Failed { reason, .. } => {
                (Exit::StoreUnavailable, reason.clone(), "check the store; the last durable checkpoint is untouched")
            }
        };
        Problem { passing: self.is_transient(), ..Problem::new(exit, self.to_string(), cause, next) }
    }
}
