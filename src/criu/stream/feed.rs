//! Serving all images of a restore: whole ones on one thread, streamed ones on a thread each.

use super::crew::Crew;
use super::error::StreamError;
use super::poll::poll_until_ready;
use super::serve::{Request, ServeConnection};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Bounds of [`feed`].
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// How many images are streamed at once. Further requests wait; every process of the tree
    /// reads its own pages, so more than the machine's cores gain nothing.
    pub streams: usize,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self { streams: std::thread::available_parallelism().map_or(4, std::num::NonZero::get).max(4) }
    }
}

/// How an image is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// There is none of this name.
    Missing,
    /// From memory. Meant for the many small images.
    Whole(bytes::Bytes),
    /// By [`ImageSource::stream`], on a thread of its own.
    Streamed {
        /// Its length in bytes, if known: sizes the pipe.
        length: Option<u64>,
    },
}

/// Where the images of a restore come from.
pub trait ImageSource: Sync {
    /// Why it could not give one. It ends the restore.
    type Error: From<StreamError> + Send;

    /// Says how an image is served. Called by the feeding thread: CRIU waits meanwhile, all of it.
    fn offer(&self, name: &str) -> Result<Offer, Self::Error>;

    /// Writes the image into the pipe and closes it. Called on a thread of its own. An error closes
    /// the pipe early, which CRIU takes as a truncated image. CRIU may close its end before it has
    /// read everything (EPIPE); that is for CRIU's exit status to judge.
    fn stream(&self, name: &str, pipe: OwnedFd) -> Result<(), Self::Error>;
}

/// Serves images until CRIU asks for no more and has read what it asked for. Success says nothing
/// about the restore; CRIU's exit status does.
pub fn feed<S: ImageSource>(connection: ServeConnection, limits: FeedLimits, source: &S) -> Result<(), S::Error> {
    std::thread::scope(|scope| {
        let streams = Crew::new(scope)?;
        Feed { connection: Some(connection), open: Vec::new(), streams, limits, source }.run()
    })
}

struct Feed<'scope, 'env, S: ImageSource> {
    /// None once CRIU asks for no more images.
    connection: Option<ServeConnection>,
    open: Vec<Open>,
    streams: Crew<'scope, 'env, S::Error>,
    limits: FeedLimits,
    source: &'env S,
}

/// An image in memory of which a part still has to be written.
struct Open {
    left: bytes::Bytes,
    pipe: File,
}

impl<'scope, 'env: 'scope, S: ImageSource> Feed<'scope, 'env, S>
where
    S::Error: 'scope,
{
    fn run(mut self) -> Result<(), S::Error> {
        while self.connection.is_some() || !self.open.is_empty() {
            let request_waits = self.wait()?;
            self.streams.collect()?;
            self.open = std::mem::take(&mut self.open)
                .into_iter()
                .filter_map(|o| o.write().transpose())
                .collect::<Result<_, _>>()?;
            if request_waits {
                self.answer()?;
            }
        }
        self.streams.finish()
    }

    /// Blocks until something can be done; true when a request can be read.
    fn wait(&self) -> Result<bool, StreamError> {
        let mut fds = vec![PollFd::new(self.streams.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.open.iter().map(|image| PollFd::new(image.pipe.as_fd(), PollFlags::POLLOUT)));
        let room = self.streams.busy() < self.limits.streams;
        let connection = self.connection.as_ref().filter(|_| room);
        fds.extend(connection.map(|connection| PollFd::new(connection.as_fd(), PollFlags::POLLIN)));
        poll_until_ready(&mut fds)?;
        Ok(fds.get(self.open.len() + 1).and_then(PollFd::any).unwrap_or(false))
    }

    fn answer(&mut self) -> Result<(), S::Error> {
        let Some(connection) = self.connection.as_mut() else { return Ok(()) };
        let Some(request) = connection.next_request()? else {
            self.connection = None;
            return Ok(());
        };
        match self.source.offer(request.name())? {
            Offer::Missing => request.reply_missing()?,
            Offer::Whole(bytes) => self.open.extend(Open::begin(request, bytes)?),
            Offer::Streamed { length } => {
                let (source, name) = (self.source, request.name().to_owned());
                let pipe = request.reply_found(length.unwrap_or(u64::MAX))?;
                self.streams.start(move || source.stream(&name, pipe))?;
            }
        }
        Ok(())
    }
}

impl Open {
    /// Writes as much as the pipe takes at once; most images fit, and nothing is left to do.
    fn begin(request: Request<'_>, left: bytes::Bytes) -> Result<Option<Self>, StreamError> {
        let pipe = request.reply_found(left.len() as u64)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(StreamError::sys("preparing a pipe"))?;
        Self { left, pipe: pipe.into() }.write()
    }

    /// Writes what the pipe takes. None when all is written, or CRIU wants no more of it.
    fn write(mut self) -> Result<Option<Self>, StreamError> {
        while !self.left.is_empty() {
            match self.pipe.write(&self.left) {
                Ok(written) => drop(self.left.split_to(written)),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok(Some(self)),
                    ErrorKind::BrokenPipe => return Ok(None),
                    _ => return Err(StreamError::Io { doing: "writing an image to CRIU", source: error }),
                },
            }
        }
        Ok(None)
    }
}
