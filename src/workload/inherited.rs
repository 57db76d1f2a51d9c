//! Descriptors that revenant itself was born with and did not ask for.
#![allow(unsafe_code)] // close_range has no safe wrapper yet.

use std::io;

/// Marks every descriptor above 2 close-on-exec, so that nothing that a container runtime or a shell
/// left open reaches the workload, where CRIU would have to carry it.
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: changes a flag of descriptors, and closes none.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
