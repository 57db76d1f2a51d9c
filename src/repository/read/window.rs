//! Windows of packs in an object store: fetched once for all loaders, the next one ahead of its use.
//!
//! A request to an object store costs tens of milliseconds, whatever it asks for. So where a generation uses most
//! of a pack, the pack is fetched in windows of some MiB, and a few are kept: loaders that want neighbouring
//! chunks, or one after the other, share them. Where it uses little of a pack, ranges are fetched as they are.
//!
//! There are never more windows than are kept, on their way and in use included: whoever needs another one waits until
//! one can make way, and nothing is fetched ahead then.

use super::error::ReadError;
use crate::repository::crypto::ObjectId;
use crate::repository::index::PackUse;
use crate::repository::layout;
use crate::store::Store;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a window.
const WINDOW: u64 = 4 << 20;
/// Packs up to this size hold recipes and small images, which are read often and together.
const SMALL: u64 = 2 * WINDOW;
/// Windows that are kept.
const KEPT: usize = 16;
/// Those that are kept for single chunks: a save that looks things up in the generation before needs its memory for itself.
const KEPT_SINGLE: usize = 8;
/// What was taken out of a window, in bytes, before it is probably done with: a generation uses more than half of such a pack.
const DONE: u64 = WINDOW / 2;
/// The last to use a window may let go of it a moment after it has said so.
const LOOK: Duration = Duration::from_millis(5);

/// A window of a pack, by its number.
type Place = (ObjectId, u64);

/// The windows of one generation's packs.
#[derive(Debug)]
pub(super) struct Windows {
    store: Store,
    runtime: tokio::runtime::Handle,
    /// Sizes of the packs of which the generation uses more than half.
    dense: HashMap<ObjectId, u64>,
    kept: Mutex<VecDeque<(Place, Arc<Window>)>>,
    /// A window has arrived, or is used no more.
    released: Arc<Condvar>,
}

/// One window, here or on its way.
#[derive(Debug, Default)]
struct Window {
    content: Mutex<Option<Result<Bytes, ReadError>>>,
    arrived: Condvar,
    /// Bytes that were taken out of it.
    taken: AtomicU64,
}

impl Window {
    fn wait(&self) -> Result<Bytes, ReadError> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(arrived) = &*content {
                return arrived.clone();
            }
            content = self.arrived.wait(content).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_there(&self) -> bool {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// It is there, and no error in its place.
    fn is_whole(&self) -> bool {
        matches!(*self.content.lock().unwrap_or_else(PoisonError::into_inner), Some(Ok(_)))
    }

    fn arrive(&self, new: Result<Bytes, ReadError>) {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(new);
        self.arrived.notify_all();
    }
}

/// Whoever waits is told when the fetch ends, also when its runtime does.
struct Promise(Arc<Window>, Arc<Condvar>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.arrive(Err(ReadError::Aborted));
        self.1.notify_all();
    }
}

impl Windows {
    pub fn new(store: &Store, runtime: &tokio::runtime::Handle, packs: &[PackUse]) -> Self {
        let dense = packs.iter().filter(|pack| pack.used >= pack.size / 2).map(|pack| (pack.id, pack.size));
        Self {
            store: store.clone(),
            runtime: runtime.clone(),
            dense: dense.collect(),
            kept: Mutex::default(),
            released: Arc::default(),
        }
    }

