//! Ending a whole tree of processes, whatever they do about it.

use super::tree::{self, Process};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Sends a signal; that the process is gone is no failure.
pub fn send(pid: i32, signal: Signal) {
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %signal, "cannot send {signal} to process {pid}: {error}"),
    }
}

/// Whether a process, or what is left of it until it is reaped, has this PID.
pub fn is_there(pid: i32) -> bool {
    signal::kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// All below `root`, without it, and without `spared` and what is below those.
pub fn below(root: i32, spared: &[i32]) -> Vec<Process> {
    let spared: Vec<i32> =
        spared.iter().flat_map(|pid| tree::below(*pid).unwrap_or_default()).map(|process| process.pid).collect();
    let mut found = tree::below(root).unwrap_or_default();
    found.retain(|process| process.pid != root && !spared.contains(&process.pid));
    found
}

/// Sends SIGKILL to all below `root` but `spared`; returns how many are left, zombies included.
/// To be repeated until it returns 0: processes may have been born meanwhile.
pub fn kill_below(root: i32, spared: &[i32]) -> usize {
    let left = below(root, spared);
    for process in left.iter().filter(|process| process.state != 'Z') {
        send(process.pid, Signal::SIGKILL);
    }
    left.len()
}
