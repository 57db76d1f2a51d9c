//! What the saves of one container remember of the workload's memory: in memory that PID 1 holds, without a name.
//!
//! It holds the key of the fingerprints and the names of chunks (see `repository::save`), so it is given to engines alone.

use super::inherited_fd;
use crate::repository::save::{Save, Watch};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use zeroize::Zeroizing;

/// More than a save hands on at its usual bound on memory.
const LIMIT: u64 = 64 << 20;

/// For PID 1: empty memory that saves may use.
pub fn create() -> io::Result<OwnedFd> {
    Ok(memfd_create("revenant-recalled", MFdFlags::MFD_CLOEXEC)?)
}

/// The memory that PID 1 has given to this engine.
#[derive(Debug)]
pub struct Recalled(File);

impl Recalled {
    /// Takes it over; once for a process.
    pub fn inherited() -> io::Result<Self> {
        inherited_fd::duplicate(inherited_fd::RECALLED).map(|fd| Self(fd.into()))
    }

    /// Tells a new save what earlier ones have read. What cannot be read is named again, no more.
    pub fn tell(&self, save: &Save) {
        let length = self.0.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(length.min(LIMIT)).unwrap_or(0)]);
        if !bytes.is_empty() {
            let told = self.0.read_exact_at(&mut bytes, 0).is_ok() && save.recall(&bytes);
            tracing::debug!(bytes = bytes.len(), told, "what an earlier save has read is known");
        }
    }

    /// Keeps what this save has read for the next one. An engine that dies in the middle leaves what the next one takes for
    /// nothing.
    pub fn keep(&self, save: &Watch) {
        let Some(bytes) = save.memento().filter(|bytes| bytes.len() as u64 <= LIMIT) else { return };
        let kept = self.0.set_len(0).and_then(|()| self.0.write_all_at(&bytes, 0));
        if let Err(error) = kept {
            tracing::debug!(%error, "what was read is not kept for the next save");
        }
    }
}
