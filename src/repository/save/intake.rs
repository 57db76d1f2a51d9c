//! From a pipe into blocks, cut while the pages are still in the cache.

use super::assembly::Assembly;
use super::engine::{Engine, Target};
use super::error::SaveError;
use super::recognizer::{Piece, Recognizer};
use super::relay::{Filled, Relay, Stream, wait};
use crate::repository::block::{Block, PAGE};
use crate::repository::chunker::{Chunker, Span};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The most that is read at a time: so little that it is still in a core's own cache when it is recognized.
const READ: usize = 256 << 10;
/// So many pieces whose bytes nobody needs are handed on, whether the block is full or not.
const SETTLED: usize = 1024;

/// Corrects pages before they are named: each that begins with the mark.
#[derive(Clone, Copy)]
pub struct Correction<'a> {
    /// The first bytes of such a page.
    pub mark: [u8; 8],
    /// Given the page, or its first part where the stream was read in odd pieces.
    pub correct: &'a (dyn Fn(&mut [u8]) + Sync),
}

impl Correction<'_> {
    /// Looks at bytes that stand at this position of the image.
    fn apply(self, position: u64, bytes: &mut [u8]) {
        let into_page = usize::try_from(position % PAGE as u64).unwrap_or(0);
        let first = (PAGE - into_page) % PAGE;
        for page in bytes.get_mut(first..).unwrap_or_default().chunks_mut(PAGE) {
            if page.starts_with(&self.mark) {
                (self.correct)(page);
            }
        }
    }
}

/// One stream of bytes on its way to the workers.
#[derive(Debug)]
struct Intake {
    engine: Arc<Engine>,
    chunker: Chunker,
    target: Target,
    block: Option<Block>,
    /// What was cut from the block begins here.
    start: usize,
    /// The block is filled up to here.
    filled: usize,
    /// And cut up to here.
    cut: usize,
    /// What was cut from the block.
    pieces: Vec<Piece>,
    /// How many of these, from the first, do not need their bytes.
    needless: usize,
    /// What was cut before these, and whose bytes are gone.
    settled: Vec<Piece>,
    /// Knows what was read before.
    recognizer: Option<Recognizer>,
    spans: Vec<Span>,
    /// The undecided end of the last block.
    carry: Vec<u8>,
}

impl Intake {
    fn new(engine: &Arc<Engine>, target: Target) -> Self {
        let chunker = Chunker::new(engine.chunking());
        let recognizer = engine.recognizer(&target);
        Self {
            engine: Arc::clone(engine),
            carry: Vec::with_capacity(chunker.max_carry() + 4096),
            chunker,
            target,
            block: None,
            start: 0,
            filled: 0,
            cut: 0,
            pieces: Vec::new(),
            needless: 0,
            settled: Vec::new(),
            recognizer,
            spans: Vec::new(),
        }
    }

    /// Room for more bytes: never empty.
    fn space(&mut self) -> Result<&mut [u8], SaveError> {
        if self.settled.len() >= SETTLED || self.block.as_ref().is_some_and(|block| self.filled == block.len()) {
            self.dispatch(false)?;
        }
        if self.block.is_none() {
            // Nothing is held while waiting, so that readers cannot starve one another.
            let mut block = self.engine.pool.take().ok_or_else(|| self.engine.failure())?;
            block[..self.carry.len()].copy_from_slice(&self.carry);
            (self.start, self.cut, self.filled) = (0, 0, self.carry.len());
            self.carry.clear();
            self.block = Some(block);
        }
        match &mut self.block {
            Some(block) => {
                let end = block.len().min(self.filled + READ);
                Ok(&mut block[self.filled..end])
            }
            None => Err(SaveError::Internal("a block got lost")),
        }
    }

    /// Room in front of what is read into a block for [`Intake::take_in`]: for what the last one has left undecided.
    fn head(&self) -> usize {
        self.chunker.max_carry() + PAGE
    }

