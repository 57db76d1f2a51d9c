//! What a restore finds on volumes.

use super::catalogue::Catalogue;
use super::digest::Digests;
use super::path::RelPath;
use super::policy::FilePolicy;
use super::rooted::Root;
use super::site::Site;
use super::status::Status;
use super::survey::ASIDE_PREFIX;
use super::volume::{Facts, Found, VolumeFile};
use rustix::fs::FileType;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

/// The most names of a directory that are searched for a renamed file.
const MOST_NAMES: usize = 10_000;

/// How long a restore looks at what others may have written.
const LOOK_BESIDE: Duration = Duration::from_secs(2);

/// Looks at one file.
pub fn look(root: &Root, file: &VolumeFile) -> Found {
    match root.status_if_any(&file.path) {
        Ok(Some(status)) if status.kind == FileType::RegularFile => Found::File(facts(root, file, &file.path, &status)),
        Ok(None) => renamed(root, file).unwrap_or(Found::Nothing),
        // Another kind, a symbolic link on the way, or no permission: it is not where it was.
        Ok(Some(_)) | Err(_) => Found::OtherKind,
    }
}

fn facts(root: &Root, file: &VolumeFile, at: &RelPath, status: &Status) -> Facts {
    let same_so_far = file.digests.as_ref().and_then(|was| {
        if status.size < file.size {
            return Some(false);
        }
        let now = root.read(at).and_then(|open| Digests::of(&open, file.size)).ok()?;
        Some(now == *was)
    });
    Facts { size: status.size, modified: status.modified, inode: status.identity.1, same_so_far }
}

/// Programs write a file under one name and rename it when it is done. The same inode number in the
/// same directory with the same content is the same file.
fn renamed(root: &Root, file: &VolumeFile) -> Option<Found> {
    file.digests.as_ref()?;
    let (directory, _) = file.path.split()?;
    let entries = root.entries(&directory).ok()?;
    entries.into_iter().take(MOST_NAMES).find_map(|(name, status)| {
        let is_it = status.kind == FileType::RegularFile && status.identity.1 == file.inode && status.links == 1;
        let path = directory.join(&name).filter(|_| is_it)?;
        let facts = facts(root, file, &path, &status);
        (facts.same_so_far == Some(true)).then_some(Found::Renamed(path, facts))
    })
}

/// Regular files that have appeared or changed since the checkpoint beside the job's own, and that it does not know. They
/// may be the job's or another's, so they stay; the user should know of them, because the job is going to make its own again.
pub fn changed_beside(site: &Site, catalogue: &Catalogue, policy: &FilePolicy) -> Vec<RelPath> {
    let known: HashSet<&RelPath> = catalogue.volumes.iter().map(|file| &file.path).collect();
    let is_own = |path: &RelPath| catalogue.own_directories.iter().any(|own| path.is_within(own));
    let parents: BTreeSet<RelPath> = known.iter().filter_map(|path| Some(path.split()?.0)).collect();
    // Other jobs' files may be many, and a restore must not wait for them.
    let end = Instant::now() + LOOK_BESIDE;
    let mut found = Vec::new();
    for directory in parents.into_iter().filter(|directory| !is_own(directory)) {
        let Ok((entries, _)) = site.root.entries_until(&directory, Some(end)) else { continue };
        for (name, status) in entries {
            let Some(path) = directory.join(&name) else { continue };
            let later = status.kind == FileType::RegularFile && status.changed > catalogue.taken;
            if later && !known.contains(&path) && !policy.leaves_out(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Regular files in the job's own directories that the checkpoint does not know. Everything that
/// was there at the checkpoint is in the catalogue, so these came later.
pub fn created_after(site: &Site, catalogue: &Catalogue, policy: &FilePolicy) -> Vec<RelPath> {
    let known: HashSet<&RelPath> = catalogue.volumes.iter().map(|file| &file.path).collect();
    let mut newer = Vec::new();
    for directory in &catalogue.own_directories {
        let mut pending = vec![directory.clone()];
        while let Some(directory) = pending.pop() {
            let Ok(entries) = site.root.entries(&directory) else { continue };
            for (name, status) in entries {
                let Some(path) = directory.join(&name) else { continue };
                if policy.leaves_out(&path) {
                    continue;
                }
                match status.kind {
                    FileType::Directory if !name.starts_with(ASIDE_PREFIX) && !site.mounts.is_point(&path) => {
                        pending.push(path);
                    }
                    FileType::RegularFile if !known.contains(&path) => newer.push(path),
                    _ => {}
                }
            }
        }
    }
    newer.sort();
    newer.dedup();
    newer
}
