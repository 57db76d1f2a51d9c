//! Process IDs as a job sees them: in a PID namespace of its own they are not those that revenant sees.
//!
//! CRIU's images hold the job's. A job that shares the container's namespace sees what revenant sees, and here nothing
//! is translated.

use super::tree;
use std::fs;
use std::io;

/// Translates the IDs of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InnerIds {
    /// How many namespaces below ours the job's is.
    level: usize,
}

impl InnerIds {
    /// Of the job with this root.
    pub fn of(root: i32) -> Self {
        Self { level: read(root).map_or(0, |ids| ids.len().saturating_sub(1)) }
    }

    /// Whether the job has a PID namespace of its own.
    pub fn are_own(self) -> bool {
        self.level > 0
    }

    /// What the job calls this process or thread.
    pub fn inner(self, id: i32) -> Option<i32> {
        if self.level == 0 { Some(id) } else { read(id).ok()?.get(self.level).copied() }
    }

    /// Which process below `root` the job calls by this ID.
    pub fn outer(self, root: i32, inner: i32) -> Option<i32> {
        if self.level == 0 {
            return Some(inner);
        }
        let tree = tree::below(root).ok()?;
        tree.iter().map(|process| process.pid).find(|pid| self.inner(*pid) == Some(inner))
    }
}

/// The first process at or below `ancestor` that is the init of a PID namespace below ours.
pub fn init_below(ancestor: i32) -> Option<i32> {
    let tree = tree::below(ancestor).ok()?;
    tree.iter().map(|process| process.pid).find(|pid| read(*pid).is_ok_and(|ids| ids.len() == 2 && ids[1] == 1))
}

/// From ours inwards (`NSpid` of `proc_pid_status(5)`).
fn read(id: i32) -> io::Result<Vec<i32>> {
    Ok(parse(&fs::read_to_string(format!("/proc/{id}/status"))?))
}

fn parse(status: &str) -> Vec<i32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_text() {
        assert_eq!(parse("Name:\tx\nNSpid:\t412\t1\nNSpgid:\t412\t1\n"), [412, 1]);
        assert_eq!(parse("Name:\tx\n"), [0; 0]);
    }

    #[test]
    fn without_a_namespace_of_its_own_nothing_is_translated() {
        let me = i32::try_from(std::process::id()).unwrap();
        let ids = InnerIds::of(me);
        assert!(!ids.are_own());
        assert_eq!((ids.inner(4711), ids.outer(me, 4711)), (Some(4711), Some(4711)));
    }

    #[test]
    fn in_a_namespace_of_its_own_both_ways_lead_to_the_same_process() {
        // The first child of unshare is the namespace's init.
        let mut unshare =
            std::process::Command::new("unshare").args(["--pid", "--fork", "sleep", "60"]).spawn().unwrap();
        let parent = i32::try_from(unshare.id()).unwrap();
        let found = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            init_below(parent)
        });
        let init = found.unwrap();
        let ids = InnerIds::of(init);
        let seen = (ids.are_own(), ids.inner(init), ids.outer(init, 1), ids.outer(init, 2));
        super::super::kill::send(init, nix::sys::signal::Signal::SIGKILL);
        unshare.wait().unwrap();
        assert_eq!(seen, (true, Some(1), Some(init), None));
    }
}
