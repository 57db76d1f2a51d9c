//! What was waited for in earlier restores of a job: it comes first in the next one.
//!
//! A workload that goes on touches at first much the same memory whenever it is stopped: stacks, the heap's tables, the
//! arrays of its inner loop. So the places of the faults are kept, in their order: in the runtime directory while the
//! container lives, and as one small image of each generation that is saved there. They hold process IDs and addresses,
//! no content, and are advice only: what they name and is not there costs nothing.

use crate::repository::read::Opened;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The image of a generation that holds them.
pub const IMAGE: &str = "revenant-hot.json";
/// The same in the runtime directory.
const FILE: &str = "hot.json";
/// The unit, in bytes.
pub(super) const STRETCH: u64 = 64 << 10;
/// Most stretches: 1 GiB of memory.
const MOST: usize = 1 << 14;
/// The most that is read of them, in bytes: each takes about 25.
const LIMIT: u64 = 1 << 20;

/// A process by its PID as in the checkpoint, and the first address of a [`STRETCH`].
pub(super) type Place = (i32, u64);

/// Places, the first to be waited for first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hot(Vec<Place>);

impl Hot {
    /// Those of a generation. None is no reason to do without a restore.
    pub fn of(opened: &Opened) -> Self {
        opened
            .image(IMAGE)
            .and_then(|_| opened.read(IMAGE, LIMIT).ok())
            .map_or_else(Self::default, |text| Self::parse(&text))
    }

    fn parse(text: &[u8]) -> Self {
        let mut read: Self = serde_json::from_slice(text).unwrap_or_default();
        read.0.truncate(MOST);
        read.0.retain(|(_, address)| address % STRETCH == 0);
        read
    }

    /// In their order; neighbours that were waited for one after the other are one, up to `most` bytes.
    pub(super) fn ranges(&self, most: u64) -> Vec<(i32, Range<u64>)> {
        let mut ranges: Vec<(i32, Range<u64>)> = Vec::new();
        for (pid, start) in &self.0 {
            let end = start.saturating_add(STRETCH);
            match ranges.last_mut() {
                Some((last, range)) if last == pid && range.end == *start && end - range.start <= most => {
                    range.end = end;
                }
                _ => ranges.push((*pid, *start..end)),
            }
        }
        ranges
    }

    /// Those of this restore, and after them what is known from earlier ones.
    fn after(&self, new: &[Place]) -> Self {
        let mut seen = HashSet::new();
        Self(new.iter().chain(&self.0).filter(|place| seen.insert(**place)).take(MOST).copied().collect())
    }

    /// Puts them where the next save of this container finds them.
    pub fn keep(&self, runtime_dir: &Path) -> io::Result<()> {
        if self.0.is_empty() {
            forget(runtime_dir);
            return Ok(());
        }
        let (path, fresh) = (runtime_dir.join(FILE), runtime_dir.join(format!("{FILE}.new")));
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }
}

/// What a save of this container is to carry, if there is something.
pub fn kept(runtime_dir: &Path) -> Option<Vec<u8>> {
    fs::read(runtime_dir.join(FILE)).ok().filter(|text| text.len() as u64 <= LIMIT)
}

/// Another workload begins, of which nothing is known.
pub fn forget(runtime_dir: &Path) {
    let _ = fs::remove_file(runtime_dir.join(FILE));
}

/// Listens to the faults of one restore.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<(Vec<Place>, HashSet<Place>)>);

impl Recorder {
    /// A page was waited for.
    pub fn waited(&self, pid: i32, page: u64) {
        let place = (pid, page / STRETCH * STRETCH);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (order, seen) = &mut *known;
        if order.len() < MOST && seen.insert(place) {
            order.push(place);
        }
    }

    /// What was heard, before what was known.
    pub fn before(&self, known: &Hot) -> Hot {
        known.after(&self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_faults_come_before_those_of_earlier_restores_once_each_and_not_without_end() {
        let known = Hot(vec![(7, 0), (7, STRETCH), (8, 0)]);
        let recorder = Recorder::default();
        for page in [STRETCH + 4096, STRETCH, 9 * STRETCH + 8192] {
            recorder.waited(7, page);
        }
        let all = recorder.before(&known);
        assert_eq!(all.0, [(7, STRETCH), (7, 9 * STRETCH), (7, 0), (8, 0)]);
        assert_eq!(known.ranges(1 << 20), [(7, 0..2 * STRETCH), (8, 0..STRETCH)]);
        assert_eq!(known.ranges(STRETCH).len(), 3);
        for number in 0..2 * MOST as u64 {
            recorder.waited(1, number * STRETCH);
        }
        let all = recorder.before(&known);
        assert_eq!((all.0.len(), all.0[0]), (MOST, (7, STRETCH)));
        assert!(serde_json::to_vec(&all).unwrap().len() as u64 <= LIMIT);
    }

    #[test]
    fn a_save_finds_what_a_restore_has_kept_and_nonsense_is_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kept(folder.path()), None);
        let hot = Hot(vec![(7, 0), (8, 0x7fff_ffff_0000)]);
        for _ in 0..2 {
            hot.keep(folder.path()).unwrap();
        }
        assert_eq!(Hot::parse(&kept(folder.path()).unwrap()), hot);
        forget(folder.path());
        assert_eq!(kept(folder.path()), None);
        for nonsense in ["", "{}", "[[1]]", "[[1,17]]", "[[1,-5]]"] {
            assert_eq!(Hot::parse(nonsense.as_bytes()), Hot::default(), "{nonsense}");
        }
    }
}
