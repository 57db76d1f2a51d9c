//! What the container gave revenant as stdin, stdout and stderr.

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::isatty;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// The device number of `/dev/null` (major 1, minor 3).
const DEV_NULL: u64 = 0x103;

/// How the workload can be given a descriptor so that CRIU can save it and restore it elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An anonymous pipe, by the kernel's name for it (`pipe:[4711]`): passed through, with no copy.
    Pipe(String),
    /// `/dev/null`, or not open at all: opened again inside the container.
    Null,
    /// A terminal: replaced by our own.
    Terminal,
    /// A file or device that this container can open by its path: passed through.
    Reachable,
    /// Anything that CRIU cannot follow (a socket, a file from outside): reached by a pipe of ours.
    Foreign,
}

/// Looks at a descriptor of this process.
pub fn of(fd: BorrowedFd<'_>) -> Kind {
    let stat = match fstat(fd) {
        Ok(stat) => stat,
        Err(Errno::EBADF) => return Kind::Null,
        Err(_) => return Kind::Foreign,
    };
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
    let format = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if format == SFlag::S_IFCHR && stat.st_rdev == DEV_NULL {
        return Kind::Null;
    }
    if format == SFlag::S_IFCHR && isatty(fd).unwrap_or(false) {
        return Kind::Terminal;
    }
    match path.to_str() {
        Some(link) if format == SFlag::S_IFIFO && link.starts_with("pipe:[") => Kind::Pipe(link.to_owned()),
        _ if matches!(format, SFlag::S_IFREG | SFlag::S_IFCHR) => match fs::metadata(&path) {
            Ok(here) if (here.dev(), here.ino()) == (stat.st_dev, stat.st_ino) => Kind::Reachable,
            _ => Kind::Foreign,
        },
        _ => Kind::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn tells_kinds_apart() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        assert!(matches!(of(reader.as_fd()), Kind::Pipe(link) if link.starts_with("pipe:[")));
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(of(socket.as_fd()), Kind::Foreign);
        assert_eq!(of(fs::File::open("/dev/null").unwrap().as_fd()), Kind::Null);
        assert_eq!(of(tempfile::NamedTempFile::new().unwrap().as_file().as_fd()), Kind::Reachable);
        assert_eq!(of(tempfile::tempfile().unwrap().as_fd()), Kind::Foreign, "a deleted file has no path");
        let pty = nix::pty::openpty(None, None).unwrap();
        assert_eq!(of(pty.slave.as_fd()), Kind::Terminal);
    }
}
