//! Streams an image into a pipe: a planner cuts the recipe into batches, loaders fill blocks in any
//! order, the sender splices the blocks into the pipe in order. Blocks come from the [`super::shelf`].
//!
//! A spliced page stays in the pipe until it is read, so a block is reused only when the pipe has
//! drained past it (`FIONREAD`), and the last pipeful is written by copying: once that is in,
//! nothing of ours is left in the pipe.
#![allow(unsafe_code)] // vmsplice and FIONREAD have no safe wrapper for this use.

use super::Inner;
use super::error::ReadError;
use super::fetch::Wanted;
use super::plan::{BLOCKS, Batch, Segment};
use super::shelf::{Allowance, Filling, Shelf};
use crate::repository::block::Block;
use crate::repository::index::Recipe;
use crate::repository::recipe::Entry;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Images up to this length are sent from memory.
pub(super) const SMALL: u64 = 64 << 10;
/// Zeros to splice from.
const ZEROS: usize = 64 << 10;
/// How long another image's loaders may take for a block before this one loads it itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// A reader takes about this long for a pipeful.
const DRAINS_WITHIN: Duration = Duration::from_millis(1);
/// Its own loaders never hang: they end with a block, or with an error.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

struct Task {
    batch: Batch,
    block: Block,
    filling: Arc<Filling>,
}

struct Promise {
    segments: Vec<Segment>,
    own: Option<Arc<Filling>>,
    /// How many blocks it holds.
    blocks: usize,
}

/// See [`super::Opened::send`].
pub(super) fn send(inner: &Inner, name: &str, pipe: BorrowedFd<'_>) -> Result<u64, ReadError> {
    let image = inner.find(name)?;
    if image.length <= SMALL {
        return send_small(inner, name, image.length, pipe);
    }
    let shelf = inner.shelf()?;
    let allowance = Allowance::new(shelf.share);
    let (tasks, queue) = unbounded::<Task>();
    let (promises, arriving) = unbounded::<Result<Promise, ReadError>>();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..inner.fetcher.parallelism().min(shelf.share) {
            let (queue, stop, shelf) = (queue.clone(), &stop, &shelf);
            scope.spawn(move || load(inner, shelf, &queue, stop));
        }
        let mut planner =
            Planner { inner, shelf: &shelf, allowance: &allowance, stop: &stop, tasks, promises, spare: None };
        scope.spawn(move || {
            if let Err(error) = planner.plan(&image.recipe) {
                // The sender has gone, or gets to know.
                let _ = planner.promises.send(Err(error));
            }
        });
        let sent = Pipe::new(inner, &shelf, &allowance, pipe, image.length).send_all(&arriving);
        stop.store(true, Ordering::SeqCst);
        allowance.close();
        shelf.notify();
        sent
    })
}

fn send_small(inner: &Inner, name: &str, length: u64, pipe: BorrowedFd<'_>) -> Result<u64, ReadError> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    inner.with_loader(|loader| inner.read_at(loader, name, 0, &mut bytes))?;
    let mut sent = 0;
    Ok(if write(pipe, &bytes, &mut sent)? { length } else { sent })
}

/// Cuts the recipe into batches and hands them out, as blocks come free.
struct Planner<'a> {
    inner: &'a Inner,
    shelf: &'a Shelf,
    allowance: &'a Allowance,
    stop: &'a AtomicBool,
    tasks: Sender<Task>,
    promises: Sender<Result<Promise, ReadError>>,
    /// For the next batch that needs one.
    spare: Option<Block>,
}

