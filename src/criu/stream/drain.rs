//! Reading all images of a dump: the many small ones on one thread, the bulky ones on a thread each.

use super::capture::{CaptureConnection, ImagePipe, is_bulk};
use super::crew::Crew;
use super::error::StreamError;
use super::poll::poll_until_ready;
use nix::poll::{PollFd, PollFlags};
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Bounds of [`drain`].
#[derive(Debug, Clone, Copy)]
pub struct DrainLimits {
    /// An image that grows beyond this many bytes is handed to a thread like a bulky one.
    pub small_bytes: usize,
    /// How many images that are bulky by their name are read at once. CRIU has at most two of them
    /// open (see `docs/criu-streaming.md`); more threads only help when the sink lags behind.
    pub bulk_threads: usize,
}

impl Default for DrainLimits {
    fn default() -> Self {
        Self { small_bytes: 1 << 20, bulk_threads: 4 }
    }
}

/// A whole image in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallImage {
    /// Its file name.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// An image of any size, to be read to its end.
#[derive(Debug)]
pub struct BulkImage {
    /// Its file name.
    pub name: String,
    /// What was read before it turned out to be large; usually nothing.
    pub beginning: Vec<u8>,
    /// The rest.
    pub pipe: OwnedFd,
}

impl BulkImage {
    /// All of it, as one reader.
    pub fn into_reader(self) -> impl Read + Send {
        Cursor::new(self.beginning).chain(File::from(self.pipe))
    }
}

/// Where the images of a dump go.
pub trait ImageSink: Sync {
    /// Why it could not take one. It ends the drain, and so the dump.
    type Error: From<StreamError> + Send;

    /// CRIU has opened an image of this name. It is taken later by [`Self::small`] or [`Self::bulk`].
    fn opened(&self, _name: &str) {}

    /// Takes a whole image. Called by the draining thread: while it takes, CRIU may wait.
    fn small(&self, image: SmallImage) -> Result<(), Self::Error>;

    /// Reads an image to its end. Called on a thread of its own.
    fn bulk(&self, image: BulkImage) -> Result<(), Self::Error>;
}

/// Reads all images until CRIU has closed them all. Success says nothing about the dump: an image
/// also ends when CRIU dies. On an error every pipe is closed, so that CRIU fails and lets the
/// tree go.
pub fn drain<S: ImageSink>(connection: CaptureConnection, limits: DrainLimits, sink: &S) -> Result<(), S::Error> {
    std::thread::scope(|scope| {
        let drain = Drain {
            connection: Some(connection),
            open: Vec::new(),
            bulky: Crew::new(scope)?,
            grown: Crew::new(scope)?,
            limits,
            sink,
        };
        drain.run()
    })
}

struct Drain<'scope, 'env, S: ImageSink> {
    /// None once CRIU opens no more images.
    connection: Option<CaptureConnection>,
    open: Vec<Open>,
    /// Carries images that are bulky by their name; bounded.
    bulky: Crew<'scope, 'env, S::Error>,
    /// Carries images that turned out to be large. Not bounded by waiting: some stay open for the
    /// whole dump, and waiting for them would wait for ever. CRIU has few images open at a time.
    grown: Crew<'scope, 'env, S::Error>,
    limits: DrainLimits,
    sink: &'env S,
}

struct Open {
    name: String,
    bytes: Vec<u8>,
    pipe: File,
    ended: bool,
}

impl<'scope, 'env: 'scope, S: ImageSink> Drain<'scope, 'env, S>
where
    S::Error: 'scope,
{
    /// Dropping `self` on an error closes the socket and all pipes; then CRIU fails, and the
    /// threads see the end of theirs.
    fn run(mut self) -> Result<(), S::Error> {
        let mut scratch = vec![0; 64 * 1024];
        while self.connection.is_some() || !self.open.is_empty() {
            let ready = self.wait()?;
            self.bulky.collect()?;
            self.grown.collect()?;
            for index in ready.pipes {
                if let Some(image) = self.open.get_mut(index) {
                    image.read(&mut scratch)?;
                }
            }
            self.pass_on()?;
            if ready.connection {
                self.next_image()?;
            }
        }
        self.bulky.finish()?;
        self.grown.finish()
    }

    /// Blocks until something can be done.
    fn wait(&self) -> Result<Ready, StreamError> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(self.bulky.as_fd()), readable(self.grown.as_fd())];
        let first_pipe = fds.len();
        fds.extend(self.open.iter().map(|image| readable(image.pipe.as_fd())));
        let room = self.bulky.busy() < self.limits.bulk_threads;
        let connection = self.connection.as_ref().filter(|_| room);
        fds.extend(connection.map(|connection| readable(connection.as_fd())));
        poll_until_ready(&mut fds)?;
        let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok(Ready {
            pipes: (0..self.open.len()).filter(|index| ready(first_pipe + index)).collect(),
            connection: ready(first_pipe + self.open.len()),
        })
    }

    fn next_image(&mut self) -> Result<(), StreamError> {
        let Some(connection) = self.connection.as_mut() else { return Ok(()) };
        let Some(ImagePipe { name, pipe }) = connection.next_image()? else {
            self.connection = None;
            return Ok(());
        };
        self.sink.opened(&name);
        match name {
            name if is_bulk(&name) => {
                let (sink, image) = (self.sink, BulkImage { name, beginning: Vec::new(), pipe });
                self.bulky.start(move || sink.bulk(image))?;
            }
            name => {
                self.open.push(Open { name, bytes: Vec::new(), pipe: pipe.into(), ended: false });
            }
        }
        Ok(())
    }

    /// Hands on what has ended or has grown too large.
    fn pass_on(&mut self) -> Result<(), S::Error> {
        let limit = self.limits.small_bytes;
        let due: Vec<Open> = self.open.extract_if(.., |image| image.ended || image.bytes.len() > limit).collect();
        for Open { name, bytes, pipe, ended } in due {
            if ended {
                self.sink.small(SmallImage { name, bytes })?;
            } else {
                let (sink, image) = (self.sink, BulkImage { name, beginning: bytes, pipe: pipe.into() });
                self.grown.start(move || sink.bulk(image))?;
            }
        }
        Ok(())
    }
}

struct Ready {
    pipes: Vec<usize>,
    connection: bool,
}

impl Open {
    fn read(&mut self, scratch: &mut [u8]) -> Result<(), StreamError> {
        match self.pipe.read(scratch) {
            Ok(0) => self.ended = true,
            Ok(read) => self.bytes.extend_from_slice(scratch.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(StreamError::Io { doing: "reading an image", source }),
        }
        Ok(())
    }
}
