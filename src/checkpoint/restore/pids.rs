//! Process IDs: those that a checkpoint needs must be free at the moment of its restore.

use crate::checkpoint::engine::Events;
use crate::checkpoint::record::Record;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::inner_ids::InnerIds;
use crate::workload::{kill, pid_cursor, tree};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long a PID that the checkpoint needs may stay taken before the restore is refused. Probes
/// and `exec` sessions are gone sooner.
const FREE_WITHIN: Duration = Duration::from_secs(30);

/// Those of `pids` that revenant itself holds: this engine and its threads, or another child of PID 1 that runs the
/// same program. A container that had started many processes before revenant gives it such IDs.
pub fn held_by_revenant(pids: &[i32]) -> Vec<i32> {
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program("self");
    let parent = nix::unistd::getppid().as_raw();
    let is_own = |pid: i32| {
        std::fs::metadata(format!("/proc/self/task/{pid}")).is_ok()
            || (tree::Process::read(pid).is_ok_and(|process| process.ppid == parent)
                && program(&pid.to_string()) == own)
    };
    pids.iter().copied().filter(|pid| tree::is_taken(*pid) && is_own(*pid)).collect()
}

/// Waits until no process or thread holds an ID that the checkpoint needs, and moves the kernel's cursor
/// to where none is needed: children that the workload starts from now on must not get PIDs that are free
/// now but in use by revenant in the next container, nor may helpers of this restore take what it needs.
pub fn make_free(pids: &[i32], events: &Events) -> Result<(), Problem> {
    wait(pids, events)?;
    push_clear(pids)
}

/// Moves the kernel's cursor to where none of `pids` is near.
pub fn push_clear(pids: &[i32]) -> Result<(), Problem> {
    pid_cursor::push_clear_of(pids).map(drop).map_err(|error| {
        Problem::new(
            Exit::Privileges,
            format!("the kernel's PID cursor cannot be pushed: {error}"),
            "without it the workload's next children would get PIDs that a later restore cannot give them",
            "mount /proc in the container as usual",
        )
    })
}

fn wait(pids: &[i32], events: &Events) -> Result<(), Problem> {
    let deadline = Instant::now() + FREE_WITHIN;
    let mut told = false;
    loop {
        let Some(taken) = pids.iter().copied().find(|pid| tree::is_taken(*pid)) else { return Ok(()) };
        let name = describe(taken);
        if Instant::now() > deadline {
            return Err(Problem::new(
                Exit::RestoreRefused,
                format!("PID {taken} belongs to the checkpoint, but {name} of this container holds it"),
                "a process that was started in this container before the restore took the workload's PID",
                "start the container again; keep exec sessions and side processes out of it until the workload runs",
            ));
        }
        if !told {
            events.notice(format!("waiting for {name} to release PID {taken}, which the checkpoint needs"));
            told = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn describe(pid: i32) -> String {
    match tree::Process::read(pid) {
        Ok(process) if process.state == 'Z' => {
            format!("{} (ended, but its parent, process {}, has not taken note of it)", process.comm, process.ppid)
        }
        Ok(process) => process.comm,
        Err(_) => "a process".to_owned(),
    }
}

/// Those of `pids`, as the job calls them, that are no process or thread of the tree.
pub fn missing(pids: &[i32], root: i32) -> Vec<i32> {
    let tree = tree::below(root).unwrap_or_default();
    let threads = tree.iter().flat_map(|process| tree::threads(process.pid).unwrap_or_default());
    let ids = InnerIds::of(root);
    // A zombie has no threads.
    let there: HashSet<i32> =
        threads.chain(tree.iter().map(|process| process.pid)).filter_map(|id| ids.inner(id)).collect();
    // Older checkpoints have a 0 among them when there were zombies.
    pids.iter().copied().filter(|pid| *pid > 0 && !there.contains(pid)).collect()
}

/// Kills what a failed restore has left. Others may hold an ID of the checkpoint as well: that may be why
/// it failed. So only what descends from revenant and was born after `begun` is killed.
pub fn kill_leftovers(record: &Record, begun: Begun) {
    if record.own_pids {
        // With its init a PID namespace ends.
        return kill_new(begun, |pid| InnerIds::of(pid).are_own());
    }
    kill_new(begun, |pid| record.pids.contains(&pid));
}

fn kill_new(begun: Begun, is_left: impl Fn(i32) -> bool) {
    let tree = tree::below(begun.supervisor).unwrap_or_default();
    for process in tree.iter().filter(|process| process.started >= begun.at && is_left(process.pid)) {
        kill::send(process.pid, Signal::SIGKILL);
    }
}

/// The moment before CRIU makes processes.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    supervisor: i32,
    /// In the kernel's clock ticks, as in `/proc/PID/stat`.
    at: u64,
}

impl Begun {
    /// Now: a process that is born later has at least the start time of `newest`, a process just born.
    pub fn now(newest: u32) -> Self {
        let newest = i32::try_from(newest).ok().and_then(|pid| tree::Process::read(pid).ok());
        // One that cannot be read is gone, and has made nothing.
        Self { supervisor: nix::unistd::getppid().as_raw(), at: newest.map_or(u64::MAX, |process| process.started) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_born_in_the_restore_is_killed() {
        let me = i32::try_from(std::process::id()).unwrap();
        let sleep = || std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let mut old = sleep();
        // Two ticks of the kernel's clock.
        std::thread::sleep(Duration::from_millis(30));
        let mut new = sleep();
        let begun = Begun { supervisor: me, ..Begun::now(new.id()) };
        let id = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        let left = [id(&old), id(&new)];
        kill_new(begun, |pid| left.contains(&pid));
        assert!(!new.wait().unwrap().success());
        assert!(old.try_wait().unwrap().is_none(), "a process of somebody else was killed");
        old.kill().unwrap();
        old.wait().unwrap();
    }
}
