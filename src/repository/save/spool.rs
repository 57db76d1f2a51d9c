//! A local file that takes finished packs while the store is slow.
//!
//! The file is made with `O_TMPFILE`: no name, mode 0600, gone with the process however that ends.
//! Packs are sealed already, so what lies there shows no more than the store does.

use crate::repository::crypto::ObjectId;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The spool of one save.
#[derive(Debug)]
pub(super) struct SpoolFile {
    file: File,
    limit: u64,
    /// Every pack gets a place of this size.
    place: u64,
    end: u64,
    free: Vec<u64>,
}

/// A pack in the spool.
#[derive(Debug)]
pub(super) struct Spooled {
    pub id: ObjectId,
    pub offset: u64,
    pub length: usize,
}

impl SpoolFile {
    pub fn create(dir: &Path, limit: u64, largest_pack: usize) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir);
        let file = match file {
            // File systems without O_TMPFILE (NFS, some overlays): a name for a moment.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
                let path = dir.join(format!(".revenant-spool-{}", ObjectId::random()));
                let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
                std::fs::remove_file(&path)?;
                file
            }
            other => other?,
        };
        Ok(Self { file, limit, place: largest_pack as u64, end: 0, free: Vec::new() })
    }

    /// A place for a pack of `length` bytes, if there is room.
    pub fn reserve(&mut self, length: usize) -> Option<u64> {
        if length as u64 > self.place {
            return None;
        }
        self.free.pop().or_else(|| {
            let offset = self.end;
            self.end = offset.checked_add(self.place).filter(|&end| end <= self.limit)?;
            Some(offset)
        })
    }

    /// Hands out no places but those that were given back: their room on the disk is ours already.
    pub fn stop_growing(&mut self) {
        self.limit = 0;
    }

    /// Gives a place back.
    pub fn release(&mut self, offset: u64) {
        self.free.push(offset);
    }

    /// A handle for reading and writing at places, without a lock.
    pub fn handle(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }
}

/// Writes a pack to its place.
pub(super) fn write(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Reads a pack from its place.
pub(super) fn read(file: &File, spooled: &Spooled, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.resize(spooled.length, 0);
    file.read_exact_at(buffer, spooled.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_that_may_not_grow_uses_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = SpoolFile::create(folder.path(), 1 << 20, 4096).unwrap();
        assert_eq!((spool.reserve(100), spool.reserve(4096), spool.reserve(4097)), (Some(0), Some(4096), None));
        spool.stop_growing();
        assert_eq!(spool.reserve(1), None);
        spool.release(4096);
        assert_eq!((spool.reserve(1), spool.reserve(1)), (Some(4096), None));
    }
}
