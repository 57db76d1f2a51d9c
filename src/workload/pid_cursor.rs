//! The kernel's PID cursor: where the next process or thread gets its number.
//!
//! The kernel never hands out a PID up to `RESERVED_PIDS` (300, `kernel/pid.c`) again once its cursor
//! has passed it, not even after a wrap. The workload gets its PIDs above, so those below stay free in
//! the next container for what has to run before a restore. `clone3(set_tid)` does not move the
//! cursor; so it is pushed before the first start and after every restore.
#![allow(unsafe_code)] // One system call that has no safe wrapper, because it is meant to fail.

use nix::errno::Errno;
use std::fs;
use std::io;

/// The kernel's `RESERVED_PIDS`: a cursor above it never comes back below.
pub const RESERVED: i32 = 300;

/// How many PIDs a restore and what runs beside it may take: CRIU's helpers, our threads, probes.
pub const ROOM: i32 = 256;

const NS_LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Why the cursor could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PidCursorError {
    /// The kernel does not tell where the cursor is.
    #[error("cannot read {NS_LAST_PID}")]
    Unreadable(#[source] io::Error),
    /// The kernel does not fail where it always did, so no PID can be spent.
    #[error("the PID cursor stays at {0}, although {RESERVED} numbers were spent")]
    Stuck(i32),
}

/// Pushes the cursor of this PID namespace above [`RESERVED`]; returns where it is now.
/// Costs about 20 µs for each PID spent, none if the cursor is there already.
pub fn push() -> Result<i32, PidCursorError> {
    push_clear_of(&[])
}

/// The same, and further if need be: so far that the next [`ROOM`] PIDs are none of `pids`. Before a
/// restore, so that its helpers do not take what the restored tree needs. `pids` is ascending.
pub fn push_clear_of(pids: &[i32]) -> Result<i32, PidCursorError> {
    let mut last = read()?;
    let target = clear_of(pids, last);
    if last >= target {
        return Ok(last);
    }
    // Usually read-only in a container, and free of cost where it is not.
    if fs::write(NS_LAST_PID, target.to_string()).is_ok() {
        return read();
    }
    // Others may take numbers meanwhile, which is just as well.
    for _ in last..target {
        spend();
    }
    last = read()?;
    if last >= target { Ok(last) } else { Err(PidCursorError::Stuck(last)) }
}

/// The lowest cursor, from `last` on and above [`RESERVED`], with room behind it.
fn clear_of(pids: &[i32], last: i32) -> i32 {
    let lowest = last.max(RESERVED + 1);
    pids.iter()
        .fold(lowest, |cursor, &pid| if (cursor..=cursor.saturating_add(ROOM)).contains(&pid) { pid } else { cursor })
}

/// The last PID that was handed out in this PID namespace.
fn read() -> Result<i32, PidCursorError> {
    let text = fs::read_to_string(NS_LAST_PID).map_err(PidCursorError::Unreadable)?;
    text.trim().parse().map_err(|e| PidCursorError::Unreadable(io::Error::new(io::ErrorKind::InvalidData, e)))
}

/// Spends one PID and creates nothing: a clone that fails after it was given its number.
///
/// `copy_process` stores the pidfd in the caller's memory right after `alloc_pid`; with an address that
/// cannot be written it gives up with EFAULT. No process is born, so nothing can run, fail or stay
/// behind. Measured 18–23 µs, on a loaded machine too, where vfork and exit takes 35–560 µs, and a
/// thread that exits 25–60 µs.
fn spend() {
    /// In the first page, which is never mapped (`vm.mmap_min_addr`).
    const UNWRITABLE: usize = 8;
    let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_PIDFD;
    // SAFETY: the call cannot succeed, because the kernel cannot write to the page at address zero; so
    // there is never a child that would run on this stack. The kernel touches no memory of ours.
    let result = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(flags | libc::SIGCHLD), 0_usize, UNWRITABLE, 0_usize, 0_usize)
    };
    if result == 0 {
        // Only reached if a kernel gave us a child after all: it shares our stack, so it must be gone at once.
        // SAFETY: `_exit` by system call ends this one task and touches no memory.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    debug_assert!(result < 0 && Errno::last() == Errno::EFAULT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spent_pid_moves_the_cursor_and_leaves_no_child() {
        let before = read().unwrap();
        for _ in 0..50 {
            spend();
        }
        let after = read().unwrap();
        // Other processes of this machine move it too; it wraps at pid_max.
        assert!(after >= before + 50 || after < before, "{before} → {after}");
        let children = format!("/proc/self/task/{}/children", nix::unistd::gettid());
        assert_eq!(fs::read_to_string(children).unwrap(), "", "nothing was born");
    }

    #[test]
    fn keeps_clear_of_what_a_restore_needs() {
        assert_eq!(clear_of(&[], 20), RESERVED + 1);
        assert_eq!(clear_of(&[], 5000), 5000);
        assert_eq!(clear_of(&[302, 303, 310], 20), 310);
        assert_eq!(clear_of(&[302, 310, 700, 32_000], 20), 310, "700 is far enough away");
        assert_eq!(clear_of(&[302, 310, 500, 700], 20), 700, "a chain of near ones");
        assert_eq!(clear_of(&[400], 5000), 5000, "what lies behind the cursor does not matter");
    }

    #[test]
    fn pushing_an_advanced_cursor_costs_nothing() {
        let at = push().unwrap();
        assert!(at > RESERVED);
    }
}
