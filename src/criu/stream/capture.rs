//! Receiving images during a dump.

use super::error::StreamError;
use super::frame;
use super::listener::{Listener, Peer};
use super::pipe::{enlarge, pipe_max_size};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The socket to which `criu dump --stream` connects.
#[derive(Debug)]
pub struct CaptureServer(Listener);

/// CRIU, connected, about to send images.
#[derive(Debug)]
pub struct CaptureConnection(UnixStream);

/// An image that CRIU has opened: what it writes can be read from the pipe. The pipe's end means
/// that CRIU has closed the image, or has died: only its exit status says which.
#[derive(Debug)]
pub struct ImagePipe {
    /// The image's file name, for example `pages-1.img`: a safe path component.
    pub name: String,
    /// The read end. As large as the kernel grants when the image is [`is_bulk`].
    pub pipe: OwnedFd,
}

/// Whether an image of this name may be of any size: memory pages, deleted files, file systems in
/// memory. All others grow with the number of processes, descriptors and mappings only.
pub fn is_bulk(name: &str) -> bool {
    ["pages-", "ghost-file-", "tmpfs-"].iter().any(|prefix| name.starts_with(prefix))
}

impl CaptureServer {
    /// Listens in the images directory, which should be private to us (0700). Before CRIU starts.
    pub fn bind(images: &Path) -> Result<Self, StreamError> {
        Listener::bind(images, "streamer-capture.sock").map(Self)
    }

    /// Waits for CRIU. The socket is closed then: CRIU connects once.
    pub fn accept(self, peer: Peer<'_>, timeout: Duration) -> Result<CaptureConnection, StreamError> {
        self.0.accept(peer, timeout).map(CaptureConnection)
    }
}

impl CaptureConnection {
    /// The next image that CRIU opens; blocks until it does. None when CRIU has closed the socket:
    /// it opens no more images, but may still write to those that are open.
    ///
    /// CRIU writes to one pipe at a time and blocks while it is full, so every open pipe must be
    /// read while this waits (see [`super::drain`]).
    pub fn next_image(&mut self) -> Result<Option<ImagePipe>, StreamError> {
        let Some(name) = frame::read_request(&self.0)? else { return Ok(None) };
        let pipe = frame::receive_pipe(&self.0)?;
        // Only where it pays: the kernel limits the pages of all of a user's pipes together.
        if is_bulk(&name) {
            enlarge(&pipe, pipe_max_size())?;
        }
        Ok(Some(ImagePipe { name, pipe }))
    }
}

impl AsFd for CaptureConnection {
    /// Readable when [`Self::next_image`] would not block for long.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
