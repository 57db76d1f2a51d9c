//! How hard `auto` compresses: what the link and the cores turn out to bear, measured while saving.
//!
//! ```text
//! none ── lz4 ── zstd 1 ── zstd 2 … zstd 6
//!   ◀── nothing is on its way to the store, and the cores are behind
//!            the store is behind ──▶
//! ```
//!
//! A pack that finds no upload free climbs a step, if the uploads carry stored bytes more slowly than the cores have made
//! them: a store that is only busy at the moment is no reason to work several times as hard. One that finds the link idle goes down a step: at once where
//! zstd was working harder than at level 1; below that only if the link has carried *stored* bytes so much faster
//! than the cores have compressed *plain* ones that it would be idle even if nothing were compressed at all. Each
//! chunk says how it is stored, so a save may mix all of them.

use crate::repository::codec::Compression;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The ladder: 0 none, 1 lz4, from 2 on zstd at one level less.
const ZSTD_1: i32 = 2;
/// zstd at level 6.
const TOP: i32 = 7;
/// Compression saves space for good and costs time once: it is given up only where the link is so much
/// faster than the cores.
const CLEARLY: u128 = 2;
/// Plain bytes that were compressed at a step before it is judged.
const ENOUGH: u64 = 8 << 20;

/// Measures one save.
#[derive(Debug)]
pub(super) struct Pace {
    workers: u64,
    uploads: u64,
    step: AtomicI32,
    /// Plain bytes compressed at this step, what they became, and the time that it took, in nanoseconds of all workers
    /// together.
    plain: AtomicU64,
    stored: AtomicU64,
    compressing: AtomicU64,
    link: Mutex<Link>,
}

/// Uploads, the recent ones with more weight.
#[derive(Debug, Default)]
struct Link {
    bytes: u64,
    took: Duration,
}

impl Pace {
    /// For a save with so many threads that compress, and so many uploads at a time.
    pub fn new(workers: usize, uploads: usize) -> Self {
        Self {
            workers: workers as u64,
            uploads: uploads as u64,
            step: AtomicI32::new(ZSTD_1),
            plain: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            compressing: AtomicU64::new(0),
            link: Mutex::default(),
        }
    }

    /// What the next chunk is compressed by.
    pub fn compression(&self) -> Compression {
        match self.step.load(Ordering::Relaxed) {
            0 => Compression::None,
            1 => Compression::Lz4,
            step => Compression::Zstd(step + 1 - ZSTD_1),
        }
    }

    /// A chunk of so many plain bytes was compressed to so many.
    pub fn compressed(&self, plain: usize, stored: usize, took: Duration) {
        self.stored.fetch_add(stored as u64, Ordering::Relaxed);
        self.plain.fetch_add(plain as u64, Ordering::Relaxed);
        self.compressing.fetch_add(nanoseconds(took), Ordering::Relaxed);
    }

