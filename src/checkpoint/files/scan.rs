//! Finding what changed in the container's own layer since it started, without hashing anything.
//!
//! A path is new or changed when its change time (ctime, which programs cannot set) is not before
//! the start. On overlayfs a directory whose change time lies before the birth of the upper
//! directory has nothing changed in it or anywhere below: the first change of a file copies the
//! file and all its directories up, and each of these copies changes the directory above. So a
//! scan enters few directories, whatever the size of the image. Elsewhere everything is looked at.

use super::layer::{Mounts, Place};
use super::path::RelPath;
use super::policy::FilePolicy;
use super::rooted::Root;
use super::status::{Status, Time};
use rustix::fs::FileType;
use std::collections::BTreeMap;

/// The moments that separate the image from what came after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Changes at this time or later are the workload's.
    pub started: Time,
    /// Where known: the birth of the layer. Unchanged since then is unchanged below.
    pub born: Option<Time>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// New or changed paths, parents before children.
    pub changed: BTreeMap<RelPath, Status>,
    /// How many paths were looked at.
    pub looked_at: u64,
    /// The first directory that was not entered because the scan had become too long.
    pub cut_at: Option<RelPath>,
    /// Directories that could not be read, with the reason.
    pub unreadable: Vec<(RelPath, String)>,
}

/// The most paths that a scan looks at.
const MOST_PATHS: u64 = 4_000_000;

/// Scans every layer of the container and what the policy keeps.
pub fn scan(root: &Root, mounts: &Mounts, policy: &FilePolicy, since: Since) -> Scan {
    let mut scan = Scan::default();
    for point in mounts.layers() {
        let born = since.born.filter(|_| point.is_root() && mounts.shows_changes_upwards(&point));
        let walk = Walk { root, mounts, policy, started: since.started, born };
        walk.below(&point, &mut scan);
    }
    for kept in policy.kept().filter(|kept| mounts.place(kept) == Place::Layer) {
        let walk = Walk { root, mounts, policy, started: Time::BEGINNING, born: None };
        walk.below(&kept, &mut scan);
        walk.with_ancestors(&kept, &mut scan);
    }
    scan
}

struct Walk<'a> {
    root: &'a Root,
    mounts: &'a Mounts,
    policy: &'a FilePolicy,
    started: Time,
    born: Option<Time>,
}

impl Walk<'_> {
    fn below(&self, start: &RelPath, scan: &mut Scan) {
        let Ok(status) = self.root.status(start) else { return };
        if self.policy.leaves_out(start) {
            return;
        }
        self.look_at(start.clone(), status, scan);
        let mut pending = Vec::new();
        if status.kind == FileType::Directory && self.may_hold_changes(&status) {
            pending.push(start.clone());
        }
        while let Some(directory) = pending.pop() {
            if scan.looked_at > MOST_PATHS {
                scan.cut_at.get_or_insert(directory);
                return;
            }
            let entries = match self.root.entries(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    scan.unreadable.push((directory, error.to_string()));
                    continue;
                }
            };
            for (name, status) in entries {
                scan.looked_at += 1;
                let descend = status.kind == FileType::Directory && self.may_hold_changes(&status);
                if !descend && status.changed < self.started {
                    continue;
                }
                let Some(path) = directory.join(&name) else { continue };
                if self.mounts.is_point(&path) || self.policy.leaves_out(&path) {
                    continue;
                }
                self.look_at(path.clone(), status, scan);
                if descend {
                    pending.push(path);
                }
            }
        }
    }

    /// Records a path if it changed.
    fn look_at(&self, path: RelPath, status: Status, scan: &mut Scan) {
        if status.changed >= self.started {
            scan.changed.insert(path, status);
        }
    }

    fn may_hold_changes(&self, directory: &Status) -> bool {
        self.born.is_none_or(|born| directory.changed >= born)
    }

    /// A kept path needs its directories, too.
    fn with_ancestors(&self, path: &RelPath, scan: &mut Scan) {
        let mut path = path.clone();
        while let Some((parent, _)) = path.split() {
            if !parent.is_root()
                && !self.mounts.is_point(&parent)
                && let Ok(status) = self.root.status(&parent)
            {
                scan.changed.entry(parent.clone()).or_insert(status);
            }
            path = parent;
        }
    }
}
