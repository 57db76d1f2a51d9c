//! The files of a cache. Several containers of a node may use one folder: a file appears whole, and may be gone any time.

use crate::workload::private_dir;
use bytes::Bytes;
use nix::fcntl::OFlag;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Packs are mostly read in pieces of this size, on its boundaries, in bytes.
const BLOCK: u64 = 4 << 20;
/// How exactly it is known when a file was used last. Each note of it is a write.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// An unfinished file as old as this is a dead process's.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    limit: u64,
    /// Bytes in it, as far as this process knows.
    held: Mutex<u64>,
    written: AtomicU64,
}

impl Folder {
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        private_dir::create(path)?;
        let folder = Self { path: path.to_owned(), limit, held: Mutex::default(), written: AtomicU64::new(0) };
        folder.make_room(limit)?;
        Ok(folder)
    }

    /// `PACK-START`: bytes of a pack from there on, as many as there were once.
    fn file(&self, pack: &str, start: u64) -> PathBuf {
        self.path.join(format!("{pack}-{start}"))
    }

    /// These bytes of a pack, if all of them are here.
    pub fn get(&self, pack: &str, range: &Range<u64>) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        if self.read(pack, range.start, range.start, &mut bytes).is_some() {
            return Some(bytes.into());
        }
        let mut at = range.start;
        while at < range.end {
            let block = at / BLOCK * BLOCK;
            let end = range.end.min(block + BLOCK);
            let narrow = |offset: u64| usize::try_from(offset - range.start).unwrap_or(usize::MAX);
            self.read(pack, block, at, bytes.get_mut(narrow(at)..narrow(end))?)?;
            at = end;
        }
        Some(bytes.into())
    }

    /// Fills `bytes` with those of the pack from `at` on, out of the file that begins at `start`.
    fn read(&self, pack: &str, start: u64, at: u64, bytes: &mut [u8]) -> Option<()> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(self.file(pack, start)).ok()?;
        file.read_exact_at(bytes, at - start).ok()?;
        note_use(&file);
        Some(())
    }

    /// Keeps bytes of a pack. What cannot be kept is not kept.
    pub fn put(&self, pack: &str, start: u64, bytes: &[u8]) {
        let length = bytes.len() as u64;
        if length > self.limit {
            return;
        }
        if let Err(error) = self.write(pack, start, bytes) {
            tracing::debug!(%error, folder = %self.path.display(), "nothing is kept in the cache");
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held += length;
        if *held > self.limit {
            drop(held);
            // Some room at once, or each file would have the folder read.
            let _ = self.make_room(self.limit / 10 * 9);
        }
    }

    fn write(&self, pack: &str, start: u64, bytes: &[u8]) -> io::Result<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let fresh = self.path.join(format!(".{}-{number}-{:x}", std::process::id(), rand::random::<u32>()));
        let mut options = OpenOptions::new();
        let written = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&fresh, self.file(pack, start)));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// Removes all that is known of a pack.
    pub fn forget(&self, pack: &str) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().and_then(|name| name.split_once('-')).is_some_and(|(of, _)| of == pack) {
                // Gone already: another container has found out too.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Removes what was not used for the longest time, until no more than this is left.
    fn make_room(&self, most: u64) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let (mut files, mut sum) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.path)?.flatten() {
            let Ok(about) = entry.metadata() else { continue };
            let used = about.modified().unwrap_or(now);
            let unfinished = entry.file_name().as_encoded_bytes().starts_with(b".");
            if unfinished && now.duration_since(used).is_ok_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(entry.path());
            } else if !unfinished && about.is_file() {
                sum += about.len();
                files.push((used, about.len(), entry.path()));
            }
        }
        files.sort();
        for (_, length, path) in files {
            if sum <= most {
                break;
            }
            // Gone already: another container has made room too.
            let _ = fs::remove_file(path);
            sum -= length;
        }
        *held = sum;
        Ok(())
    }
}

fn note_use(file: &File) {
    let now = SystemTime::now();
    let noted = file.metadata().and_then(|about| about.modified());
    if noted.is_ok_and(|noted| now.duration_since(noted).is_ok_and(|age| age > NOTED_EVERY)) {
        let _ = file.set_modified(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const PACK: &str = "ab12";

    fn content(range: Range<u64>) -> Vec<u8> {
        range.map(|n| (n / 7).to_le_bytes()[0]).collect()
    }

    #[test]
    fn gives_parts_of_what_it_holds_also_across_blocks_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("cache"), 100 << 20).unwrap();
        assert_eq!(folder.get(PACK, &(0..10)), None);
        folder.put(PACK, 0, &content(0..BLOCK));
        folder.put(PACK, BLOCK, &content(BLOCK..BLOCK + 1000));
        folder.put(PACK, 12345, &content(12345..20000));
        for range in [0..BLOCK, 5..6, BLOCK - 10..BLOCK + 1000, BLOCK + 3..BLOCK + 4, 12345..12400, 12346..20001] {
            assert_eq!(folder.get(PACK, &range).unwrap(), content(range.clone()), "{range:?}");
        }
        assert_eq!(folder.get(PACK, &(BLOCK..BLOCK + 1001)), None);
        assert_eq!(folder.get("cd34", &(0..10)), None);
        let modes = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(modes(&folder.path), 0o700);
        assert_eq!(modes(&folder.file(PACK, 0)), 0o600);
        folder.forget(PACK);
        assert_eq!(folder.get(PACK, &(0..10)), None);
    }

    #[test]
    fn what_was_not_used_for_long_makes_room() {
        let place = tempfile::tempdir().unwrap();
        let open = || Folder::open(&place.path().join("cache"), 1000).unwrap();
        let folder = open();
        let age = |start: u64, seconds: u64| {
            let file = File::options().write(true).open(folder.file(PACK, start)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        for start in [0, 1, 2, 3] {
            folder.put(PACK, start, &content(start..start + 250));
            age(start, 1000 - 100 * start);
        }
        // Used now, though it was written first.
        assert!(folder.get(PACK, &(0..250)).is_some());
        folder.put(PACK, 4, &content(4..254));
        assert_eq!(folder.get(PACK, &(1..251)), None);
        assert_eq!(folder.get(PACK, &(2..252)), None);
        assert!([0, 3, 4].iter().all(|start| folder.get(PACK, &(*start..start + 250)).is_some()));
        folder.put(PACK, 5000, &content(0..1001));
        assert_eq!(folder.get(PACK, &(5000..5010)), None, "larger than all of it");
        // A smaller limit holds from the next start on.
        Folder::open(&folder.path, 300).unwrap();
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 1);
        assert!(Folder::open(Path::new("/proc/cache"), 300).is_err());
    }
}