    /// Puts a range of a pack into `buffer`; false when windows are nothing for it. `ahead`: what follows will be
    /// wanted soon.
    pub fn read(
        &self,
        pack: &ObjectId,
        range: &Range<u64>,
        ahead: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, ReadError> {
        let Some(&size) = self.dense.get(pack).filter(|size| range.end <= **size) else { return Ok(false) };
        let numbers = range.start / WINDOW..range.end.div_ceil(WINDOW);
        // A single chunk of a large pack: perhaps nothing near it is ever asked for. What is here is used.
        if !ahead && size > SMALL && !numbers.clone().all(|number| self.is_here((*pack, number))) {
            return Ok(false);
        }
        let most = if ahead { KEPT } else { KEPT_SINGLE };
        buffer.clear();
        for number in numbers.clone() {
            let start = number * WINDOW;
            let window = self.window((*pack, number), size, most, numbers.end..numbers.end + u64::from(ahead));
            let bytes = window.wait().inspect_err(|_| self.forget(&window))?;
            let narrow = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let part = narrow(range.start.max(start) - start)..narrow(range.end.min(start + WINDOW) - start);
            let part = bytes.get(part).ok_or_else(|| ReadError::damaged(&layout::pack(pack), "it is cut off"))?;
            buffer.extend_from_slice(part);
            window.taken.fetch_add(part.len() as u64, Ordering::Relaxed);
            drop((bytes, window));
            self.released.notify_all();
        }
        Ok(true)
    }

    /// Nothing that was read of this pack is used again.
    pub fn forget_pack(&self, pack: &ObjectId) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|((of, _), _)| of != pack);
        self.released.notify_all();
    }

    fn is_here(&self, place: Place) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().any(|(other, window)| *other == place && window.is_whole())
    }

    /// A window, of `most` at the same time. Those of the numbers `next` set out with it, if there is room for them.
    fn window(&self, place: Place, size: u64, most: usize, next: Range<u64>) -> Arc<Window> {
        let window = loop {
            if let Some(window) = self.find_or_fetch(place, size, most, false) {
                break window;
            }
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.released.wait_timeout(kept, LOOK));
        };
        for number in next.filter(|number| number * WINDOW < size) {
            self.find_or_fetch((place.0, number), size, most, true);
        }
        window
    }

    /// Whoever asks next for a window that did not arrive tries again.
    fn forget(&self, window: &Arc<Window>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, kept)| !Arc::ptr_eq(kept, window));
    }

    /// A window that is there or on its way; none while all that are kept are needed. What makes way is what was used for
    /// longest, among those of which much was taken already. For one that is fetched ahead nothing else makes way: many
    /// loaders at different places would take each other's windows away, and fetch all of them several times.
    fn find_or_fetch(&self, place: Place, size: u64, most: usize, ahead: bool) -> Option<Arc<Window>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(other, _)| *other == place) {
            // Last used, last to go.
            if let Some(found) = kept.remove(at) {
                let window = Arc::clone(&found.1);
                kept.push_back(found);
                return Some(window);
            }
        }
        if kept.len() >= most {
            let idle = |window: &Arc<Window>| Arc::strong_count(window) == 1 && window.is_there();
            let done = |window: &Arc<Window>| idle(window) && window.taken.load(Ordering::Relaxed) >= DONE;
            let rather = kept.iter().position(|(_, window)| done(window));
            let at = rather.or_else(|| kept.iter().position(|(_, window)| !ahead && idle(window)))?;
            kept.remove(at);
        }
        let window = Arc::new(Window::default());
        kept.push_back((place, Arc::clone(&window)));
        drop(kept);
        let (store, promise) = (self.store.clone(), Promise(Arc::clone(&window), Arc::clone(&self.released)));
        self.runtime.spawn(async move {
            let range = place.1 * WINDOW..((place.1 + 1) * WINDOW).min(size);
            let length = range.end - range.start;
            let fetched = store.get_range(&layout::pack(&place.0), range).await.map_err(ReadError::from);
            promise.0.arrive(fetched.and_then(|bytes| {
                let whole = bytes.len() as u64 == length;
                let cut = || ReadError::damaged(&layout::pack(&place.0), "the store answered with another length");
                if whole { Ok(bytes) } else { Err(cut()) }
            }));
        });
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;
    use crate::store::fault::{Fault, Moment, Operation};
    use async_trait::async_trait;

    /// Counts requests for ranges.
    #[derive(Debug, Default)]
    struct Count(AtomicU64);

    #[async_trait]
    impl Fault for Count {
        async fn strike(&self, moment: Moment, operation: &Operation) -> Result<(), StoreError> {
            if moment == Moment::Before && operation.name == "get_range" {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    }

    const ID: ObjectId = ObjectId([7; 32]);

    fn content(size: u64) -> Vec<u8> {
        (0..size).map(|n| (n / 251).to_le_bytes()[0]).collect()
    }

    fn windows(runtime: &tokio::runtime::Runtime, size: u64, used: u64) -> (Windows, Arc<Count>) {
        let count = Arc::new(Count::default());
        let store = Store::memory();
        runtime.block_on(store.put(&layout::pack(&ID), content(size).into())).unwrap();
        let store = store.with_fault(Arc::clone(&count) as Arc<dyn Fault>);
        (Windows::new(&store, runtime.handle(), &[PackUse { id: ID, size, used }]), count)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn many_readers_of_one_pack_cost_a_request_for_each_window() {
        let runtime = runtime();
        // No more than are kept: then it does not matter who is when where.
        let size = (KEPT as u64 - 1) * WINDOW + 12345;
        let (windows, count) = windows(&runtime, size, size);
        let whole = content(size);
        // Eight readers, each of which takes every eighth piece, in order.
        std::thread::scope(|scope| {
            for reader in 0..8u64 {
                let (windows, whole) = (&windows, &whole);
                scope.spawn(move || {
                    let mut buffer = Vec::new();
                    for piece in 0.. {
                        let start = (piece * 8 + reader) * 100_003;
                        let range = start..(start + 100_003).min(size);
                        if start >= size {
                            break;
                        }
                        assert!(windows.read(&ID, &range, true, &mut buffer).unwrap());
                        let narrow = |n: u64| usize::try_from(n).unwrap();
                        assert_eq!(buffer, whole[narrow(range.start)..narrow(range.end)]);
                    }
                });
            }
        });
        assert_eq!(count.0.load(Ordering::SeqCst), KEPT as u64);
    }

    #[test]
    fn one_reader_in_order_costs_one_request_a_window() {
        let runtime = runtime();
        let size = 5 * WINDOW + 1;
        let (windows, count) = windows(&runtime, size, size);
        let mut buffer = Vec::new();
        for start in (0..size).step_by(50_000) {
            assert!(windows.read(&ID, &(start..(start + 50_000).min(size)), true, &mut buffer).unwrap());
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn a_pack_that_is_hardly_used_is_not_fetched_whole() {
        let runtime = runtime();
        let (sparse, _) = windows(&runtime, 4 * WINDOW, WINDOW);
        assert!(!sparse.read(&ID, &(0..1000), true, &mut Vec::new()).unwrap());
        let (dense, _) = windows(&runtime, 4 * WINDOW, 4 * WINDOW);
        assert!(!dense.read(&ID, &(0..1000), false, &mut Vec::new()).unwrap(), "a single chunk");
        let (small, count) = windows(&runtime, WINDOW / 2, WINDOW / 2);
        for _ in 0..20 {
            assert!(small.read(&ID, &(5000..9000), false, &mut Vec::new()).unwrap());
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_single_chunk_is_taken_from_a_window_that_is_here() {
        let runtime = runtime();
        let size = 4 * WINDOW;
        let (windows, count) = windows(&runtime, size, size);
        let mut buffer = Vec::new();
        assert!(windows.read(&ID, &(0..1000), true, &mut buffer).unwrap());
        assert!(windows.read(&ID, &(WINDOW - 500..WINDOW), false, &mut buffer).unwrap());
        assert_eq!(buffer, content(size)[usize::try_from(WINDOW).unwrap() - 500..usize::try_from(WINDOW).unwrap()]);
        assert!(!windows.read(&ID, &(3 * WINDOW..3 * WINDOW + 1000), false, &mut buffer).unwrap(), "it is not here");
        // The first, and the one ahead of it.
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_was_fetched_ahead_stays_until_it_is_used() {
        let runtime = runtime();
        // Each place brings its window and the one behind it: more than are kept.
        let places = KEPT as u64 / 2 + 2;
        let size = 4 * places * WINDOW;
        let (windows, count) = windows(&runtime, size, size);
        let mut buffer = Vec::new();
        for start in (0..places).map(|place| 4 * place * WINDOW).chain([WINDOW]) {
            assert!(windows.read(&ID, &(start..start + WINDOW), true, &mut buffer).unwrap());
        }
        // The last one found what the first had fetched ahead.
        assert_eq!(count.0.load(Ordering::SeqCst), 2 * places + 1);
    }

    /// Counts requests that are under way at the same time.
    #[derive(Debug, Default)]
    struct Together {
        now: AtomicU64,
        most: AtomicU64,
    }

    #[async_trait]
    impl Fault for Together {
        async fn strike(&self, moment: Moment, _: &Operation) -> Result<(), StoreError> {
            if moment == Moment::Before {
                let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            } else {
                self.now.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(())
        }
    }

    #[test]
    fn readers_of_many_packs_never_have_more_windows_than_are_kept() {
        let runtime = runtime();
        let together = Arc::new(Together::default());
        let packs: Vec<ObjectId> = (0..3 * u8::try_from(KEPT).unwrap()).map(|n| ObjectId([n; 32])).collect();
        let (store, size) = (Store::memory(), 3 * WINDOW);
        let whole = Bytes::from(content(size));
        for pack in &packs {
            runtime.block_on(store.put(&layout::pack(pack), whole.clone())).unwrap();
        }
        let uses: Vec<PackUse> = packs.iter().map(|id| PackUse { id: *id, size, used: size }).collect();
        let store = store.with_fault(Arc::clone(&together) as Arc<dyn Fault>);
        let windows = Windows::new(&store, runtime.handle(), &uses);
        std::thread::scope(|scope| {
            for pack in &packs {
                let (windows, whole) = (&windows, &whole);
                scope.spawn(move || {
                    let mut buffer = Vec::new();
                    for start in (0..size).step_by(1_500_001) {
                        let range = start..(start + 1_500_001).min(size);
                        assert!(windows.read(pack, &range, true, &mut buffer).unwrap());
                        let narrow = |n: u64| usize::try_from(n).unwrap();
                        assert!(buffer == whole[narrow(range.start)..narrow(range.end)]);
                    }
                });
            }
        });
        let most = together.most.load(Ordering::SeqCst);
        assert!((2..=KEPT as u64).contains(&most), "{most} windows at the same time");
    }

    #[test]
    fn a_failure_is_told_to_all_and_tried_again_by_the_next() {
        let runtime = runtime();
        let (windows, _) = windows(&runtime, WINDOW, WINDOW);
        runtime.block_on(windows.store.delete(&layout::pack(&ID))).unwrap();
        assert!(windows.read(&ID, &(0..1000), true, &mut Vec::new()).unwrap_err().is_damage());
        runtime.block_on(windows.store.put(&layout::pack(&ID), content(WINDOW).into())).unwrap();
        assert!(windows.read(&ID, &(0..1000), true, &mut Vec::new()).unwrap());
    }
}
