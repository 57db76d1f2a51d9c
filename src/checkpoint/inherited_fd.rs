//! The descriptors that PID 1 places at fixed numbers of the engine (see `protocol::Begin::stdio`, `protocol::Save::recalls`).
#![allow(unsafe_code)] // A number becomes a descriptor.

use nix::fcntl::{FcntlArg, fcntl};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The new container's stdin for the workload.
pub const STDIN: RawFd = 3;
/// Its stdout.
pub const STDOUT: RawFd = 4;
/// Its stderr.
pub const STDERR: RawFd = 5;
/// The slave of PID 1's terminal pair.
pub const TTY: RawFd = 6;

/// For a save, what earlier saves of this container remember (see `protocol::Save::recalls`).
pub const RECALLED: RawFd = 3;

/// Copies go above this number, clear of those that PID 1 placed.
const ABOVE: RawFd = 10;

/// A copy of one of them.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only passed to fcntl, which says EBADF when it is no descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let copy = fcntl(borrowed, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))?;
    // SAFETY: fcntl has just returned it, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
