//! Takes out of CRIU's pipe at once what is in it, and reads it with two threads, so that CRIU never waits for us.
//!
//! ```text
//! CRIU ─splice─▶ pipe, 1 MiB ─splice─▶ pipes of ours ─read─▶ blocks ─in order─▶ recognized and cut
//!                             carrier                 pumps                     reader
//! ```
//!
//! CRIU fills pipes of its own with references to the workload's pages, some MiB at a time, and then empties them into the
//! image's pipe. It does one of the two at a time: a reader that works on what it reads holds up the second and waits during
//! the first. The carrier does nothing but move the references on, which costs no copy. The copy out of the pipes is
//! the most costly part of reading, and bound by how fast one core gets memory: so two do it. The rest follows in order.

use super::engine::Engine;
use super::error::SaveError;
use crate::repository::block::Block;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

/// Pipes of one image: as much as CRIU fills at a time. All pipes of a user may hold 64 MiB together
/// (`/proc/sys/fs/pipe-user-pages-soft`), CRIU's and those of other containers too.
const PIPES: usize = 8;
/// A pipe of the usual size is none that somebody has enlarged for the sake of speed.
const USUAL: i32 = 64 << 10;
/// Larger pipes would not fit a block.
const LARGEST: i32 = 1 << 20;
/// Threads that copy. The carrier, CRIU and the reader need cores, too.
const PUMPS: usize = 2;
/// Blocks that may wait for the reader.
const AHEAD: usize = 2;
/// More than any pipe holds.
const MOST: usize = 1 << 30;

/// What lies in one of the pipes.
struct Portion {
    pipe: usize,
    bytes: usize,
}

/// A block that was filled, from the head on.
pub(super) struct Filled {
    pub block: Block,
    /// Bytes behind the head.
    pub bytes: usize,
}

/// Empty pipes, each as large as the image's.
#[derive(Debug)]
pub(super) struct Relay {
    /// Read end and write end.
    pipes: Vec<(OwnedFd, OwnedFd)>,
}

/// What has been read, in order.
pub(super) struct Stream {
    filled: Receiver<(u64, Filled)>,
    early: BTreeMap<u64, Filled>,
    next: u64,
}

impl Relay {
    /// For an image that comes through this pipe. None where it would not help, or the kernel grants no large pipes.
    pub fn new(image: BorrowedFd<'_>) -> Option<Self> {
        std::thread::available_parallelism().ok().filter(|cores| cores.get() > 1)?;
        let size = fcntl(image, FcntlArg::F_GETPIPE_SZ).ok().filter(|size| *size > USUAL)?.min(LARGEST);
        let pipe = || {
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).ok()?;
            let granted = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(size)).ok()?;
            (granted == size).then_some((reader, writer))
        };
        let pipes: Vec<_> = std::iter::repeat_with(pipe).take(PIPES).map_while(|pipe| pipe).collect();
        (pipes.len() > PUMPS).then_some(Self { pipes })
    }

    /// Starts to move and to read. Blocks are filled from `head` on. The end of the stream is the end of the image, or of
    /// the save.
    pub fn start<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        engine: &'env Engine,
        image: BorrowedFd<'env>,
        head: usize,
    ) -> Result<Stream, SaveError> {
        let (portions, waiting) = unbounded();
        let (give_back, free) = unbounded();
        let (filled, stream) = bounded(AHEAD);
        for pipe in 0..self.pipes.len() {
            // Its receiver is here.
            let _ = give_back.send(pipe);
        }
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let failed = |error| engine.fail(SaveError::system("start a thread", error));
        let carrier = Carrier { relay: self, engine, portions, free };
        thread("save-carrier").spawn_scoped(scope, move || carrier.carry(image)).map_err(failed)?;
        let turn = Arc::new(Mutex::new(Turn { waiting, next: 0 }));
        for _ in 0..PUMPS {
            let pump = Pump { relay: self, engine, head, give_back: give_back.clone(), filled: filled.clone() };
            let turn = Arc::clone(&turn);
            thread("save-pump").spawn_scoped(scope, move || pump.work(&turn)).map_err(failed)?;
        }
        Ok(Stream { filled: stream, early: BTreeMap::new(), next: 0 })
    }
}

impl Stream {
    /// The next block; none at the end.
    pub fn next(&mut self) -> Option<Filled> {
        loop {
            if let Some(filled) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(filled);
            }
            let (number, filled) = self.filled.recv().ok()?;
            self.early.insert(number, filled);
        }
    }
}

