//! Waiting for several descriptors at once.

use super::error::StreamError;
use nix::poll::{PollFd, PollTimeout, poll};

/// Blocks until at least one of them has an event, an end or an error.
pub(super) fn poll_until_ready(fds: &mut [PollFd<'_>]) -> Result<(), StreamError> {
    loop {
        match poll(fds, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(StreamError::sys("waiting for CRIU's pipes")(errno)),
            Ok(_) => return Ok(()),
        }
    }
}
