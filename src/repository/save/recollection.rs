//! What a save read ahead, remembered in order, so that the frozen pass can recognize it, and the next save.
//!
//! A chunk takes some 100 bytes here. Beyond the bound nothing more is remembered: those chunks are
//! named again.

use crate::repository::crypto::ChunkId;
use crate::repository::fingerprint::{Fingerprint, FingerprintKey};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that a chunk takes: 56 for itself, up to 40 in the map, 4 in the order.
const COST: usize = 100;

/// A chunk that was read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub fingerprint: Fingerprint,
    pub id: ChunkId,
    pub length: u32,
}

/// Takes in what is read ahead.
#[derive(Debug)]
pub(super) struct Recollection {
    key: Arc<FingerprintKey>,
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Seen>,
    numbers: HashMap<u64, u32>,
    /// The chunks of each piece, by the stream's number and the piece's.
    order: BTreeMap<(u64, u64), Vec<u32>>,
}

impl Recollection {
    /// Nothing yet, and at most `memory` bytes; by the key of an earlier save, or a fresh one. None on processors
    /// without fingerprints.
    pub fn new(memory: usize, key: Option<Arc<FingerprintKey>>) -> Option<Self> {
        let key = key.or_else(|| FingerprintKey::random().map(Arc::new))?;
        Some(Self { key, limit: memory / COST, state: Mutex::default() })
    }

    pub fn key(&self) -> &FingerprintKey {
        &self.key
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a chunk that was read ahead before: a page that several processes share is named once.
    pub fn find(&self, fingerprint: &Fingerprint) -> Option<ChunkId> {
        self.lock().find(fingerprint).map(|(_, seen)| seen.id)
    }

    /// Remembers the chunks of one piece of a stream, in order.
    pub fn add(&self, stream: u64, piece: u64, seen: &[Seen]) {
        let mut state = self.lock();
        let mut numbers = Vec::with_capacity(seen.len());
        for chunk in seen {
            if let Some((number, _)) = state.find(&chunk.fingerprint) {
                numbers.push(number);
            } else if state.chunks.len() < self.limit {
                let number = u32::try_from(state.chunks.len()).unwrap_or(u32::MAX);
                state.numbers.insert(chunk.fingerprint[0], number);
                state.chunks.push(*chunk);
                numbers.push(number);
            }
        }
        state.order.insert((stream, piece), numbers);
    }

    /// What there is to recognize. Nothing is remembered any more after that.
    pub fn close(&self) -> Remembered {
        let state = std::mem::take(&mut *self.lock());
        drop(state.numbers);
        Remembered::new(Arc::clone(&self.key), state.chunks, state.order.into_values().flatten().collect())
    }
}

impl State {
    fn find(&self, fingerprint: &Fingerprint) -> Option<(u32, &Seen)> {
        let number = *self.numbers.get(&fingerprint[0])?;
        let seen = self.chunks.get(number as usize).filter(|seen| seen.fingerprint == *fingerprint)?;
        Some((number, seen))
    }
}

/// What was read ahead.
#[derive(Debug)]
pub(super) struct Remembered {
    pub key: Arc<FingerprintKey>,
    chunks: Vec<Seen>,
    numbers: HashMap<u64, u32>,
    order: Vec<u32>,
    /// Where each chunk comes first in the order.
    first: Vec<u32>,
}

impl Remembered {
    /// These chunks, in this order of their numbers.
    pub fn new(key: Arc<FingerprintKey>, chunks: Vec<Seen>, order: Vec<u32>) -> Self {
        let numbers = (0..).zip(&chunks).map(|(number, seen)| (seen.fingerprint[0], number)).collect();
        let mut first = vec![0; chunks.len()];
        for (place, number) in (0..order.len()).zip(&order).rev() {
            if let Some(first) = first.get_mut(*number as usize) {
                *first = u32::try_from(place).unwrap_or(u32::MAX);
            }
        }
        Self { key, chunks, numbers, order, first }
    }

    /// The chunks, and their order.
    pub fn parts(&self) -> (&[Seen], &[u32]) {
        (&self.chunks, &self.order)
    }

    /// The chunk at this place of the order.
    pub fn at(&self, place: usize) -> Option<&Seen> {
        self.chunks.get(*self.order.get(place)? as usize)
    }

    /// The chunk with this fingerprint, and its first place in the order.
    pub fn find(&self, fingerprint: &Fingerprint) -> Option<(usize, &Seen)> {
        let number = *self.numbers.get(&fingerprint[0])? as usize;
        let seen = self.chunks.get(number).filter(|seen| seen.fingerprint == *fingerprint)?;
        Some((*self.first.get(number)? as usize, seen))
    }
}
