//! The control groups that this process is in, version 1 or 2, as far as the container shows them.

pub mod cpu;
pub mod event_control;
pub mod memory;

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of one controller's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Where its files are.
    pub folder: PathBuf,
    /// Whether it is of version 2.
    pub unified: bool,
}

/// The group of `controller` (`memory`, `pids`) that this process is in. None where it is not to be seen.
pub fn of(controller: &str) -> Option<Group> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // The file that every group but the root has.
    let mark = match controller {
        "memory" => ["memory.limit_in_bytes", "memory.current"],
        "cpuacct" => ["cpuacct.usage", "cpu.stat"],
        _ => ["pids.current", "pids.current"],
    };
    candidates(controller, &groups, &mounts)
        .into_iter()
        .find(|group| group.folder.join(mark[usize::from(group.unified)]).exists())
}

/// The group for stalls (PSI): version 2 has them whether or not it has the controller.
pub fn with_stalls() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let all = mounts.lines().filter_map(Mount::parse).filter(|mount| mount.unified);
    // The root group speaks for the node, not for the container.
    let mut folders = all.filter_map(|mount| mount.folder(path)).filter(|folder| folder.join("cgroup.type").exists());
    folders.find(|folder| folder.join("memory.pressure").exists())
}

struct Mount<'a> {
    /// What of the hierarchy is mounted.
    root: &'a str,
    at: &'a str,
    unified: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// A line of proc(5)'s mountinfo.
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, at) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let unified = match right.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        Some(Self { root, at, unified, options: right.nth(1)? })
    }

    /// Where the group at `path` of the hierarchy is seen through this mount.
    fn folder(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(self.root).ok()?;
        // Outside of our cgroup namespace.
        (!path.starts_with("/..")).then(|| Path::new(self.at).join(below))
    }
}

/// Where the group may be, the likeliest first. The mount itself is one: a container runtime mounts the
/// container's own group without telling /proc/self/cgroup.
fn candidates(controller: &str, groups: &str, mounts: &str) -> Vec<Group> {
    let of = |mount: &Mount<'_>| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let ours =
                if mount.unified { controllers.is_empty() } else { controllers.split(',').any(|c| c == controller) };
            ours.then_some(path)
        })
    };
    let mut found = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        if mount.unified || mount.options.split(',').any(|option| option == controller) {
            let exact = of(&mount).and_then(|path| mount.folder(path));
            for folder in exact.into_iter().chain([PathBuf::from(mount.at)]) {
                found.push(Group { folder, unified: mount.unified });
            }
        }
    }
    found
}

/// A file with one number. `max` and absence are none.
pub(crate) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The value of a key in a file of `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_group_in_both_versions_with_and_without_a_namespace() {
        let folders = |groups: &str, mounts: &str| -> Vec<(String, bool)> {
            let found = candidates("memory", groups, mounts);
            found.into_iter().map(|group| (group.folder.display().to_string(), group.unified)).collect()
        };
        let v2 = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(folders("0::/\n", v2)[0], ("/sys/fs/cgroup/".to_owned(), true));
        assert_eq!(folders("0::/kubepods/pod7/c1\n", v2)[0].0, "/sys/fs/cgroup/kubepods/pod7/c1");
        assert_eq!(folders("0::/../other\n", v2)[0].0, "/sys/fs/cgroup");
        let v1 = "31 30 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                  32 30 0:32 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n";
        let found = folders("4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n", v1);
        assert_eq!(found, [("/sys/fs/cgroup/memory/".to_owned(), false), ("/sys/fs/cgroup/memory".to_owned(), false)]);
    }

    #[test]
    fn reads_keys_exactly() {
        let text = "oom 3\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((keyed(text, "oom"), keyed(text, "oom_kill"), keyed(text, "oom_k")), (Some(3), Some(1), None));
    }
}
