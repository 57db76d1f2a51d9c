//! What was there when the container started: the moment itself, cheap to take, and the names in
//! the image's directories, so that what the workload deletes can be told from what never was.

use super::catalogue::Catalogue;
use super::layer::{Mounts, Place};
use super::path::{self, RelPath};
use super::rooted::{self, Root};
use super::scan::Since;
use super::site::Site;
use super::status::Time;
use rustix::fs::{AtFlags, FileType, StatxFlags};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most names that a baseline keeps; each costs about 30 bytes.
const MOST_NAMES: usize = 1_000_000;

/// When directories are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing has changed yet.
    BeforeTheWorkload,
    /// The workload, or a restore, may have changed some.
    Meanwhile,
}

/// The container at its start. Kept as JSON in the runtime directory, see [`Baseline::save`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// When this container started, by the clock of its files.
    started: Time,
    /// Milliseconds since boot at that moment: tells when the clock was set.
    boot_millis: u64,
    /// When the layer's own directory was made, where the file system tells.
    born: Option<Time>,
    /// When the job's first container started.
    job_started: Time,
    /// Names in directories that were unchanged when they were listed.
    listings: BTreeMap<RelPath, Vec<String>>,
    /// Directories of the image that were already changed when their turn came.
    missed: Vec<RelPath>,
    /// Whether every directory has had its turn.
    complete: bool,
}

impl Baseline {
    /// The moment alone: three system calls. Take it before the workload or a restore changes anything.
    pub fn now(root: &Root) -> Self {
        let started = Time::now();
        Self {
            started,
            boot_millis: boot_millis(),
            born: born(root),
            job_started: started,
            listings: BTreeMap::new(),
            missed: Vec::new(),
            complete: false,
        }
    }

    /// Lists the image's directories, as far as `budget` goes, and says whether that was to the end;
    /// call it again for the rest. While the workload runs, a directory that has changed by then is
    /// not listed but remembered as missed. Before a restore it should run to its end.
    pub fn list(&mut self, site: &Site, when: When, budget: Duration) -> bool {
        self.list_but(site, when, budget, &|_| false)
    }

    /// Whether nothing is left to list.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The same as `list` without the directories that are left out, and what is below them: nothing of theirs is captured.
    pub fn list_but(&mut self, site: &Site, when: When, budget: Duration, left_out: &dyn Fn(&RelPath) -> bool) -> bool {
        let Site { root, mounts } = site;
        if self.complete {
            return true;
        }
        let begun = Instant::now();
        let started = self.since().started;
        let mut names: usize = self.listings.values().map(Vec::len).sum();
        let mut pending = VecDeque::from([RelPath::root()]);
        self.missed.clear();
        while let Some(directory) = pending.pop_front() {
            if begun.elapsed() > budget || names > MOST_NAMES {
                return false;
            }
            if left_out(&directory) {
                continue;
            }
            let Ok(fd) = root.directory(&directory) else { continue };
            let Ok(entries) = rustix::fs::Dir::read_from(&fd) else { continue };
            let mut listing = Vec::new();
            for entry in entries.flatten() {
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                listing.push(path::escape(name));
                if entry.file_type() == FileType::Directory
                    && let Some(below) = directory.join(name)
                    && !mounts.is_point(&below)
                {
                    pending.push_back(below);
                }
            }
            if self.listings.contains_key(&directory) {
                continue;
            }
            // Asked after reading: a change before the last name was read is seen.
            match rustix::fs::fstat(&fd).map(super::status::Status::from) {
                Ok(status) if when == When::BeforeTheWorkload || status.changed < started => {
                    names += listing.len();
                    self.listings.insert(directory, listing);
                }
                _ => self.missed.push(directory),
            }
        }
        self.complete = true;
        true
    }

    /// The moments for a scan. When the clock was set back since the start, they move with it.
    pub fn since(&self) -> Since {
        let expected = self.started.millis() + i128::from(boot_millis()) - i128::from(self.boot_millis);
        let set_back = u64::try_from(expected - Time::now().millis()).unwrap_or(0);
        // Clocks drift apart by a few milliseconds; only a real step matters.
        let step = if set_back > 500 { set_back + 1000 } else { 0 };
        Since { started: self.started.minus_millis(step), born: self.born.map(|born| born.minus_millis(step)) }
    }

    /// When the job's first container started.
    pub fn job_started(&self) -> Time {
        self.job_started
    }

    /// Makes this the baseline of a container that continues a job.
    pub fn continue_from(&mut self, catalogue: &Catalogue) {
        self.job_started = self.job_started.min(catalogue.job_started);
    }

    /// What the image has in these changed directories and what is gone now. The second list holds
    /// directories of which that cannot be said.
    pub fn missing(&self, root: &Root, mounts: &Mounts, changed: &[RelPath]) -> (Vec<RelPath>, Vec<RelPath>) {
        let mut gone = Vec::new();
        let mut unknown = Vec::new();
        for directory in changed.iter().filter(|directory| mounts.place(directory) == Place::Layer) {
            let Some(listing) = self.listings.get(directory) else {
                let listed_by_rule = mounts.point_of(directory).is_root();
                if listed_by_rule && (!self.complete || self.missed.contains(directory)) && !self.is_new(directory) {
                    unknown.push(directory.clone());
                }
                continue;
            };
            let Ok(names) = root.directory(directory).and_then(rooted::names) else { continue };
            let names: HashSet<Vec<u8>> = names.into_iter().collect();
            for name in listing.iter().filter_map(|name| path::unescape(name)) {
                if !names.contains(&name)
                    && let Some(path) = directory.join(&name)
                {
                    gone.push(path);
                }
            }
        }
        (gone, unknown)
    }

    /// Whether the image has this path; none when its directory was never listed. A private tmpfs
    /// is not part of the image: what is in it is new.
    pub fn had(&self, path: &RelPath) -> Option<bool> {
        let (parent, name) = path.split()?;
        let name = path::escape(std::os::unix::ffi::OsStrExt::as_bytes(name));
        match self.listings.get(&parent) {
            Some(listing) => Some(listing.contains(&name)),
            None => (self.complete && !self.missed.contains(&parent)).then_some(false),
        }
    }

    /// Whether a listed ancestor shows that the image has no such directory.
    fn is_new(&self, directory: &RelPath) -> bool {
        let mut path = directory.clone();
        while let Some((parent, name)) = path.split() {
            if let Some(listing) = self.listings.get(&parent) {
                let name = path::escape(std::os::unix::ffi::OsStrExt::as_bytes(name));
                return !listing.contains(&name);
            }
            path = parent;
        }
        false
    }

    /// Writes it to a file, replacing an older one at once.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, file)
    }

    /// Reads what [`Baseline::save`] wrote.
    pub fn load(file: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }
}

/// When the root directory's own inode was made. On overlayfs that is the upper directory, made
/// with the container.
fn born(root: &Root) -> Option<Time> {
    let fd = root.directory(&RelPath::root()).ok()?;
    let statx = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let has = StatxFlags::from_bits_retain(statx.stx_mask).contains(StatxFlags::BTIME);
    has.then_some(Time(statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec))
}

/// Milliseconds since boot, suspended time included.
fn boot_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