/// Moves what comes.
struct Carrier<'a> {
    relay: &'a Relay,
    engine: &'a Engine,
    portions: Sender<Portion>,
    free: Receiver<usize>,
}

impl Carrier<'_> {
    /// Until the end of the image, or of those who read. Whoever failed has said why.
    fn carry(self, image: BorrowedFd<'_>) {
        while let Ok(pipe) = self.free.recv() {
            let Some((_, into)) = self.relay.pipes.get(pipe) else { return };
            let Ok((bytes, last)) = self.fill(image, into) else { return };
            if bytes > 0 && self.portions.send(Portion { pipe, bytes }).is_err() || last {
                return;
            }
        }
    }

    /// Fills one pipe, or less when there is no more at the moment and somebody waits for it. Says whether it was the end.
    fn fill(&self, image: BorrowedFd<'_>, into: &OwnedFd) -> Result<(usize, bool), SaveError> {
        let mut bytes = 0;
        loop {
            let in_need = bytes > 0 && self.portions.is_empty();
            if !wait(self.engine, image, if in_need { PollTimeout::ZERO } else { PollTimeout::NONE })? {
                return Ok((bytes, false));
            }
            let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
            match splice(image, None, into, None, MOST, flags) {
                Ok(0) => return Ok((bytes, true)),
                Ok(count) => bytes += count,
                Err(Errno::EINTR) => {}
                // It is full.
                Err(Errno::EAGAIN) => return Ok((bytes, false)),
                Err(errno) => return Err(self.engine.fail(SaveError::system("move an image", errno.into()))),
            }
        }
    }
}

/// Whose turn it is to take what comes next, and its number.
struct Turn {
    waiting: Receiver<Portion>,
    next: u64,
}

/// Reads what was moved.
struct Pump<'a> {
    relay: &'a Relay,
    engine: &'a Engine,
    head: usize,
    give_back: Sender<usize>,
    filled: Sender<(u64, Filled)>,
}

impl Pump<'_> {
    fn work(self, turn: &Mutex<Turn>) {
        while let Some((number, portions, block)) = self.take(turn) {
            // Whoever failed has said why.
            let Ok(filled) = self.read(portions, block) else { return };
            if self.filled.send((number, filled)).is_err() {
                return;
            }
        }
    }

    /// What comes next, and a block for it. Nothing is held while waiting, and blocks are given in order: or what is needed
    /// first could wait for what is filled already.
    fn take(&self, turn: &Mutex<Turn>) -> Option<(u64, Vec<Portion>, Block)> {
        let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut portions = vec![turn.waiting.recv().ok()?];
        let block = self.engine.pool.take()?;
        let mut room = block.len().saturating_sub(self.head + portions[0].bytes);
        // Little pieces share a block. Whatever comes fits.
        while room >= LARGEST.unsigned_abs() as usize
            && let Ok(more) = turn.waiting.try_recv()
        {
            room -= more.bytes;
            portions.push(more);
        }
        turn.next += 1;
        Some((turn.next - 1, portions, block))
    }

    fn read(&self, portions: Vec<Portion>, mut block: Block) -> Result<Filled, SaveError> {
        let mut end = self.head;
        for Portion { pipe, bytes } in portions {
            let from = self.relay.pipes.get(pipe).map(|(from, _)| from);
            let Some((from, space)) = from.zip(block.get_mut(end..end + bytes)) else {
                return Err(self.engine.fail(SaveError::Internal("a block is too small for what is in a pipe")));
            };
            let mut done = 0;
            while done < bytes {
                match nix::unistd::read(from, &mut space[done..]) {
                    Ok(0) => return Err(self.engine.fail(SaveError::Internal("a pipe has lost what was in it"))),
                    Ok(count) => done += count,
                    Err(Errno::EINTR) => {}
                    Err(errno) => {
                        return Err(self.engine.fail(SaveError::system("read an image from CRIU", errno.into())));
                    }
                }
            }
            end += bytes;
            // The carrier may have come to its end.
            let _ = self.give_back.send(pipe);
        }
        Ok(Filled { block, bytes: end - self.head })
    }
}

/// Waits until the pipe has something, or the save has failed; false when the time is over.
pub(super) fn wait(engine: &Engine, pipe: BorrowedFd<'_>, timeout: PollTimeout) -> Result<bool, SaveError> {
    loop {
        let mut fds = [PollFd::new(pipe, PollFlags::POLLIN), PollFd::new(engine.stopped.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) if engine.has_failed() => return Err(engine.failure()),
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(engine.fail(SaveError::system("wait for CRIU", errno.into()))),
        }
    }
}
