//! The socket to which CRIU connects, and who may connect to it.

use super::error::StreamError;
use crate::workload::tree::Process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest images directory: a Unix socket's address has 107 bytes, the longer socket name
/// and a slash take 22 of them. CRIU would cut a longer one in silence.
pub const LONGEST_DIRECTORY: usize = 107 - "/streamer-capture.sock".len();

/// Who is expected to connect.
#[derive(Debug, Clone, Copy)]
pub enum Peer<'a> {
    /// This CRIU process and no other. The descriptor is its pidfd: waiting ends when CRIU does.
    Process {
        /// PID of CRIU, as this process sees it.
        pid: i32,
        /// Becomes readable when CRIU has ended.
        ended: BorrowedFd<'a>,
    },
    /// A child of this CRIU process: a script that it runs. Waiting ends when CRIU does.
    ChildOf {
        /// PID of CRIU, as this process sees it.
        pid: i32,
        /// Becomes readable when CRIU has ended.
        ended: BorrowedFd<'a>,
    },
    /// Any process of our own user.
    SameUser,
}

/// A listening socket in the images directory, removed again on drop.
#[derive(Debug)]
pub(in crate::criu) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `dir/name` with mode 0600, replacing what an earlier run left there.
    pub(in crate::criu) fn bind(dir: &Path, name: &str) -> Result<Self, StreamError> {
        let length = dir.as_os_str().len();
        if length > LONGEST_DIRECTORY {
            return Err(StreamError::DirectoryTooLong { length, limit: LONGEST_DIRECTORY });
        }
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StreamError::Io { doing: "removing an old streaming socket", source: error });
            }
            _ => {}
        }
        let socket = UnixListener::bind(&path).map_err(StreamError::io("binding the streaming socket"))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))
            .map_err(StreamError::io("protecting the streaming socket"))?;
        socket.set_nonblocking(true).map_err(StreamError::io("preparing the streaming socket"))?;
        Ok(Self { socket, path })
    }

    /// Waits for the expected peer. Others are turned away without a word.
    pub(in crate::criu) fn accept(&self, peer: Peer<'_>, timeout: Duration) -> Result<UnixStream, StreamError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.socket.accept() {
                Ok((stream, _)) if expected(&stream, peer)? => {
                    stream.set_nonblocking(false).map_err(StreamError::io("preparing CRIU's connection"))?;
                    return Ok(stream);
                }
                Ok(_) => tracing::warn!("a stranger connected to the streaming socket and was turned away"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(peer, deadline)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(StreamError::Io { doing: "accepting CRIU's connection", source: error }),
            }
        }
    }

    /// Waits until there may be a connection.
    fn wait(&self, peer: Peer<'_>, deadline: Instant) -> Result<(), StreamError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StreamError::ConnectTimeout);
        }
        let mut fds = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if let Peer::Process { ended, .. } | Peer::ChildOf { ended, .. } = peer {
            fds.push(PollFd::new(ended, PollFlags::POLLIN));
        }
        // Rounded up, or the last fraction of a millisecond would be spent spinning.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(StreamError::sys("waiting for CRIU's connection")(errno)),
        }
        let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        if ready(1) && !ready(0) { Err(StreamError::CriuEnded) } else { Ok(()) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next bind.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn expected(stream: &UnixStream, peer: Peer<'_>) -> Result<bool, StreamError> {
    let them = getsockopt(stream, PeerCredentials).map_err(StreamError::sys("asking who connected"))?;
    Ok(match peer {
        Peer::Process { pid, .. } => them.pid() == pid,
        Peer::ChildOf { pid, .. } => Process::read(them.pid()).is_ok_and(|process| process.ppid == pid),
        Peer::SameUser => them.uid() == nix::unistd::geteuid().as_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    const SOON: Duration = Duration::from_secs(20);

    fn never() -> (OwnedFd, OwnedFd) {
        nix::unistd::pipe().unwrap()
    }

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn the_socket_is_private_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s.sock"), "left by an earlier run").unwrap();
        let listener = Listener::bind(dir.path(), "s.sock").unwrap();
        let mode = std::fs::metadata(dir.path().join("s.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!dir.path().join("s.sock").exists());
    }

    #[test]
    fn a_directory_whose_socket_address_would_be_cut_is_refused() {
        let long = PathBuf::from("/".to_owned() + &"x".repeat(LONGEST_DIRECTORY));
        assert!(matches!(Listener::bind(&long, "s.sock"), Err(StreamError::DirectoryTooLong { .. })));
    }

    #[test]
    fn only_the_expected_process_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::bind(dir.path(), "s.sock").unwrap();
        let (ended, _keep) = never();
        let _client = UnixStream::connect(dir.path().join("s.sock")).unwrap();
        let stranger = Peer::Process { pid: 1, ended: ended.as_fd() };
        let refused = listener.accept(stranger, Duration::from_millis(20));
        assert!(matches!(refused, Err(StreamError::ConnectTimeout)), "{refused:?}");

        let _client = UnixStream::connect(dir.path().join("s.sock")).unwrap();
        listener.accept(Peer::Process { pid: own_pid(), ended: ended.as_fd() }, SOON).unwrap();
        let _client = UnixStream::connect(dir.path().join("s.sock")).unwrap();
        listener.accept(Peer::SameUser, SOON).unwrap();
    }

    #[test]
    fn waiting_ends_when_criu_does() {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::bind(dir.path(), "s.sock").unwrap();
        let (ended, ends) = never();
        drop(ends);
        let result = listener.accept(Peer::Process { pid: own_pid(), ended: ended.as_fd() }, SOON);
        assert!(matches!(result, Err(StreamError::CriuEnded)), "{result:?}");
    }
}
