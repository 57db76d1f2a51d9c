//! Which processes of a tree are stopped, and continuing only those that a dump has stopped.

use super::{kill, tree};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;

/// The PIDs below and including `root` that a signal has stopped, or is about to. Taken before a dump.
pub fn stopped(root: i32) -> BTreeSet<i32> {
    let tree = tree::below(root).unwrap_or_default();
    tree.into_iter()
        .filter(|process| process.state == 'T' || is_about_to_stop(process.pid))
        .map(|process| process.pid)
        .collect()
}

/// Whether SIGSTOP was sent to it, and it has not got round to it yet.
fn is_about_to_stop(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = |line: &str| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")).map(str::to_owned);
    let masks = status.lines().filter_map(pending).filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    masks.fold(0, |all, mask| all | mask) & (1 << (Signal::SIGSTOP as u32 - 1)) != 0
}

/// Continues what is stopped below and including `root`, except those that had been stopped `before`:
/// the user, or the workload itself, had stopped them.
pub fn continue_stopped(root: i32, before: &BTreeSet<i32>) {
    for pid in stopped(root).difference(before) {
        kill::send(*pid, Signal::SIGCONT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_only_what_it_should_and_kills_all() {
        let script = "sleep 60 & sleep 60 & kill -STOP $!; wait";
        let mut shell = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let until = |done: &dyn Fn() -> bool| {
            for _ in 0..500 {
                if done() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            panic!("the processes did not get there");
        };
        until(&|| kill::below(pid, &[]).len() == 2 && stopped(pid).len() == 1);
        let before = stopped(pid);
        kill::send(pid, Signal::SIGSTOP);
        until(&|| stopped(pid).len() == 2);
        continue_stopped(pid, &before);
        until(&|| stopped(pid) == before);
        let spared = *before.iter().next().unwrap();
        assert_eq!(kill::kill_below(pid, &[spared]), 1);
        kill::send(spared, Signal::SIGKILL);
        shell.wait().unwrap();
        until(&|| tree::Process::read(spared).is_err());
    }
}
