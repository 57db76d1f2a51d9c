//! Pipes as large as the kernel lets us have them: the size decides for how long a dump freezes.

use super::error::StreamError;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{SFlag, fstat};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

/// What the kernel sets as the limit unless an administrator changed it.
const USUAL_MAX: usize = 1 << 20;

/// The largest pipe that a process without `CAP_SYS_RESOURCE` may ask for, in bytes
/// (`/proc/sys/fs/pipe-max-size`, 1 MiB by default).
pub fn pipe_max_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap_or_default();
        text.trim().parse().unwrap_or(USUAL_MAX)
    })
}

/// Gives the pipe `wanted` bytes, or the largest half, quarter, … of it that the kernel grants
/// (the pages of all pipes of a user are limited too). Returns the size it has now.
pub fn enlarge(pipe: impl AsFd, wanted: usize) -> Result<usize, StreamError> {
    let now = fcntl(&pipe, FcntlArg::F_GETPIPE_SZ).map_err(StreamError::sys("asking for a pipe's size"))?;
    let now = usize::try_from(now).unwrap_or(0);
    let mut size = wanted;
    while size > now {
        let asked = i32::try_from(size).unwrap_or(i32::MAX);
        if let Ok(granted) = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(asked)) {
            return Ok(usize::try_from(granted).unwrap_or(now));
        }
        size /= 2;
    }
    Ok(now)
}

/// Refuses a descriptor that is not a pipe.
pub(super) fn expect_pipe(fd: OwnedFd) -> Result<OwnedFd, StreamError> {
    let stat = fstat(&fd).map_err(StreamError::sys("looking at a received descriptor"))?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO {
        return Ok(fd);
    }
    Err(StreamError::Protocol("a descriptor that is no pipe".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_grows_to_what_the_kernel_grants() {
        let (read, _write) = nix::unistd::pipe().unwrap();
        let wanted = 128 * 1024;
        assert_eq!(enlarge(&read, wanted).unwrap(), wanted);
    }

    #[test]
    fn asking_for_too_much_still_enlarges() {
        let (read, _write) = nix::unistd::pipe().unwrap();
        let granted = enlarge(&read, pipe_max_size() * 4).unwrap();
        assert!(granted >= pipe_max_size(), "{granted}");
    }

    #[test]
    fn only_pipes_are_taken() {
        assert!(expect_pipe(std::fs::File::open("/dev/null").unwrap().into()).is_err());
        assert!(expect_pipe(nix::unistd::pipe().unwrap().0).is_ok());
    }
}
