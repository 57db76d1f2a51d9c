//! Pooled, huge-page-aligned buffers: where every byte of an image lands once.
//!
//! Fresh memory is slow (the kernel zeroes every page on first touch: 1.2 to 1.4 GB/s measured), so
//! blocks are made once and reused, last returned first, which keeps them warm in the cache. The
//! number of blocks is the bound on memory, and an empty pool is the back-pressure: the reader
//! waits, the pipe fills, CRIU waits.
#![allow(unsafe_code)] // Blocks are disjoint mutable windows of one mapping; the borrow checker cannot see that.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Size of a page of memory, the unit of CRIU's page images.
pub const PAGE: usize = 4096;

/// Alignment of the pool: a huge page of x86-64 and of aarch64 with 4 KiB pages.
const HUGE: usize = 2 << 20;

/// A fixed number of equal buffers.
#[derive(Debug, Clone)]
pub struct BlockPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Keeps the mapping alive; never touched through this handle after construction.
    _mapping: memmap2::MmapMut,
    base: NonNull<u8>,
    block_size: usize,
    count: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug)]
struct State {
    free: Vec<usize>,
    closed: bool,
}

// SAFETY: `base` points into `_mapping`, which is plain memory owned by this value; access to it is
// handed out only through `Block`, each of which owns a disjoint window.
unsafe impl Send for Shared {}
// SAFETY: as above; the shared state itself is behind a mutex.
unsafe impl Sync for Shared {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockPool {
    /// Maps `count` blocks of `block_size` bytes (rounded up to whole pages). Memory is taken when a
    /// block is first touched, or by [`BlockPool::populate`].
    pub fn new(count: usize, block_size: usize) -> std::io::Result<Self> {
        let count = count.max(1);
        let block_size = block_size.max(PAGE).next_multiple_of(PAGE);
        let length = count.checked_mul(block_size).and_then(|n| n.checked_add(HUGE)).ok_or_else(too_large)?;
        let mut mapping = memmap2::MmapOptions::new().len(length).map_anon()?;
        // Refused where huge pages are switched off; the pool works all the same.
        let _ = mapping.advise(memmap2::Advice::HugePage);
        let start = mapping.as_mut_ptr();
        let skip = start.align_offset(HUGE).min(HUGE);
        // SAFETY: `skip` is at most HUGE, and the mapping is HUGE longer than the blocks need.
        let base = unsafe { NonNull::new_unchecked(start.add(skip)) };
        let state = Mutex::new(State { free: (0..count).rev().collect(), closed: false });
        Ok(Self {
            shared: Arc::new(Shared { _mapping: mapping, base, block_size, count, state, returned: Condvar::new() }),
        })
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        self.shared.block_size
    }

    /// Blocks in the pool, free or not.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Blocks that are in use now.
    pub fn in_use(&self) -> usize {
        self.shared.count - self.shared.lock().free.len()
    }

    /// Touches `count` blocks that are free now, so that the first pass through them does not wait for the kernel.
    pub fn populate(&self, count: usize) {
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(mut block) = self.try_take()
        {
            for page in block.chunks_mut(PAGE) {
                page[0] = 0;
            }
            taken.push(block);
        }
    }

    /// A block, waiting for one to be returned; none when the pool was closed.
    pub fn take(&self) -> Option<Block> {
        let mut state = self.shared.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(index) = state.free.pop() {
                return Some(Block { shared: Arc::clone(&self.shared), index });
            }
            state = self.shared.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A block if one is free now.
    pub fn try_take(&self) -> Option<Block> {
        let mut state = self.shared.lock();
        if state.closed {
            return None;
        }
        state.free.pop().map(|index| Block { shared: Arc::clone(&self.shared), index })
    }

    /// Wakes everybody who waits in [`BlockPool::take`], with none. Blocks in use stay valid.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.returned.notify_all();
    }
}

fn too_large() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::OutOfMemory, "block pool does not fit the address space")
}

/// One buffer of a pool, owned; goes back when dropped. Its content is whatever was there before.
#[derive(Debug)]
pub struct Block {
    shared: Arc<Shared>,
    index: usize,
}

impl Block {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: `index` is below `count`, so the window lies inside the mapping.
        unsafe { self.shared.base.add(self.index * self.shared.block_size) }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the window is mapped (zero-filled by the kernel, so initialized), and this block is its only
        // owner: an index leaves the free list when a `Block` is made and returns when that is dropped.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.shared.block_size) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.shared.block_size) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.shared.lock().free.push(self.index);
        self.shared.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_are_aligned() {
        let pool = BlockPool::new(3, 2 << 20).unwrap();
        let mut blocks: Vec<Block> = (0..3).map(|_| pool.take().unwrap()).collect();
        assert!(pool.try_take().is_none());
        for (n, block) in blocks.iter_mut().enumerate() {
            assert_eq!(block.as_ptr() as usize % HUGE, 0);
            block.fill(u8::try_from(n).unwrap() + 1);
        }
        for (n, block) in blocks.iter().enumerate() {
            assert!(block.iter().all(|&b| usize::from(b) == n + 1));
        }
    }

    #[test]
    fn an_empty_pool_waits_for_a_return() {
        let pool = BlockPool::new(1, PAGE).unwrap();
        let block = pool.take().unwrap();
        let waiting = std::thread::spawn({
            let pool = pool.clone();
            move || pool.take().is_some()
        });
        drop(block);
        assert!(waiting.join().unwrap());
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn closing_wakes_those_who_wait() {
        let pool = BlockPool::new(1, PAGE).unwrap();
        let held = pool.take().unwrap();
        let waiting = std::thread::spawn({
            let pool = pool.clone();
            move || pool.take().is_none()
        });
        pool.close();
        assert!(waiting.join().unwrap());
        assert_eq!(held.len(), PAGE, "a block in use outlives the closing");
    }
}
