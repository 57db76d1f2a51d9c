//! Puts an image's recipe together, in order, from pieces that are hashed in any order.

use super::engine::{Engine, Place};
use super::error::SaveError;
use crate::repository::crypto::ChunkId;
use crate::repository::index::{INLINE_ENTRIES, Image, Leaf, Recipe};
use crate::repository::recipe::{self, Entry};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An entry whose chunk may still be on its way into a pack.
#[derive(Debug, Clone)]
pub(super) enum Draft {
    Zero(u64),
    Chunk { id: ChunkId, length: u32, place: Place },
}

impl Draft {
    fn entry(&self) -> Option<Entry> {
        match self {
            Self::Zero(length) => Some(Entry::Zero(*length)),
            Self::Chunk { id, length, place } => {
                place.location().map(|at| Entry::Chunk { id: *id, length: *length, at })
            }
        }
    }
}

/// The recipe of one image, growing.
#[derive(Debug, Default)]
pub(super) struct Assembly(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Pieces that came before their predecessors.
    early: BTreeMap<u64, Vec<Draft>>,
    next: u64,
    tail: VecDeque<Draft>,
    /// Entries from the front of the tail, up to the first whose chunk has no place yet.
    ready: Vec<Entry>,
    leaves: Vec<(u64, u32, ChunkId, Place)>,
}

impl Assembly {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds piece `number` of the image, and stores the leaves that it completes.
    pub fn add(&self, engine: &Engine, number: u64, drafts: Vec<Draft>) -> Result<(), SaveError> {
        let mut state = self.lock();
        state.early.insert(number, drafts);
        loop {
            let next = state.next;
            let Some(drafts) = state.early.remove(&next) else { break };
            state.next += 1;
            state.tail.extend(drafts);
        }
        state.advance(engine)
    }

    /// Stores what is left once every chunk has its place: the last leaf, unless the recipe is short.
    pub fn complete(&self, engine: &Engine) -> Result<(), SaveError> {
        let mut state = self.lock();
        state.advance(engine)?;
        if !state.tail.is_empty() || !state.early.is_empty() {
            return Err(SaveError::Internal("a recipe has a hole"));
        }
        if state.leaves.is_empty() && state.ready.len() <= INLINE_ENTRIES {
            return Ok(());
        }
        state.leaf(engine)
    }

    /// The image as the index shows it, once the leaves have their places too.
    pub fn image(&self, mut used: impl FnMut(&Entry)) -> Result<Image, SaveError> {
        let state = self.lock();
        if state.leaves.is_empty() {
            state.ready.iter().for_each(used);
            let length = state.ready.iter().map(Entry::len).sum();
            return Ok(Image { length, recipe: Recipe::Inline(state.ready.clone()) });
        }
        let mut leaves = Vec::with_capacity(state.leaves.len());
        for (covers, length, id, place) in &state.leaves {
            let at = place.location().ok_or(SaveError::Internal("a leaf has no place"))?;
            used(&Entry::Chunk { id: *id, length: *length, at });
            leaves.push(Leaf { covers: *covers, id: *id, length: *length, at });
        }
        Ok(Image { length: leaves.iter().map(|leaf| leaf.covers).sum(), recipe: Recipe::Leaves(leaves) })
    }
}

impl State {
    fn advance(&mut self, engine: &Engine) -> Result<(), SaveError> {
        while let Some(entry) = self.tail.front().and_then(Draft::entry) {
            self.tail.pop_front();
            let id = match &entry {
                Entry::Zero(more) => {
                    // Zeros that two pieces share are one run.
                    if let Some(Entry::Zero(length)) = self.ready.last_mut() {
                        *length += more;
                        continue;
                    }
                    None
                }
                Entry::Chunk { id, .. } => Some(*id),
            };
            self.ready.push(entry);
            if recipe::ends_leaf(self.ready.len(), id.as_ref()) {
                self.leaf(engine)?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, engine: &Engine) -> Result<(), SaveError> {
        if self.ready.is_empty() {
            return Ok(());
        }
        let covers = self.ready.iter().map(Entry::len).sum();
        engine.count_use(&self.ready);
        let bytes = recipe::encode(&self.ready);
        self.ready.clear();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (id, place) = engine.place_recipe(bytes)?;
        self.leaves.push((covers, length, id, place));
        Ok(())
    }
}
