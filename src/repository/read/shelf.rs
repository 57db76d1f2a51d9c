//! The blocks that a restore decodes into, and what lies in them.
//!
//! Processes that were forked share most of their memory, and CRIU asks for all of it once for each
//! process, at the same time. So what one image had decoded lately is kept on the shelf, and the
//! others take it from there. What is on the shelf only makes way as soon as a block is needed.
//!
//! One pool serves all images of a generation. Each sender may hold a share of it, so that one whose
//! reader pauses takes nothing from the others; and none waits for another without end: what another
//! one does not deliver in time it decodes itself.

use super::error::ReadError;
use crate::repository::block::{Block, BlockPool};
use crate::repository::recipe::Location;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Memory for blocks, in bytes.
const MEMORY: usize = 96 << 20;
/// Senders that work at the same time. More of them may have to wait for one another.
pub const SENDERS: usize = 8;
/// Blocks that a sender may hold at least.
pub(super) const LEAST: usize = 4;

/// A block that is being filled, or full, or will never be.
#[derive(Debug, Default)]
pub(super) struct Filling {
    content: OnceLock<Result<Block, ReadError>>,
    waiting: Mutex<()>,
    filled: Condvar,
}

impl Filling {
    /// Says what became of it. Only the first word counts.
    pub fn set(&self, content: Result<Block, ReadError>) {
        let _ = self.content.set(content);
        drop(lock(&self.waiting));
        self.filled.notify_all();
    }

    /// Waits for the content; none when it takes too long.
    pub fn wait(&self, patience: Duration) -> Option<&Result<Block, ReadError>> {
        let guard = lock(&self.waiting);
        let empty = |(): &mut ()| self.content.get().is_none();
        drop(self.filled.wait_timeout_while(guard, patience, empty).unwrap_or_else(PoisonError::into_inner));
        self.content.get()
    }

    fn has_failed(&self) -> bool {
        matches!(self.content.get(), Some(Err(_)))
    }
}

