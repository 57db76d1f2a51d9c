//! One address space that is being filled.
//!
//! The kernel's own rule makes this sound: from the moment a process forks, moves, unmaps or drops memory until the
//! event of it was read, nothing can be put into its memory (EAGAIN). Events are read with `gate` held alone, and the
//! table of what is missing follows them before it is let go; pages are put in place with `gate` held in common, and
//! only what the table says is missing at that moment. So no page arrives where the workload no longer expects it.

use super::PAGE;
use super::missing::{Missing, Piece};
use super::uffd::{Told, Uffd};
use nix::errno::Errno;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The memory of one process.
#[derive(Debug)]
pub struct Space {
    uffd: Uffd,
    gate: RwLock<()>,
    missing: Mutex<Missing>,
    /// The image in which its pages lie.
    pub image: Arc<str>,
    /// Its PID as in the checkpoint; none of one that was born later.
    pub pid: Option<i32>,
    /// The process has ended, or replaced its memory.
    gone: AtomicBool,
    /// Where the background fill goes on.
    cursor: AtomicU64,
}

/// How putting pages in place went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// All that was missing there is in place; this many bytes are new.
    Done(u64),
    /// The process changes its memory at this moment: to be tried again when the event was read.
    Changing,
    /// The process has ended.
    Gone,
    /// The kernel has no memory for the page.
    NoMemory,
}

/// What a thread that waits for a page waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// A page of the image: the run it is in.
    Page(Piece),
    /// Nothing that was saved: it has got its zeros, or need not wait any more.
    Answered(Put),
}

impl Space {
    /// Of one process.
    pub fn new(uffd: Uffd, image: Arc<str>, missing: Missing, pid: Option<i32>) -> Arc<Self> {
        Arc::new(Self {
            uffd,
            gate: RwLock::default(),
            missing: Mutex::new(missing),
            image,
            pid,
            gone: AtomicBool::new(false),
            cursor: AtomicU64::new(0),
        })
    }

    /// What is polled for events.
    pub fn uffd(&self) -> &Uffd {
        &self.uffd
    }

    fn missing(&self) -> MutexGuard<'_, Missing> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is to be brought any more.
    pub fn is_over(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || self.missing().is_empty()
    }

