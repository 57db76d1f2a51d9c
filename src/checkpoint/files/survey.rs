//! Which files on volumes a checkpoint must remember: those that the workload has open for
//! writing, and those that the job has written near them. Volumes may be enormous and slow, and
//! the workload is frozen meanwhile: only directories in use are read, within a budget.

use super::digest::{Digests, WHOLE};
use super::held::{Held, Hold};
use super::layer::Place;
use super::path::RelPath;
use super::policy::{FilePolicy, VolumeMode};
use super::site::Site;
use super::status::{Status, Time};
use super::volume::{VolumeFile, Writing};
use super::warnings::Warnings;
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// The name of directories that hold what a restore moved aside.
pub const ASIDE_PREFIX: &[u8] = b".revenant-aside-";
/// For how long directories in use are read.
const BUDGET: Duration = Duration::from_millis(300);
/// For how long directories that the user named are read: they must be known in full.
const NAMED_BUDGET: Duration = Duration::from_secs(5);
/// The most bytes that are copied without being asked to.
const MOST_AUTO_BYTES: u64 = 256 << 20;
/// The most files that are remembered.
const MOST_FILES: usize = 200_000;

/// A file to remember.
#[derive(Debug)]
pub struct Seen {
    /// What is remembered.
    pub file: VolumeFile,
    status: Status,
    copy: bool,
}

/// Files on volumes.
#[derive(Debug, Default)]
pub struct Survey {
    /// By path.
    pub files: BTreeMap<RelPath, Seen>,
    /// Named directories that were read to the end.
    pub own_directories: Vec<RelPath>,
}

impl Survey {
    /// The files whose content is to be copied.
    pub fn copied(&self) -> impl Iterator<Item = (RelPath, Status)> {
        self.files.values().filter(|seen| seen.copy).map(|seen| (seen.file.path.clone(), seen.status))
    }
}

/// Looks at volumes. Files changed since `job_started` may be the job's.
pub fn survey(site: &Site, held: &Held, job_started: Time, policy: &FilePolicy, warnings: &mut Warnings) -> Survey {
    let mut surveyor = Surveyor { site, held, job_started, policy, warnings, survey: Survey::default(), auto_bytes: 0 };
    for path in held.files.iter().filter(|(_, hold)| hold.write).map(|(path, _)| path) {
        if site.mounts.place(path) == Place::Volume && !policy.leaves_out(path) {
            surveyor.take(path, None);
        }
    }
    for (named, _) in policy.named_volumes() {
        // A named directory that does not exist holds nothing; the command line warns of it.
        if site.root.status_if_any(&named).is_ok_and(|status| status.is_some())
            && surveyor.read(&named, true, NAMED_BUDGET)
        {
            surveyor.survey.own_directories.push(named);
        }
    }
    for kept in policy.kept().filter(|kept| site.mounts.place(kept) == Place::Volume) {
        match site.root.status_if_any(&kept) {
            Ok(Some(status)) if status.kind == FileType::Directory => drop(surveyor.read(&kept, true, NAMED_BUDGET)),
            Ok(Some(status)) => surveyor.take(&kept, Some(status)),
            // Nothing to keep.
            Ok(None) | Err(_) => {}
        }
    }
    for directory in surveyor.directories_in_use() {
        surveyor.read(&directory, false, BUDGET);
    }
    surveyor.survey
}

struct Surveyor<'a> {
    site: &'a Site,
    held: &'a Held,
    job_started: Time,
    policy: &'a FilePolicy,
    warnings: &'a mut Warnings,
    survey: Survey,
    auto_bytes: u64,
}

impl Surveyor<'_> {
    /// Directories on volumes that hold a file open for writing, or are a current directory; none
    /// below another.
    fn directories_in_use(&self) -> Vec<RelPath> {
        let writing =
            self.held.files.iter().filter(|(_, hold)| hold.write).filter_map(|(path, _)| Some(path.split()?.0));
        let all: BTreeSet<RelPath> = writing.chain(self.held.directories.keys().cloned()).collect();
        let mut topmost: Vec<RelPath> = Vec::new();
        for path in all {
            if self.site.mounts.place(&path) == Place::Volume && !topmost.iter().any(|above| path.is_within(above)) {
                topmost.push(path);
            }
        }
        topmost
    }

    /// Remembers files below a directory: all of them, or those that the job may have written.
    /// Says whether it came to the end.
    fn read(&mut self, start: &RelPath, all: bool, budget: Duration) -> bool {
        let end = Instant::now() + budget;
        let mut pending = VecDeque::from([start.clone()]);
        while let Some(directory) = pending.pop_front() {
            if Instant::now() > end || self.survey.files.len() > MOST_FILES {
                return self.not_to_the_end(start);
            }
            let Ok((entries, all_of_them)) = self.site.root.entries_until(&directory, Some(end)) else { continue };
            for (name, status) in entries {
                let Some(path) = directory.join(&name) else { continue };
                if self.policy.leaves_out(&path) || self.site.mounts.place(&path) != Place::Volume {
                    continue;
                }
                match status.kind {
                    FileType::Directory if !name.starts_with(ASIDE_PREFIX) => pending.push_back(path),
                    FileType::RegularFile if all || status.changed >= self.job_started => {
                        self.take(&path, Some(status));
                    }
                    _ => {}
                }
            }
            if !all_of_them {
                return self.not_to_the_end(start);
            }
        }
        true
    }

    fn not_to_the_end(&mut self, start: &RelPath) -> bool {
        self.warnings.add(
            "directories on volumes were not read to the end: files written there and closed since are not recorded",
            start,
            "too many files, or a slow file system",
            "nothing, if the workload only appends; else name smaller directories with `--volume PATH=record`",
        );
        false
    }

    /// Remembers one file.
    fn take(&mut self, path: &RelPath, status: Option<Status>) {
        if self.survey.files.contains_key(path) {
            return;
        }
        let status = match status.map_or_else(|| self.site.root.status(path), Ok) {
            Ok(status) => status,
            Err(error) => return self.warn(path, &error),
        };
        let open = self.held.files.get(path).filter(|hold| hold.write).copied().map(writing);
        let kept = self.policy.kept().any(|kept| path.is_within(&kept));
        let written = open.is_some() || kept || status.changed >= self.job_started;
        let digests = if written {
            match self.site.root.read(path).and_then(|file| Digests::of(&file, status.size)) {
                Ok(digests) => Some(digests),
                Err(error) => {
                    self.warn(path, &error);
                    None
                }
            }
        } else {
            None
        };
        let copy = digests.is_some()
            && match self.policy.volume(path).0 {
                VolumeMode::Auto => status.size <= WHOLE && self.auto_bytes + status.size <= MOST_AUTO_BYTES,
                VolumeMode::Record => false,
                VolumeMode::Copy => true,
            };
        if copy {
            self.auto_bytes += status.size;
        }
        let file = VolumeFile {
            path: path.clone(),
            size: status.size,
            modified: status.modified,
            inode: status.identity.1,
            mode: status.mode,
            uid: status.uid,
            gid: status.gid,
            open,
            digests,
            copy: None,
        };
        self.survey.files.insert(path.clone(), Seen { file, status, copy });
    }

    fn warn(&mut self, path: &RelPath, error: &std::io::Error) {
        self.warnings.add(
            "files on volumes could not be read: a restore cannot tell whether they changed",
            path,
            error,
            "run revenant as the workload's user",
        );
    }
}

fn writing(hold: Hold) -> Writing {
    if hold.append_only { Writing::Append } else { Writing::Anywhere }
}