/// Blocks, and which chunks lie in them.
#[derive(Debug)]
pub(super) struct Shelf {
    pool: BlockPool,
    /// Blocks that one sender may hold.
    pub share: usize,
    /// Whether several images may have chunks in common.
    shared: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By age.
    fillings: BTreeMap<u64, (Arc<Filling>, Vec<Location>)>,
    places: HashMap<Location, (u64, Range<usize>)>,
    next: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// For so many images that are large; each sender is kept busy by `wanted` blocks.
    pub fn new(images: usize, wanted: usize, block_size: usize) -> std::io::Result<Self> {
        let senders = images.clamp(1, SENDERS);
        let share = wanted.min((MEMORY / block_size / senders).saturating_sub(1)).max(LEAST);
        Ok(Self {
            // And one for each that is in nobody's batch yet.
            pool: BlockPool::new((share + 1) * senders, block_size)?,
            share,
            shared: images > 1,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        self.pool.block_size()
    }

    /// Where a chunk lies, or will lie soon.
    pub fn find(&self, at: &Location) -> Option<(Arc<Filling>, Range<usize>)> {
        if !self.shared {
            return None;
        }
        let state = lock(&self.state);
        let (number, range) = state.places.get(at)?;
        let (filling, _) = state.fillings.get(number)?;
        if filling.has_failed() { None } else { Some((Arc::clone(filling), range.clone())) }
    }

    /// A place for a block that will be filled, and the number to [`Shelf::announce`] its chunks by.
    pub fn begin(&self) -> (u64, Arc<Filling>) {
        let filling = Arc::new(Filling::default());
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        if self.shared {
            state.fillings.insert(number, (Arc::clone(&filling), Vec::new()));
        }
        (number, filling)
    }

    /// Says that this chunk will lie there.
    pub fn announce(&self, number: u64, at: Location, range: Range<usize>) {
        let mut state = lock(&self.state);
        let State { fillings, places, .. } = &mut *state;
        if let Some((_, inside)) = fillings.get_mut(&number) {
            inside.push(at);
            places.insert(at, (number, range));
        }
    }

    /// A free block; the oldest that nobody uses makes way. None when `stopped` says so.
    pub fn take(&self, stopped: impl Fn() -> bool) -> Option<Block> {
        let mut state = lock(&self.state);
        loop {
            if stopped() {
                return None;
            }
            if let Some(block) = self.pool.try_take() {
                return Some(block);
            }
            if !state.make_way() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Somebody has let go of a block, or stops.
    pub fn notify(&self) {
        drop(lock(&self.state));
        self.changed.notify_all();
    }
}

impl State {
    fn make_way(&mut self) -> bool {
        let unused = self.fillings.iter().find(|(_, (filling, _))| {
            // Nobody but the shelf has it, and nobody can get it while the shelf is locked.
            Arc::strong_count(filling) == 1
        });
        let Some(number) = unused.map(|(number, _)| *number) else { return false };
        if let Some((_, inside)) = self.fillings.remove(&number) {
            for at in inside {
                // The same chunk may lie in a newer block.
                if self.places.get(&at).is_some_and(|(holder, _)| *holder == number) {
                    self.places.remove(&at);
                }
            }
        }
        true
    }
}

/// How many blocks a sender holds, and how many it may.
#[derive(Debug)]
pub(super) struct Allowance {
    held: Mutex<(usize, bool)>,
    changed: Condvar,
    most: usize,
}

impl Allowance {
    pub fn new(most: usize) -> Self {
        Self { held: Mutex::default(), changed: Condvar::new(), most }
    }

    /// Waits until so many more may be held; false when it is closed.
    pub fn acquire(&self, count: usize) -> bool {
        let mut held = lock(&self.held);
        while !held.1 && held.0 > 0 && held.0 + count > self.most {
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.0 += count;
        !held.1
    }

    pub fn release(&self, count: usize) {
        lock(&self.held).0 -= count;
        self.changed.notify_all();
    }

    /// Wakes who waits, with false.
    pub fn close(&self) {
        lock(&self.held).1 = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::crypto::ObjectId;

    fn at(offset: u32) -> Location {
        Location { pack: ObjectId([1; 32]), offset, stored: 10 }
    }

    #[test]
    fn what_nobody_uses_makes_way_and_what_is_in_use_stays() {
        let shelf = Shelf::new(2, LEAST, 4096).unwrap();
        let mut kept = Vec::new();
        for number in 0..2 * (LEAST + 1) {
            let (id, filling) = shelf.begin();
            shelf.announce(id, at(u32::try_from(number).unwrap()), 0..100);
            filling.set(Ok(shelf.take(|| false).unwrap()));
            if number > 0 {
                kept.push(filling);
            }
        }
        assert!(shelf.find(&at(0)).is_some());
        // All blocks are in use but the first filling's, which only the shelf holds.
        assert!(shelf.take(|| false).is_some());
        assert!(shelf.find(&at(0)).is_none());
        assert!(shelf.find(&at(1)).is_some());
    }

    #[test]
    fn a_block_that_failed_is_not_offered() {
        let shelf = Shelf::new(2, LEAST, 4096).unwrap();
        let (id, filling) = shelf.begin();
        shelf.announce(id, at(1), 0..100);
        assert!(filling.wait(Duration::ZERO).is_none());
        filling.set(Err(ReadError::Aborted));
        assert!(matches!(filling.wait(Duration::from_secs(60)), Some(Err(ReadError::Aborted))));
        assert!(shelf.find(&at(1)).is_none());
    }

    #[test]
    fn one_image_alone_shares_nothing() {
        let shelf = Shelf::new(1, 8, 4096).unwrap();
        let (id, _filling) = shelf.begin();
        shelf.announce(id, at(1), 0..100);
        assert!(shelf.find(&at(1)).is_none());
        assert_eq!(shelf.share, 8);
    }

    #[test]
    fn an_allowance_is_kept_and_a_closed_one_wakes() {
        let allowance = Allowance::new(2);
        assert!(allowance.acquire(2));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| allowance.acquire(1));
            allowance.release(1);
            assert!(waiting.join().unwrap());
            let closed = scope.spawn(|| allowance.acquire(1));
            allowance.close();
            assert!(!closed.join().unwrap());
        });
    }
}
