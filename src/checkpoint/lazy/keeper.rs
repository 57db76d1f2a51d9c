//! Who holds the workload's userfaultfds when the engine dies.
//!
//! When the last descriptor of a userfaultfd is closed, the kernel lets everybody who waits for a page go on, with
//! zeros. So an engine that is killed in the middle of the fill would damage the workload in the moment before that
//! is killed too. The keeper is a process that shares the engine's table of descriptors and does nothing at all:
//! while it lives no userfaultfd is closed by the engine's end, and whoever waits for a page waits. PID 1 ends the
//! workload first and the keeper after it.
#![allow(unsafe_code)] // A process that shares descriptors cannot be had from std.

use crate::workload::kill;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::io;

/// A running keeper. Ended on drop: nothing is missing any more, or nobody is left who waits.
#[derive(Debug)]
pub struct Keeper(Pid);

impl Keeper {
    /// Starts one.
    pub fn start() -> io::Result<Self> {
        let flags = libc::CLONE_FILES | libc::SIGCHLD;
        // SAFETY: like fork. The child has a copy of this thread only, so it must not allocate or take a lock: it
        // makes system calls until it is killed.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: system calls; `pause` takes no memory, and `prctl` reads a constant.
            unsafe {
                // What ends the engine and its group must not end the keeper.
                libc::setpgid(0, 0);
                libc::prctl(libc::PR_SET_NAME, c"revenant-keeper".as_ptr());
                let mut all: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut all);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
                loop {
                    libc::pause();
                }
            }
        }
        match i32::try_from(pid) {
            Ok(pid) if pid > 0 => Ok(Self(Pid::from_raw(pid))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its PID.
    pub fn pid(&self) -> i32 {
        self.0.as_raw()
    }

    /// It stays, and with it every userfaultfd, when this process ends.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        kill::send(self.0.as_raw(), Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_what_is_opened_later_and_ends_with_its_owner() {
        let keeper = Keeper::start().unwrap();
        let file = tempfile::tempfile().unwrap();
        let theirs = format!("/proc/{}/fd/{}", keeper.pid(), std::os::fd::AsRawFd::as_raw_fd(&file));
        assert!(std::fs::read_link(&theirs).unwrap().to_string_lossy().contains("tmp"));
        drop(file);
        let pid = keeper.pid();
        drop(keeper);
        assert!(!kill::is_there(pid));
    }
}
