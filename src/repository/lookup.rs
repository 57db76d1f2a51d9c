//! Which chunks are known, and where: a compact table in memory, bounded.
//!
//! A slot takes 28 bytes: 128 bits of the chunk's name, pack number, offset, stored length. The
//! table is split in shards that grow one by one, so growing never needs much memory at once. When
//! the bound is reached new names are no longer taken in; for those `neighbours` is there.

use super::crypto::{ChunkId, ObjectId};
use super::recipe::Location;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

const SHARDS: usize = 16;
const FREE: u32 = u32::MAX;
/// Slots of a shard at first.
const START: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Slot {
    name: [u32; 4],
    pack: u32,
    offset: u32,
    stored: u32,
}

const EMPTY: Slot = Slot { name: [0; 4], pack: FREE, offset: 0, stored: 0 };

/// The known chunks.
#[derive(Debug)]
pub struct Lookup {
    shards: Vec<Mutex<Shard>>,
    packs: RwLock<Packs>,
    slots_per_shard: usize,
}

#[derive(Debug, Default)]
struct Packs {
    ids: Vec<ObjectId>,
    numbers: HashMap<ObjectId, u32>,
}

#[derive(Debug)]
struct Shard {
    slots: Vec<Slot>,
    used: usize,
}

impl Lookup {
    /// A table that takes at most `bytes` of memory.
    pub fn new(bytes: usize) -> Self {
        let slots_per_shard = (bytes / size_of::<Slot>() / SHARDS).max(16);
        let shard = || Mutex::new(Shard { slots: vec![EMPTY; START.min(slots_per_shard)], used: 0 });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), packs: RwLock::default(), slots_per_shard }
    }

    /// Where a chunk is, if it is known.
    pub fn find(&self, id: &ChunkId) -> Option<Location> {
        let (shard, name) = self.shard(id);
        let slot = {
            let shard = lock(shard);
            shard.slots[shard.place(&name)]
        };
        if slot.pack == FREE {
            return None;
        }
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let pack = *packs.ids.get(slot.pack as usize)?;
        Some(Location { pack, offset: slot.offset, stored: slot.stored })
    }

    /// Takes a chunk in, unless it is known already or the table is full. Says whether it is known now.
    pub fn insert(&self, id: &ChunkId, at: &Location) -> bool {
        self.insert_within(id, at, 8)
    }

    /// As [`Lookup::insert`], but leaves a quarter of the table free.
    pub fn insert_old(&self, id: &ChunkId, at: &Location) -> bool {
        self.insert_within(id, at, 6)
    }

    fn insert_within(&self, id: &ChunkId, at: &Location, eighths: usize) -> bool {
        let number = self.pack_number(at.pack);
        let (shard, name) = self.shard(id);
        let mut shard = lock(shard);
        let mut place = shard.place(&name);
        if shard.slots[place].pack != FREE {
            return true;
        }
        if shard.used >= self.slots_per_shard * eighths / 8 {
            return false;
        }
        // At most seven eighths are used: probes stay short.
        if (shard.used + 1) * 8 > shard.slots.len() * 7 {
            if !shard.grow(self.slots_per_shard) {
                return false;
            }
            place = shard.place(&name);
        }
        shard.slots[place] = Slot { name, pack: number, offset: at.offset, stored: at.stored };
        shard.used += 1;
        true
    }

    /// Chunks in the table.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).used).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the table takes now.
    pub fn memory(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).slots.capacity() * size_of::<Slot>()).sum()
    }

    fn pack_number(&self, id: ObjectId) -> u32 {
        let found = self.packs.read().unwrap_or_else(PoisonError::into_inner).numbers.get(&id).copied();
        found.unwrap_or_else(|| {
            let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
            let Packs { ids, numbers } = &mut *packs;
            *numbers.entry(id).or_insert_with(|| {
                ids.push(id);
                // Four billion packs would hold more than 2^55 bytes.
                u32::try_from(ids.len() - 1).unwrap_or(FREE - 1)
            })
        })
    }

    fn shard(&self, id: &ChunkId) -> (&Mutex<Shard>, [u32; 4]) {
        let word = |n: usize| u32::from_le_bytes([id.0[n], id.0[n + 1], id.0[n + 2], id.0[n + 3]]);
        (&self.shards[usize::from(id.0[16]) % SHARDS], [word(0), word(4), word(8), word(12)])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// The slot of this name, or the free one where it belongs.
    fn place(&self, name: &[u32; 4]) -> usize {
        // Multiply and shift: any number of slots will do, not only powers of two.
        let mut place = usize::try_from((u64::from(name[0]) * self.slots.len() as u64) >> 32).unwrap_or(0);
        loop {
            let slot = &self.slots[place];
            if slot.pack == FREE || slot.name == *name {
                return place;
            }
            place = if place + 1 == self.slots.len() { 0 } else { place + 1 };
        }
    }

    fn grow(&mut self, limit: usize) -> bool {
        let larger = (self.slots.len() * 3 / 2).min(limit);
        if larger == self.slots.len() {
            return false;
        }
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; larger]);
        for slot in old.into_iter().filter(|slot| slot.pack != FREE) {
            let place = self.place(&slot.name);
            self.slots[place] = slot;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u32) -> (ChunkId, Location) {
        let id = ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let pack = ObjectId([u8::try_from(n % 7).unwrap(); 32]);
        (id, Location { pack, offset: n, stored: n + 1 })
    }

    #[test]
    fn finds_what_was_taken_in_and_nothing_else() {
        let table = Lookup::new(16 << 20);
        for n in 0..50_000 {
            let (id, at) = chunk(n);
            assert_eq!(table.find(&id), None);
            assert!(table.insert(&id, &at));
        }
        for n in 0..50_000 {
            let (id, at) = chunk(n);
            assert_eq!(table.find(&id), Some(at));
        }
        assert_eq!(table.find(&chunk(50_000).0), None);
        assert_eq!(table.len(), 50_000);
    }

    #[test]
    fn the_first_place_of_a_chunk_stands() {
        let table = Lookup::new(1 << 20);
        let (id, at) = chunk(1);
        table.insert(&id, &at);
        table.insert(&id, &chunk(2).1);
        assert_eq!(table.find(&id), Some(at));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn memory_stays_within_its_bound() {
        let bound = 1 << 20;
        let table = Lookup::new(bound);
        let taken = (0..100_000).filter(|&n| table.insert(&chunk(n).0, &chunk(n).1)).count();
        assert!(table.memory() <= bound, "{} bytes", table.memory());
        assert!(taken > bound / 28 * 8 / 10 && taken < bound / 28, "{taken} taken");
        assert_eq!((0..100_000).filter(|&n| table.find(&chunk(n).0).is_some()).count(), taken);
    }
}