    /// A pack of so many bytes is durable.
    pub fn uploaded(&self, bytes: u64, took: Duration) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        *link = Link { bytes: link.bytes / 2 + bytes, took: link.took / 2 + took };
    }

    /// A pack has to wait for the link.
    pub fn link_is_behind(&self) {
        if self.cores_outrun_link() {
            self.go(self.step.load(Ordering::Relaxed) + 1);
        }
    }

    /// A pack is ready, and nothing is on its way to the store. `backlog`: more waits to be compressed.
    pub fn link_is_idle(&self, backlog: bool) {
        let step = self.step.load(Ordering::Relaxed);
        if step > ZSTD_1 || (backlog && self.link_outruns_cores()) {
            self.go(step - 1);
        }
    }

    /// Whether the cores make stored bytes faster than all uploads together carry them.
    fn cores_outrun_link(&self) -> bool {
        let (stored, compressing) = (self.stored.load(Ordering::Relaxed), self.compressing.load(Ordering::Relaxed));
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let by_link = u128::from(link.bytes) * u128::from(self.uploads) * u128::from(compressing);
        let by_cores = u128::from(stored) * u128::from(self.workers) * u128::from(nanoseconds(link.took));
        self.plain.load(Ordering::Relaxed) >= ENOUGH && by_link < by_cores
    }

    /// Whether the link carries bytes faster than the cores compress them, by far.
    fn link_outruns_cores(&self) -> bool {
        let (plain, compressing) = (self.plain.load(Ordering::Relaxed), self.compressing.load(Ordering::Relaxed));
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        // Bytes of the link in the time of the cores, against bytes of the cores in the time of the link.
        let by_link = u128::from(link.bytes) * u128::from(compressing);
        let by_cores = u128::from(plain) * u128::from(self.workers) * u128::from(nanoseconds(link.took));
        plain >= ENOUGH && link.bytes > 0 && by_link > CLEARLY * by_cores
    }

    fn go(&self, step: i32) {
        let step = step.clamp(0, TOP);
        if self.step.swap(step, Ordering::Relaxed) != step {
            self.plain.store(0, Ordering::Relaxed);
            self.stored.store(0, Ordering::Relaxed);
            self.compressing.store(0, Ordering::Relaxed);
            tracing::debug!(compression = %self.compression(), "compression follows the link and the cores");
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A save of 64 MiB in packs of 4 MiB, whose two cores compress and whose link carries so many MiB a second.
    fn settles(cores: u64, link: u64) -> Compression {
        let pace = Pace::new(2, 1);
        for _ in 0..40 {
            let plain = 16 * MIB;
            pace.compressed(16 << 20, 4 << 20, Duration::from_millis(2 * 16_000 / cores));
            pace.uploaded(plain / 4, Duration::from_micros(4_000_000 / link));
            if link * 4 < cores { pace.link_is_behind() } else { pace.link_is_idle(true) }
        }
        pace.compression()
    }

    #[test]
    fn a_fast_link_and_slow_cores_give_compression_up() {
        assert_eq!(settles(100, 1000), Compression::None);
        assert_eq!(settles(20, 90), Compression::None);
    }

    #[test]
    fn a_slow_link_and_fast_cores_compress_hard() {
        assert_eq!(settles(1000, 10), Compression::Zstd(6));
        assert_eq!(settles(4000, 100), Compression::Zstd(6));
    }

    #[test]
    fn neither_clearly_faster_stays_at_the_beginning() {
        assert_eq!(settles(500, 400), Compression::Zstd(1));
        assert_eq!(settles(500, 900), Compression::Zstd(1));
    }

    #[test]
    fn lz4_that_keeps_up_is_kept() {
        let pace = Pace::new(1, 1);
        pace.uploaded(MIB, Duration::from_millis(1));
        pace.compressed(16 << 20, 4 << 20, Duration::from_millis(160));
        pace.link_is_idle(true);
        assert_eq!(pace.compression(), Compression::Lz4);
        // Nothing is known of lz4 yet; then it turns out to be five times as fast.
        pace.link_is_idle(true);
        pace.compressed(16 << 20, 8 << 20, Duration::from_millis(30));
        pace.link_is_idle(true);
        assert_eq!(pace.compression(), Compression::Lz4);
        // The link is busy; then it gets slower than they are.
        pace.link_is_behind();
        assert_eq!(pace.compression(), Compression::Lz4);
        pace.uploaded(MIB, Duration::from_millis(10));
        pace.link_is_behind();
        assert_eq!(pace.compression(), Compression::Zstd(1));
    }

    #[test]
    fn an_idle_link_with_nothing_to_compress_means_nothing() {
        let pace = Pace::new(1, 1);
        pace.uploaded(100 * MIB, Duration::from_millis(1));
        pace.compressed(64 << 20, 16 << 20, Duration::from_secs(1));
        pace.link_is_idle(false);
        assert_eq!(pace.compression(), Compression::Zstd(1));
    }
}
