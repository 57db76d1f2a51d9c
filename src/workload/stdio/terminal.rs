//! Revenant's own terminal: a PTY pair whose master stays with PID 1.
#![allow(unsafe_code)] // Two ioctls on window sizes that have no safe wrapper.

use crate::checkpoint::protocol::TtyKey;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::stat::{fstat, minor};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

nix::ioctl_read_bad!(read_window_size, nix::libc::TIOCGWINSZ, Winsize);
nix::ioctl_write_ptr_bad!(write_window_size, nix::libc::TIOCSWINSZ, Winsize);

/// Numbers of terminals below this are the workload's.
const LEFT_TO_WORKLOAD: u64 = 32;

/// A PTY pair.
#[derive(Debug)]
pub struct Terminal {
    /// PID 1's end.
    pub master: OwnedFd,
    /// The workload's end.
    pub slave: OwnedFd,
    /// CRIU's name of the slave.
    pub key: TtyKey,
}

impl Terminal {
    /// Opens a pair; like `outer` in size and modes if that is a terminal.
    pub fn open(outer: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let modes = outer.and_then(|fd| tcgetattr(fd).ok());
        let size = outer.and_then(|fd| window_size(fd).ok());
        let pair = open_high(size.as_ref(), modes.as_ref())?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let stat = fstat(&pair.slave)?;
        Ok(Self { master: pair.master, slave: pair.slave, key: TtyKey { rdev: stat.st_rdev, dev: stat.st_dev } })
    }
}

/// The workload's own terminals come back under the numbers that they had, and those are the lowest: ours must not
/// take them from the next container. The kernel gives the lowest free number.
fn open_high(size: Option<&Winsize>, modes: Option<&Termios>) -> io::Result<OpenptyResult> {
    let mut low = Vec::new();
    loop {
        let pair = openpty(size, modes)?;
        let number = minor(fstat(&pair.slave)?.st_rdev);
        // Where terminals are few (the `max` of devpts), any will do.
        if number >= LEFT_TO_WORKLOAD || low.len() as u64 >= LEFT_TO_WORKLOAD {
            return Ok(pair);
        }
        low.push(pair);
    }
}

/// Makes `inner` as large as `outer`; the kernel sends SIGWINCH to the workload if that changes it.
pub fn copy_window_size(outer: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<()> {
    let size = window_size(outer)?;
    // SAFETY: the ioctl reads one Winsize from a valid reference.
    unsafe { write_window_size(inner.as_raw_fd(), &raw const size) }?;
    Ok(())
}

fn window_size(fd: BorrowedFd<'_>) -> io::Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl writes one Winsize to a valid, exclusive reference.
    unsafe { read_window_size(fd.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// The container's terminal in raw mode; as it was before when this is dropped.
#[derive(Debug)]
pub struct Raw {
    outer: OwnedFd,
    before: Termios,
}

impl Raw {
    /// At once, not after what was written has been read: PID 1 must not wait for a reader.
    /// Every key goes to the workload's terminal, which interprets it.
    pub fn enter(outer: BorrowedFd<'_>) -> io::Result<Self> {
        let before = tcgetattr(outer)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(outer, SetArg::TCSANOW, &raw)?;
        Ok(Self { outer: outer.try_clone_to_owned()?, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(self.outer.as_fd(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::termios::LocalFlags;

    #[test]
    fn is_as_large_as_the_outer_one_and_leaves_it_as_it_was() {
        let outer = Terminal::open(None).unwrap();
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: as above.
        unsafe { write_window_size(outer.master.as_raw_fd(), &raw const size) }.unwrap();
        let inner = Terminal::open(Some(outer.slave.as_fd())).unwrap();
        assert_eq!(window_size(inner.slave.as_fd()).unwrap().ws_col, 101);

        let echo = || tcgetattr(outer.slave.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO);
        let raw = Raw::enter(outer.slave.as_fd()).unwrap();
        assert!(!echo());
        drop(raw);
        assert!(echo());
    }
}
