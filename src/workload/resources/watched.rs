//! Where the directories and files are that inotify watches: the kernel tells their inodes only.
//!
//! CRIU finds them by file handle where it may (`DAC_READ_SEARCH`, and a file system that has handles: not
//! overlayfs), else by looking through directories that it is told.

use super::{Holdings, descriptor::Watch};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many paths are looked at, at most: a few hundred milliseconds.
const MOST_PATHS: usize = 50_000;

/// How deep below a directory in use.
const DEEPEST: usize = 6;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchedPaths {
    /// The watched paths.
    pub found: BTreeSet<PathBuf>,
    /// Watches whose path was not found.
    pub lost: usize,
}

impl WatchedPaths {
    /// Looks for what these processes watch, near what they use.
    pub fn of(holdings: &Holdings) -> Self {
        let watches = holdings.holders.iter().flat_map(|holder| &holder.descriptors).flat_map(|fd| &fd.watches);
        let wanted: HashSet<Watch> = watches.copied().collect();
        if wanted.is_empty() {
            return Self::default();
        }
        search(wanted, starts(holdings))
    }
}

/// Directories in use, then those where programs usually watch something.
fn starts(holdings: &Holdings) -> Vec<PathBuf> {
    let mut starts: Vec<PathBuf> = Vec::new();
    for holder in &holdings.holders {
        starts.extend(fs::read_link(format!("/proc/{}/cwd", holder.pid)));
        let files = holder.descriptors.iter().map(|descriptor| Path::new(&descriptor.link));
        starts.extend(files.filter(|path| path.is_absolute()).filter_map(Path::parent).map(Path::to_owned));
    }
    starts.extend(["/tmp", "/run", "/var", "/etc", "/home", "/root"].map(PathBuf::from));
    starts.extend(fs::read_dir("/").into_iter().flatten().flatten().map(|entry| entry.path()));
    let mut seen = HashSet::new();
    starts.retain(|path| {
        let kernels = ["/proc", "/sys", "/dev"].iter().any(|kernel| path.starts_with(kernel));
        path != Path::new("/") && !kernels && seen.insert(path.clone())
    });
    starts
}

/// Breadth first, so that one deep directory does not use up the budget.
fn search(mut wanted: HashSet<Watch>, starts: Vec<PathBuf>) -> WatchedPaths {
    let mut found = BTreeSet::new();
    let mut looked_at = 0;
    let mut entered = HashSet::new();
    let mut queue: VecDeque<(PathBuf, usize)> = starts.into_iter().map(|path| (path, 0)).collect();
    while let Some((path, depth)) = queue.pop_front() {
        if wanted.is_empty() || looked_at >= MOST_PATHS {
            break;
        }
        looked_at += 1;
        let Ok(status) = fs::symlink_metadata(&path) else { continue };
        let watch = Watch { inode: status.ino(), device: kernel_device(status.dev()) };
        if wanted.remove(&watch) {
            found.insert(path.clone());
        }
        if status.is_dir() && depth < DEEPEST && entered.insert((status.dev(), status.ino())) {
            queue.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| (entry.path(), depth + 1)));
        }
    }
    WatchedPaths { found, lost: wanted.len() }
}

/// A device number as fdinfo prints it.
fn kernel_device(device: u64) -> u64 {
    u64::from(libc::major(device)) << 20 | u64::from(libc::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(path: &Path) -> Watch {
        let status = fs::metadata(path).unwrap();
        Watch { inode: status.ino(), device: kernel_device(status.dev()) }
    }

    #[test]
    fn finds_a_directory_below_one_in_use_and_says_what_it_does_not_find() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let gone = Watch { inode: u64::MAX, device: 0 };
        let result = search(HashSet::from([watch(&deep), gone]), vec![top.path().to_owned()]);
        assert_eq!(result, WatchedPaths { found: BTreeSet::from([deep]), lost: 1 });
    }
}
