//! Serving images during a restore.

use super::error::StreamError;
use super::frame;
use super::listener::{Listener, Peer};
use super::pipe::{enlarge, pipe_max_size};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The socket to which `criu restore --stream` connects.
#[derive(Debug)]
pub struct ServeServer(Listener);

/// CRIU, connected, about to ask for images. All processes of the restored tree ask over this one
/// connection, one after the other.
#[derive(Debug)]
pub struct ServeConnection(UnixStream);

/// CRIU waits to hear whether an image exists. Dropping this without a reply leaves it waiting.
#[derive(Debug)]
#[must_use]
pub struct Request<'a> {
    name: String,
    socket: &'a UnixStream,
}

impl ServeServer {
    /// Listens in the images directory, which should be private to us (0700). Before CRIU starts.
    pub fn bind(images: &Path) -> Result<Self, StreamError> {
        Listener::bind(images, "streamer-serve.sock").map(Self)
    }

    /// Waits for CRIU. The socket is closed then: CRIU connects once.
    pub fn accept(self, peer: Peer<'_>, timeout: Duration) -> Result<ServeConnection, StreamError> {
        self.0.accept(peer, timeout).map(ServeConnection)
    }
}

impl ServeConnection {
    /// The next image that CRIU asks for; blocks until it does. None when CRIU asks for no more.
    pub fn next_request(&mut self) -> Result<Option<Request<'_>>, StreamError> {
        let name = frame::read_request(&self.0)?;
        Ok(name.map(|name| Request { name, socket: &self.0 }))
    }
}

impl AsFd for ServeConnection {
    /// Readable when [`Self::next_request`] would not block for long.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Request<'_> {
    /// The image's file name: a safe path component.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// There is no such image. CRIU asks for many that need not exist.
    pub fn reply_missing(self) -> Result<(), StreamError> {
        frame::write_reply(self.socket, false)
    }

    /// The image exists and is about this many bytes long (`u64::MAX` if unknown). Returns the write
    /// end of the pipe from which CRIU reads it, large enough for the whole image or as large as the
    /// kernel grants. Dropping it ends the image. A premature end makes CRIU fail, which is the only
    /// way to report an error to it.
    pub fn reply_found(self, length: u64) -> Result<OwnedFd, StreamError> {
        frame::write_reply(self.socket, true)?;
        let pipe = frame::receive_pipe(self.socket)?;
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(pipe_max_size());
        enlarge(&pipe, wanted)?;
        Ok(pipe)
    }
}
