//! What is watched besides the clock, as the user decided.

use super::outside::Request;
use std::path::PathBuf;

/// What is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Watching {
    /// Gauges of memory, processes and disk, of the container and its node.
    pub pressure: bool,
    /// The part of the memory limit at which a save is made.
    pub memory_threshold: f64,
    /// The kubelet evicts pods when the node has less memory available than this, in bytes.
    pub eviction_memory: u64,
    /// Files that anything may touch.
    pub files: Vec<PathBuf>,
    /// The pod's annotations as the kubelet writes them into a volume.
    pub annotations: Option<PathBuf>,
    /// Folders whose file systems must not run full.
    pub folders: Vec<PathBuf>,
    /// Cloud and cluster.
    pub outside: Request,
}
