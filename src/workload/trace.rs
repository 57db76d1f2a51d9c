//! Who traces the processes of a tree (ptrace): CRIU does, for as long as it holds them.

use super::tree;
use std::collections::HashSet;
use std::fs;

/// The PIDs outside the tree of `root` that trace a process inside. Debuggers inside it do not count.
pub fn tracers_from_outside(root: i32) -> HashSet<i32> {
    let tree: HashSet<i32> = tree::below(root).unwrap_or_default().into_iter().map(|process| process.pid).collect();
    let tracers: HashSet<i32> = tree.iter().filter_map(|pid| tracer(*pid)).collect();
    tracers.difference(&tree).copied().collect()
}

fn tracer(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::ptrace;
    use nix::unistd::Pid;

    #[test]
    fn sees_this_test_as_the_tracer_until_it_lets_go() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(tracers_from_outside(pid).is_empty());
        ptrace::seize(Pid::from_raw(pid), ptrace::Options::empty()).unwrap();
        assert_eq!(tracers_from_outside(pid).len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
