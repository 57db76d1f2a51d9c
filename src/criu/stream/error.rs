//! What can go wrong between CRIU and us on the streaming sockets.

use std::io;

/// The conversation with CRIU broke.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The images directory is so deep that the socket's address does not fit.
    #[error("the directory for CRIU's socket has {length} bytes in its path, at most {limit} fit")]
    DirectoryTooLong {
        /// Bytes of the path.
        length: usize,
        /// Most bytes that fit.
        limit: usize,
    },
    /// CRIU did not connect in time.
    #[error("CRIU did not connect to the streaming socket in time")]
    ConnectTimeout,
    /// CRIU ended before it connected; its log says why.
    #[error("CRIU ended before it connected to the streaming socket")]
    CriuEnded,
    /// What came over the socket is not the protocol.
    #[error("CRIU sent something unexpected: {0}")]
    Protocol(String),
    /// The other side closed the socket in the middle of a message.
    #[error("CRIU closed the streaming socket in the middle of a message")]
    Truncated,
    /// A thread that carried an image panicked.
    #[error("a thread that carried an image panicked")]
    Panicked,
}

impl StreamError {
    pub(in crate::criu) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    pub(super) fn sys(doing: &'static str) -> impl Fn(nix::Error) -> Self {
        move |errno| Self::Io { doing, source: errno.into() }
    }
}
