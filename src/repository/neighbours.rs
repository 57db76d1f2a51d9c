//! Known chunks beyond the table's bound: found by the company they keep.
//!
//! Memory that did not change comes in the order in which it came in the previous generation. So it
//! is enough to know one name in eight: where one is met again, the leaf of the recipe that held it
//! is fetched, and the one behind it, and their other chunks are known too. A chunk is missed, and
//! stored again, only where a changed stretch ends and no sampled name has come yet.

use super::crypto::ChunkId;
use super::index::Leaf;
use super::read::{Opened, ReadError};
use super::recipe::{Entry, Location};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One name in this many is a hook.
const SAMPLING: u8 = 8;
/// Leaves whose chunks are known at a time: 640 chunks and 50 KiB each on average.
const LOADED: usize = 48;

/// The part of the previous generation that the table has no room for.
#[derive(Debug)]
pub struct Neighbours {
    parent: Opened,
    leaves: Vec<Leaf>,
    /// The most hooks that are kept.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hooks: HashMap<u64, u32>,
    loaded: VecDeque<(u32, Vec<ChunkId>)>,
    known: HashMap<ChunkId, (Location, u32)>,
}

impl Neighbours {
    /// Nothing known yet. Takes about `memory` bytes at most, and 3 MiB for leaves.
    pub fn new(parent: &Opened, memory: usize) -> Self {
        // A slot of the map takes 16 bytes and a control byte, and seven of eight are used at most.
        let limit = memory / 32;
        Self { parent: parent.clone(), leaves: parent.leaves(), limit, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that this chunk is in this leaf, if its name is sampled.
    pub fn hook(&self, id: &ChunkId, leaf: u32) {
        if let Some(hook) = hook(id) {
            let mut state = self.lock();
            if state.hooks.len() < self.limit {
                state.hooks.insert(hook, leaf);
            }
        }
    }

    /// Whether there is anything to find.
    pub fn is_empty(&self) -> bool {
        self.lock().hooks.is_empty()
    }

    /// Fetches the leaves that these names, which come side by side in an image, lead to.
    pub fn meet<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>) -> Result<(), ReadError> {
        for id in ids {
            let leaf = {
                let state = self.lock();
                match state.known.get(id) {
                    // The last leaf that is loaded has been reached: memory goes on in the next.
                    Some((_, leaf)) if !state.has(leaf + 1) => Some(leaf + 1),
                    Some(_) => None,
                    None => hook(id).and_then(|hook| state.hooks.get(&hook).copied()),
                }
            };
            if let Some(leaf) = leaf {
                self.load(leaf)?;
            }
        }
        Ok(())
    }

    /// Where a chunk is, if a loaded leaf has it.
    pub fn find(&self, id: &ChunkId) -> Option<Location> {
        self.lock().known.get(id).map(|(at, _)| *at)
    }

    fn load(&self, number: u32) -> Result<(), ReadError> {
        let Some(leaf) = self.leaves.get(number as usize) else { return Ok(()) };
        if self.lock().has(number) {
            return Ok(());
        }
        let entries = self.parent.leaf_entries(leaf)?;
        let mut state = self.lock();
        if state.has(number) {
            return Ok(());
        }
        if state.loaded.len() == LOADED {
            state.forget();
        }
        let mut ids = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            if let Entry::Chunk { id, at, .. } = entry {
                state.known.insert(*id, (*at, number));
                ids.push(*id);
            }
        }
        state.loaded.push_back((number, ids));
        Ok(())
    }
}

impl State {
    fn has(&self, number: u32) -> bool {
        self.loaded.iter().any(|(loaded, _)| *loaded == number)
    }

    /// Forgets the leaf that was loaded first.
    fn forget(&mut self) {
        if let Some((number, ids)) = self.loaded.pop_front() {
            for id in ids {
                // The same chunk may be in a leaf that came later.
                if self.known.get(&id).is_some_and(|(_, leaf)| *leaf == number) {
                    self.known.remove(&id);
                }
            }
        }
    }
}

fn hook(id: &ChunkId) -> Option<u64> {
    let mut word = [0; 8];
    word.copy_from_slice(&id.0[..8]);
    id.0[17].is_multiple_of(SAMPLING).then_some(u64::from_le_bytes(word))
}