impl Planner<'_> {
    fn plan(&mut self, recipe: &Recipe) -> Result<(), ReadError> {
        let mut batch = self.begin()?;
        match recipe {
            Recipe::Inline(entries) => self.add(&mut batch, entries)?,
            Recipe::Leaves(leaves) => {
                for leaf in leaves {
                    let entries = self.inner.with_loader(|loader| self.inner.leaf(loader, leaf))?;
                    self.add(&mut batch, &entries)?;
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { self.hand_out(batch) }
    }

    /// Waits for all that a batch may need. So once a batch tells others of its chunks, it waits for
    /// nothing that its own reader has to do, and they need not either.
    fn begin(&mut self) -> Result<Batch, ReadError> {
        if !self.allowance.acquire(BLOCKS) {
            return Err(ReadError::Aborted);
        }
        if self.spare.is_none() {
            self.spare = Some(self.shelf.take(|| self.stop.load(Ordering::SeqCst)).ok_or(ReadError::Aborted)?);
        }
        Ok(Batch::default())
    }

    fn add(&mut self, batch: &mut Batch, entries: &[Entry]) -> Result<(), ReadError> {
        for entry in entries {
            if !batch.add(entry, self.shelf) {
                self.hand_out(std::mem::take(batch))?;
                *batch = self.begin()?;
                if !batch.add(entry, self.shelf) {
                    return Err(ReadError::damaged("index", "it has a chunk larger than the format allows"));
                }
            }
        }
        Ok(())
    }

    fn hand_out(&mut self, mut batch: Batch) -> Result<(), ReadError> {
        let blocks = batch.blocks();
        self.allowance.release(BLOCKS - blocks);
        let segments = std::mem::take(&mut batch.segments);
        let own = batch.own.as_ref().map(|(_, filling)| Arc::clone(filling));
        let promise = Promise { segments, own: own.clone(), blocks };
        self.promises.send(Ok(promise)).map_err(|_| ReadError::Aborted)?;
        let Some(filling) = own else { return Ok(()) };
        let block = self.spare.take().ok_or(ReadError::Aborted)?;
        self.tasks.send(Task { batch, block, filling }).map_err(|_| ReadError::Aborted)
    }
}

/// The life of a loader.
fn load(inner: &Inner, shelf: &Shelf, queue: &Receiver<Task>, stop: &AtomicBool) {
    for Task { batch, mut block, filling } in queue {
        let result = if stop.load(Ordering::SeqCst) {
            Err(ReadError::Aborted)
        } else {
            inner.with_loader(|loader| loader.in_order(true).load(&inner.fetcher, &batch.wanted, &mut block))
        };
        filling.set(result.map(|()| block));
        drop((batch, filling));
        shelf.notify();
    }
}

/// The writing end of a pipe, and what of ours is in it.
struct Pipe<'a> {
    inner: &'a Inner,
    shelf: &'a Shelf,
    allowance: &'a Allowance,
    fd: BorrowedFd<'a>,
    /// What the pipe holds at most; 0 when it is not a pipe and everything is written.
    capacity: u64,
    length: u64,
    sent: u64,
    /// Blocks in the pipe, each with the position behind its last byte there.
    spliced: VecDeque<(u64, Promise)>,
    zeros: Vec<u8>,
}

impl<'a> Pipe<'a> {
    fn new(inner: &'a Inner, shelf: &'a Shelf, allowance: &'a Allowance, fd: BorrowedFd<'a>, length: u64) -> Self {
        let capacity = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETPIPE_SZ).unwrap_or(0);
        let capacity = u64::try_from(capacity).unwrap_or(0);
        let (spliced, zeros) = (VecDeque::new(), vec![0; ZEROS]);
        Self { inner, shelf, allowance, fd, capacity, length, sent: 0, spliced, zeros }
    }

    fn send_all(&mut self, arriving: &Receiver<Result<Promise, ReadError>>) -> Result<u64, ReadError> {
        while self.sent < self.length {
            let promise = self.next(arriving)??;
            for segment in &promise.segments {
                if !self.put_segment(segment, promise.own.as_deref())? {
                    // Nobody reads any more: what is in the pipe will never be seen.
                    return Ok(self.sent);
                }
            }
            self.spliced.push_back((self.sent, promise));
            self.retire()?;
        }
        Ok(self.sent)
    }

    /// The next promise. The planner may be waiting for blocks that are in the pipe: nobody tells when
    /// the reader has passed them, so that is looked for meanwhile.
    fn next(
        &mut self,
        arriving: &Receiver<Result<Promise, ReadError>>,
    ) -> Result<Result<Promise, ReadError>, ReadError> {
        while !self.spliced.is_empty() {
            match arriving.recv_timeout(DRAINS_WITHIN) {
                Ok(promise) => return Ok(promise),
                Err(RecvTimeoutError::Timeout) => self.retire()?,
                Err(RecvTimeoutError::Disconnected) => return Err(ReadError::Aborted),
            }
        }
        arriving.recv().map_err(|_| ReadError::Aborted)
    }

    fn put_segment(&mut self, segment: &Segment, own: Option<&Filling>) -> Result<bool, ReadError> {
        match segment {
            Segment::Zero(length) => self.put_zeros(*length),
            Segment::Own(range) => match own.and_then(|own| own.wait(FOR_EVER)) {
                Some(Ok(block)) => self.put(&block[range.clone()]),
                Some(Err(error)) => Err(error.clone()),
                None => Err(ReadError::Aborted),
            },
            Segment::Other(filling, range, chunks) => match filling.wait(PATIENCE) {
                Some(Ok(block)) => self.put(&block[range.clone()]),
                // Whoever was to load it has stopped, or takes its time.
                Some(Err(_)) | None => self.put_chunks(chunks),
            },
        }
    }

    /// Loads chunks one by one, and writes them by copying.
    fn put_chunks(&mut self, chunks: &[Wanted]) -> Result<bool, ReadError> {
        for chunk in chunks {
            let mut plain = vec![0; chunk.into.len()];
            let wanted = [Wanted { at: chunk.at, into: 0..plain.len() }];
            self.inner.with_loader(|loader| loader.load(&self.inner.fetcher, &wanted, &mut plain))?;
            if !write(self.fd, &plain, &mut self.sent)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn put_zeros(&mut self, mut length: u64) -> Result<bool, ReadError> {
        let zeros = std::mem::take(&mut self.zeros);
        let mut open = true;
        while length > 0 && open {
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS);
            open = self.put(&zeros[..count])?;
            length -= count as u64;
        }
        self.zeros = zeros;
        Ok(open)
    }

    /// Splices what may stay in the pipe, writes the last pipeful. False when the reader has gone.
    fn put(&mut self, bytes: &[u8]) -> Result<bool, ReadError> {
        let tail = self.length.saturating_sub(self.capacity);
        let splice = if self.capacity == 0 { 0 } else { tail.saturating_sub(self.sent) };
        let splice = usize::try_from(splice).unwrap_or(usize::MAX).min(bytes.len());
        let (spliced, written) = bytes.split_at(splice);
        Ok(self.splice(spliced)? && write(self.fd, written, &mut self.sent)?)
    }

    fn splice(&mut self, mut bytes: &[u8]) -> Result<bool, ReadError> {
        while !bytes.is_empty() {
            let flags = nix::fcntl::SpliceFFlags::empty();
            match nix::fcntl::vmsplice(self.fd, &[IoSlice::new(bytes)], flags) {
                Ok(count) => {
                    self.sent += count as u64;
                    bytes = &bytes[count..];
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE) => return Ok(false),
                Err(errno) => return Err(ReadError::system("splice an image into a pipe", errno.into())),
            }
        }
        Ok(true)
    }

    /// Gives back the blocks that the reader has passed.
    fn retire(&mut self) -> Result<(), ReadError> {
        let read = if self.capacity == 0 { self.sent } else { self.sent - self.unread()? };
        let passed = self.spliced.iter().take_while(|(end, _)| *end <= read).count();
        if passed > 0 {
            let promises = self.spliced.drain(..passed);
            let blocks = promises.map(|(_, promise)| promise.blocks).sum();
            self.allowance.release(blocks);
            self.shelf.notify();
        }
        Ok(())
    }

    fn unread(&self) -> Result<u64, ReadError> {
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int to the address given, which is that of a live int.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
        Errno::result(result).map_err(|errno| ReadError::system("ask a pipe what it holds", errno.into()))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

/// Writes by copying, and counts. False when the reader has gone.
fn write(fd: BorrowedFd<'_>, mut bytes: &[u8], sent: &mut u64) -> Result<bool, ReadError> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(count) => {
                *sent += count as u64;
                bytes = &bytes[count..];
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE) => return Ok(false),
            Err(errno) => return Err(ReadError::system("write an image into a pipe", errno.into())),
        }
    }
    Ok(true)
}
