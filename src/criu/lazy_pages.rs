//! The daemon's side of `criu restore --lazy-pages`, in place of `criu lazy-pages`.
//!
//! CRIU connects to `lazy-pages.socket` in its working directory. Each process that it makes sends, one after the
//! other over that one connection, its PID (`int`) and a userfaultfd with one byte of data; for a zombie -1 and no
//! descriptor. A magic number at the end says that all memory is where it belongs.

use super::stream::{Listener, Peer, StreamError, fill, receive_descriptor};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sent in place of a PID when the restore has succeeded.
const FINISHED: u32 = 0x5253_5446;

/// In place of a PID: a zombie has no memory.
const ZOMBIE: i32 = -1;

/// The socket to which `criu restore --lazy-pages` connects.
#[derive(Debug)]
pub struct LazyServer(Listener);

/// CRIU, connected.
#[derive(Debug)]
pub struct LazyConnection(UnixStream);

/// What a restore says.
#[derive(Debug)]
pub enum Said {
    /// A process, by its PID as in the checkpoint, and its userfaultfd.
    Task(i32, OwnedFd),
    /// Every process is in place, and may run from now on.
    Finished,
}

impl LazyServer {
    /// Listens in the images directory, which should be private to us (0700). Before CRIU starts.
    pub fn bind(images: &Path) -> Result<Self, StreamError> {
        Listener::bind(images, "lazy-pages.socket").map(Self)
    }

    /// Waits for CRIU. The socket is closed then: CRIU connects once.
    pub fn accept(self, peer: Peer<'_>, timeout: Duration) -> Result<LazyConnection, StreamError> {
        self.0.accept(peer, timeout).map(LazyConnection)
    }
}

impl LazyConnection {
    /// What CRIU says next; blocks until it does. None when it has closed the connection.
    pub fn next_said(&mut self) -> Result<Option<Said>, StreamError> {
        loop {
            let mut number = [0; 4];
            if !fill(&self.0, &mut number)? {
                return Ok(None);
            }
            if u32::from_ne_bytes(number) == FINISHED {
                return Ok(Some(Said::Finished));
            }
            let pid = i32::from_ne_bytes(number);
            if pid != ZOMBIE {
                return receive_descriptor(&self.0).map(|uffd| Some(Said::Task(pid, uffd)));
            }
        }
    }
}