    /// The process is no more.
    pub fn is_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Reads what has happened, and follows it. Returns the addresses that threads wait for, and children.
    pub fn follow(&self) -> io::Result<(Vec<u64>, Vec<Arc<Self>>)> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let (mut faults, mut children) = (Vec::new(), Vec::new());
        for told in self.uffd.read()? {
            match told {
                Told::Fault(address) => faults.push(address / PAGE * PAGE),
                Told::Fork(uffd) => {
                    children.push(Self::new(uffd, Arc::clone(&self.image), self.missing().clone(), None));
                }
                Told::Moved { from, to, length } => self.missing().moved(from, to, length),
                Told::Dropped(range) => self.missing().remove(range),
            }
        }
        Ok((faults, children))
    }

    /// What the page at this address waits for. One that was never saved is zero, and put there at once.
    pub fn awaited(&self, page: u64) -> Awaited {
        let _common = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = self.missing().around(page) {
            return Awaited::Page(run);
        }
        Awaited::Answered(match self.uffd.zero(page, PAGE) {
            Ok(_) => Put::Done(0),
            Err(Errno::EEXIST) => {
                self.uffd.wake(page, PAGE);
                Put::Done(0)
            }
            Err(errno) => self.refused(errno),
        })
    }

    /// The next pieces for the background, within `span` bytes of the image; none when it has come to the end, until
    /// [`Self::rewind`].
    pub fn next_batch(&self, span: u64) -> Option<Vec<Piece>> {
        if self.gone.load(Ordering::Relaxed) {
            return None;
        }
        let missing = self.missing();
        let batch = missing.batch(self.cursor.load(Ordering::Relaxed), span);
        let end = batch.last().map(|last| last.address + last.length);
        self.cursor.store(end.unwrap_or(u64::MAX), Ordering::Relaxed);
        end.map(|_| batch)
    }

    /// What is missing of these addresses, as much as lies within `span` bytes of the image.
    pub fn batch_of(&self, range: &Range<u64>, span: u64) -> Vec<Piece> {
        if self.gone.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut batch = self.missing().batch(range.start, span);
        batch.retain(|piece| piece.address < range.end);
        if let Some(last) = batch.last_mut() {
            last.length = last.length.min(range.end - last.address);
        }
        batch
    }

    /// Where what is missing of these parts of the image belongs.
    pub fn addresses(&self, parts: &[Range<u64>]) -> Vec<Range<u64>> {
        self.missing().addresses(parts)
    }

    /// From the start of the memory once more.
    pub fn rewind(&self) {
        self.cursor.store(0, Ordering::Relaxed);
    }

    /// Puts the part of a piece in place that is still missing where it was when it was asked for. `bytes` are all of it.
    pub fn put(&self, asked: Piece, bytes: &[u8]) -> Put {
        let _common = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut new = 0;
        let pieces = self.missing().within(asked.address..asked.address + asked.length);
        // Other pages may have been moved there meanwhile.
        for piece in pieces.into_iter().filter(|piece| asked.holds(piece)) {
            let start = usize::try_from(piece.address - asked.address).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(piece.length).unwrap_or(usize::MAX));
            for (at, run, zero) in runs(piece.address, bytes.get(start..end).unwrap_or_default()) {
                match self.put_run(at, run, zero) {
                    Put::Done(put) => new += put,
                    other => return other,
                }
            }
        }
        Put::Done(new)
    }

    /// Whoever waits for this page tries again; if it is still missing, that is told again.
    pub fn wake(&self, page: u64) {
        self.uffd.wake(page, PAGE);
    }

    fn put_run(&self, start: u64, bytes: &[u8], zero: bool) -> Put {
        let (mut rest, mut new, mut most) = (bytes, 0, bytes.len());
        while !rest.is_empty() {
            let at = start + (bytes.len() - rest.len()) as u64;
            let part = rest.get(..most).unwrap_or(rest);
            let put = if zero { self.uffd.zero(at, part.len() as u64) } else { self.uffd.copy(at, part) };
            let count = match put {
                // A call must not go beyond one mapping, and neighbours look alike from here.
                Err(Errno::ENOENT) if part.len() as u64 > PAGE => {
                    most = halved(part.len());
                    continue;
                }
                Ok(count) => {
                    new += count;
                    count
                }
                // It came by another way.
                Err(Errno::EEXIST) => {
                    self.uffd.wake(at, PAGE);
                    PAGE
                }
                Err(errno) => return self.refused(errno),
            };
            self.missing().remove(at..at + count);
            most = bytes.len();
            rest = rest.get(usize::try_from(count).unwrap_or(usize::MAX)..).unwrap_or_default();
        }
        Put::Done(new)
    }

    fn refused(&self, errno: Errno) -> Put {
        match errno {
            Errno::ESRCH => {
                self.is_gone();
                Put::Gone
            }
            Errno::ENOMEM => Put::NoMemory,
            // EAGAIN, or ENOENT for memory that is no longer, or not yet, where it was: an event will tell.
            _ => Put::Changing,
        }
    }
}

/// Half of these bytes, in whole pages.
fn halved(bytes: usize) -> usize {
    let page = usize::try_from(PAGE).unwrap_or(4096);
    (bytes / 2).next_multiple_of(page).min(bytes - page)
}

/// Cuts into runs of zero pages and of others.
fn runs(address: u64, bytes: &[u8]) -> Vec<(u64, &[u8], bool)> {
    let page = usize::try_from(PAGE).unwrap_or(4096);
    let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let mut runs: Vec<(usize, usize, bool)> = Vec::new();
    for (number, content) in bytes.chunks(page).enumerate() {
        let zero = is_zero(content);
        let start = number * page;
        match runs.last_mut() {
            Some((_, end, kind)) if *kind == zero => *end = start + content.len(),
            _ => runs.push((start, start + content.len(), zero)),
        }
    }
    runs.into_iter().map(|(start, end, zero)| (address + start as u64, &bytes[start..end], zero)).collect()
}