    /// Takes in a block that somebody else has filled, behind its head.
    fn take_in(&mut self, filled: Filled) -> Result<(), SaveError> {
        let Filled { mut block, bytes } = filled;
        let head = self.head();
        let Some(start) = head.checked_sub(self.carry.len()) else {
            return Err(self.engine.fail(SaveError::Internal("more is undecided than a chunk may be long")));
        };
        block[start..head].copy_from_slice(&self.carry);
        self.carry.clear();
        (self.start, self.cut, self.filled) = (start, start, head + bytes);
        self.block = Some(block);
        self.cut_more(false);
        self.dispatch(false)
    }

    /// Takes in `count` bytes that were written into [`Intake::space`].
    fn advance(&mut self, count: usize) {
        self.filled += count;
        self.cut_more(false);
        self.reuse();
    }

    /// Where nothing that was cut from the block needs its bytes any more, what comes next takes their place, which is
    /// in the cache: other memory would first have to be fetched, to be overwritten.
    fn reuse(&mut self) {
        if self.cut == 0 || !self.settles() {
            return;
        }
        if let Some(block) = &mut self.block {
            block.copy_within(self.cut..self.filled, 0);
            (self.start, self.cut, self.filled) = (0, 0, self.filled - self.cut);
        }
    }

    /// Whether all that was cut from the block needs its bytes no more. Then it is put aside.
    fn settles(&mut self) -> bool {
        let is_needless = |piece: &Piece| match piece {
            Piece::Zero(_) => true,
            Piece::Known(seen) => self.engine.is_stored(&seen.id),
            Piece::Unnamed(_) => false,
        };
        self.needless += self.pieces[self.needless..].iter().take_while(|piece| is_needless(piece)).count();
        let all = self.needless == self.pieces.len();
        if all {
            self.settled.append(&mut self.pieces);
            self.needless = 0;
        }
        all
    }

    fn cut_more(&mut self, last: bool) {
        let Some(block) = &self.block else { return };
        let data = &block[self.cut..self.filled];
        self.cut += if let Some(recognizer) = &mut self.recognizer {
            recognizer.cut(&mut self.chunker, data, last, &mut self.pieces)
        } else {
            let decided = self.chunker.cut(data, last, &mut self.spans);
            self.pieces.extend(self.spans.drain(..).map(Piece::from));
            decided
        };
    }

    /// Takes bytes in by copying them.
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), SaveError> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.advance(count);
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Hands on what was cut, if it is worth it, or the last; what is undecided is carried over to the next block.
    fn dispatch(&mut self, last: bool) -> Result<(), SaveError> {
        let mut block = self.block.take();
        if let Some(block) = &block {
            self.carry.extend_from_slice(&block[self.cut..self.filled]);
        }
        if self.settles() {
            block = None;
        }
        let start = std::mem::take(&mut self.start);
        (self.filled, self.cut, self.needless) = (0, 0, 0);
        if block.is_none() && (self.settled.is_empty() || self.settled.len() < SETTLED && !last) {
            return Ok(());
        }
        let (settled, pieces) = (std::mem::take(&mut self.settled), std::mem::take(&mut self.pieces));
        self.engine.submit(settled, pieces, block.map(|block| (block, start)), &mut self.target)
    }

    /// Everything that came is decided and handed on.
    fn end(&mut self) -> Result<(), SaveError> {
        if self.block.is_none() && !self.carry.is_empty() {
            // It lies in no block yet.
            self.space()?;
        }
        self.cut_more(true);
        self.dispatch(true)
    }
}

/// Counts as a reader while it lives.
struct Reading<'a>(&'a Engine);

