//! Room on a file system. Network file systems are left out: one that hangs would hang PID 1.

use nix::sys::statvfs::statvfs;
use std::fs;
use std::path::Path;

/// File systems whose `statfs` never leaves the machine.
const LOCAL: [&str; 9] = ["overlay", "ext4", "ext3", "ext2", "xfs", "btrfs", "tmpfs", "zfs", "f2fs"];

/// What is left, as parts from 0 to 1. None where the file system has no such limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    /// Of the bytes.
    pub bytes: Option<f64>,
    /// Of the inodes.
    pub inodes: Option<f64>,
}

impl Left {
    /// On the file system of this folder.
    #[allow(clippy::cast_precision_loss)]
    pub fn of(folder: &Path) -> Option<Self> {
        let seen = statvfs(folder).ok()?;
        let part = |left: u64, all: u64| (all > 0).then(|| left as f64 / all as f64);
        Some(Self {
            bytes: part(seen.blocks_available(), seen.blocks()),
            inodes: part(seen.files_available(), seen.files()),
        })
    }
}

/// Whether looking at this folder cannot hang.
pub fn is_local(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    kind(&mounts, &folder).is_some_and(|kind| LOCAL.contains(&kind))
}

/// The type of the file system that this path is on.
fn kind<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mount = |line: &'a str| {
        let (left, right) = line.split_once(" - ")?;
        Some((left.split(' ').nth(4)?, right.split(' ').next()?))
    };
    // The longest mount point; the last of those mounted over each other.
    let on_path = mounts.lines().filter_map(mount).filter(|(at, _)| path.starts_with(at));
    on_path.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_not_looked_at() {
        let mounts = "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /data rw - nfs4 server:/x rw\n\
                      3 1 0:3 / /data/scratch rw - xfs /dev/sdb rw\n4 1 0:4 / /data/scratch rw - fuse.s3fs s3 rw\n";
        assert_eq!(kind(mounts, Path::new("/var/tmp")), Some("overlay"));
        assert_eq!(kind(mounts, Path::new("/data/x")), Some("nfs4"));
        assert_eq!(kind(mounts, Path::new("/data/scratch")), Some("fuse.s3fs"));
        assert_eq!(kind(mounts, Path::new("/database")), Some("overlay"));
    }
}
