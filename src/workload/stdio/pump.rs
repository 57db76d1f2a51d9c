//! Copies bytes between a descriptor of the container and a pipe or PTY of revenant's own.
//!
//! Nothing here may block PID 1: descriptors that can be waited for are waited for; the container's
//! own ones are opened anew (so that their flags stay as they are for others) or used with per-call flags.
#![allow(unsafe_code)] // Watching a descriptor by its number.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{read, write};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes copied at a time.
const BUFFER: usize = 16 << 10;

/// One end of a copy.
#[derive(Debug)]
pub enum End {
    /// A pipe, FIFO or terminal in non-blocking mode.
    Waits(AsyncFd<OwnedFd>),
    /// A socket, whose mode others may share.
    Socket(AsyncFd<OwnedFd>),
    /// A file: never has to be waited for.
    File(OwnedFd),
}

impl End {
    /// One of our own pipes or PTYs.
    pub fn own(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self::Waits(watch(fd, interest)?))
    }

    /// A descriptor that the container gave us.
    pub fn containers(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Self> {
        let format = SFlag::from_bits_truncate(fstat(fd)?.st_mode & SFlag::S_IFMT.bits());
        if format == SFlag::S_IFSOCK {
            return Ok(Self::Socket(watch(fd.try_clone_to_owned()?, interest)?));
        }
        if matches!(format, SFlag::S_IFREG | SFlag::S_IFBLK) {
            return Ok(Self::File(fd.try_clone_to_owned()?));
        }
        let mode = if interest.is_readable() { OFlag::O_RDONLY } else { OFlag::O_WRONLY };
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        match open(again.as_str(), mode | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Self::Waits(watch(fd, interest)?)),
            // Not ours to open (another user's terminal): share its flags rather than do without it.
            Err(_) => Self::own(fd.try_clone_to_owned()?, interest),
        }
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Waits(fd) => fd.async_io(Interest::READABLE, |fd| Ok(read(fd, buffer)?)).await,
            Self::Socket(fd) => {
                let flags = MsgFlags::MSG_DONTWAIT;
                fd.async_io(Interest::READABLE, |fd| Ok(recv(fd.as_raw_fd(), buffer, flags)?)).await
            }
            Self::File(fd) => Ok(read(fd, buffer)?),
        }
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Waits(fd) => fd.async_io(Interest::WRITABLE, |fd| Ok(write(fd, bytes)?)).await,
            Self::Socket(fd) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                fd.async_io(Interest::WRITABLE, |fd| Ok(send(fd.as_raw_fd(), bytes, flags)?)).await
            }
            Self::File(fd) => Ok(write(fd, bytes)?),
        }
    }
}

fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd's descriptor stays open, and the same, until it is dropped with the AsyncFd.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Copies until `from` ends or `to` does not take more; then closes both, as a pipe would be closed.
/// `taken` grows by the bytes that `to` has taken.
pub async fn copy(from: End, to: End, taken: Arc<AtomicU64>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut rest = match from.read(&mut buffer).await {
            // EIO is how a PTY's master says that the last holder of the slave is gone.
            Ok(0) | Err(_) => return,
            Ok(n) => &buffer[..n],
        };
        while !rest.is_empty() {
            match to.write(rest).await {
                Ok(n) => {
                    rest = &rest[n..];
                    taken.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[tokio::test]
    async fn carries_more_than_a_pipe_holds_and_then_closes() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let feeder = std::thread::spawn(move || std::fs::File::from(writer).write_all(&sent).unwrap());
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).unwrap();
            got
        });
        let from = End::own(reader, Interest::READABLE).unwrap();
        let to = End::containers(ours.as_fd(), Interest::WRITABLE).unwrap();
        drop(ours);
        let taken = Arc::default();
        copy(from, to, Arc::clone(&taken)).await;
        assert_eq!(taken.load(Ordering::Relaxed), 1_000_000);
        feeder.join().unwrap();
        assert!(reading.join().unwrap() == expected);
    }

    #[tokio::test]
    async fn ends_when_a_terminals_last_holder_is_gone() {
        let pty = super::super::terminal::Terminal::open(None).unwrap();
        std::fs::File::from(pty.slave).write_all(b"last words\n").unwrap();
        let out = tempfile::NamedTempFile::new().unwrap();
        let from = End::own(pty.master, Interest::READABLE).unwrap();
        copy(from, End::containers(out.as_file().as_fd(), Interest::WRITABLE).unwrap(), Arc::default()).await;
        assert_eq!(std::fs::read(out.path()).unwrap(), b"last words\r\n");
    }
}