impl<'a> Reading<'a> {
    fn new(engine: &'a Engine) -> Self {
        engine.readers.fetch_add(1, Ordering::Relaxed);
        Self(engine)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes an image in from a pipe, until its end.
pub(super) fn read(
    engine: &Arc<Engine>,
    name: &str,
    beginning: &[u8],
    pipe: BorrowedFd<'_>,
    correction: Option<Correction<'_>>,
) -> Result<u64, SaveError> {
    let assembly = engine.add_image(name)?;
    let _reading = Reading::new(engine);
    let mut intake = Intake::new(engine, Target::image(assembly));
    intake.push(beginning)?;
    engine.counters.image.fetch_add(beginning.len() as u64, Ordering::Relaxed);
    let length = if let Some(relay) = Relay::new(pipe) {
        std::thread::scope(|scope| {
            let stream = relay.start(scope, engine, pipe, intake.head())?;
            relayed(&mut intake, stream, beginning.len() as u64, correction)
        })
    } else {
        direct(&mut intake, pipe, beginning.len() as u64, correction)
    }?;
    intake.end()?;
    Ok(length)
}

/// Takes in what others read, until there is no more; returns the image's length.
fn relayed(
    intake: &mut Intake,
    mut stream: Stream,
    mut length: u64,
    correction: Option<Correction<'_>>,
) -> Result<u64, SaveError> {
    intake.dispatch(false)?;
    while let Some(mut filled) = stream.next() {
        let head = intake.head();
        if let (Some(correction), Some(bytes)) = (correction, filled.block.get_mut(head..head + filled.bytes)) {
            correction.apply(length, bytes);
        }
        length += filled.bytes as u64;
        intake.engine.counters.image.fetch_add(filled.bytes as u64, Ordering::Relaxed);
        intake.take_in(filled)?;
    }
    // It also ends when the save has failed.
    if intake.engine.has_failed() { Err(intake.engine.failure()) } else { Ok(length) }
}

/// Takes in what a pipe gives, until its end; returns the image's length.
fn direct(
    intake: &mut Intake,
    pipe: BorrowedFd<'_>,
    mut length: u64,
    correction: Option<Correction<'_>>,
) -> Result<u64, SaveError> {
    loop {
        wait(&intake.engine, pipe, PollTimeout::NONE)?;
        let space = intake.space()?;
        let count = match nix::unistd::read(pipe, &mut *space) {
            Ok(0) => return Ok(length),
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            Err(errno) => {
                return Err(intake.engine.fail(SaveError::system("read an image from CRIU", errno.into())));
            }
        };
        if let (Some(correction), Some(bytes)) = (correction, space.get_mut(..count)) {
            correction.apply(length, bytes);
        }
        intake.advance(count);
        length += count as u64;
        intake.engine.counters.image.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Takes a whole image in, which lies in memory.
pub(super) fn store(engine: &Arc<Engine>, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
    let assembly: Arc<Assembly> = engine.add_image(name)?;
    engine.counters.image.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    engine.store_small(&assembly, bytes)
}

/// Memory that is stored ahead of the images that will hold it.
#[derive(Debug)]
pub struct WarmStream(Intake);

impl WarmStream {
    pub(super) fn new(engine: &Arc<Engine>) -> Result<Self, SaveError> {
        if engine.has_failed() { Err(engine.failure()) } else { Ok(Self(Intake::new(engine, engine.ahead()))) }
    }

    /// Room to read memory into, at least one byte and mostly some hundred KiB: for
    /// `process_vm_readv` without a copy. Say with [`WarmStream::advance`] how much was filled.
    pub fn space(&mut self) -> Result<&mut [u8], SaveError> {
        self.0.space()
    }

    /// Takes in the first `count` bytes of [`WarmStream::space`].
    pub fn advance(&mut self, count: usize) {
        let room = self.0.block.as_ref().map_or(0, |block| block.len() - self.0.filled);
        let count = count.min(room);
        self.0.advance(count);
        self.0.engine.counters.warmed.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The end of a run of pages that will not be followed by what comes next.
    pub fn end(mut self) -> Result<(), SaveError> {
        self.0.end()
    }
}
