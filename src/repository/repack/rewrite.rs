//! Chunks move; leaves, index and list of packs follow them.

use super::filling::Filling;
use super::sparse::{Piece, Pieces};
use super::{RepackError, Work};
use crate::repository::crypto::{ObjectId, ObjectKind};
use crate::repository::index::{Image, Index, Leaf, PackUse, Recipe};
use crate::repository::layout;
use crate::repository::manifest::{IndexRef, Manifest, PackRef};
use crate::repository::read::{Opened, ReadError};
use crate::repository::recipe::{self, Entry, Location};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Chunks in one pack whose gap is at most this are fetched together.
const GAP: u64 = 32 << 10;
/// The most bytes that are fetched together.
const REQUEST: u64 = 4 << 20;

/// Where chunks have gone, and what follows from that.
pub(super) struct Rewriter<'a> {
    work: &'a Work,
    /// Packs that nothing may refer to any more.
    doomed: HashSet<ObjectId>,
    moved: HashMap<(ObjectId, u32), Location>,
    /// Leaves by where they were: an unchanged stretch of memory has one leaf in many generations.
    leaves: HashMap<(ObjectId, u32), Leaf>,
    data: Filling<'a>,
    recipes: Filling<'a>,
}

impl<'a> Rewriter<'a> {
    pub fn new(work: &'a Work) -> Self {
        Self {
            work,
            doomed: HashSet::new(),
            moved: HashMap::new(),
            leaves: HashMap::new(),
            data: Filling::new(work),
            recipes: Filling::new(work),
        }
    }

    /// Moves chunks out of a pack. Each must open where it was; it is not decompressed.
    pub fn move_out(&mut self, pack: &ObjectId, pieces: &Pieces) -> Result<(), RepackError> {
        self.doomed.insert(*pack);
        let mut group: Vec<(u32, Piece)> = Vec::new();
        let mut range = 0..0;
        for (&offset, &piece) in pieces {
            let (from, to) = (u64::from(offset), u64::from(offset) + u64::from(piece.stored));
            let near = from >= range.end && from - range.end <= GAP && to - range.start <= REQUEST;
            if !group.is_empty() && !near {
                self.move_group(pack, &std::mem::take(&mut group), range.clone())?;
            }
            if group.is_empty() {
                range = from..to;
            }
            range.end = to;
            group.push((offset, piece));
        }
        self.move_group(pack, &group, range)
    }

    fn move_group(
        &mut self,
        pack: &ObjectId,
        group: &[(u32, Piece)],
        range: std::ops::Range<u64>,
    ) -> Result<(), RepackError> {
        if group.is_empty() {
            return Ok(());
        }
        let key = layout::pack(pack);
        let start = range.start;
        let mut bytes = Vec::from(self.work.wait(self.work.repository.store.get_range(&key, range))?);
        let object = self.work.repository.crypt.for_object(ObjectKind::Pack, pack);
        for &(offset, Piece { stored, plain }) in group {
            let damaged = |reason: &dyn std::fmt::Display| ReadError::Damaged {
                object: key.clone(),
                reason: format!("{reason} (chunk at {offset})"),
            };
            let from = usize::try_from(u64::from(offset) - start).unwrap_or(usize::MAX);
            let sealed = bytes.get_mut(from..).and_then(|rest| rest.get_mut(..stored as usize));
            let sealed = sealed.ok_or_else(|| damaged(&"it is cut off"))?;
            let opened = object.open_slice(u64::from(offset), &[], sealed).map_err(|error| damaged(&error))?;
            let at = self.data.push(opened, plain as usize)?;
            self.moved.insert((*pack, offset), at);
        }
        Ok(())
    }

    /// Stores what is left of moved chunks.
    pub fn close(&mut self) -> Result<(), RepackError> {
        self.data.close()
    }

    /// The index and packs of a generation, with every place as it is now. One that nothing of has moved
    /// keeps its index.
    pub fn rewrite(&mut self, opened: &Opened, old: &Manifest) -> Result<(IndexRef, Vec<PackRef>), RepackError> {
        if !old.packs.iter().any(|pack| self.doomed.contains(&pack.id)) {
            return Ok((old.index, old.packs.clone()));
        }
        let mut used: BTreeMap<ObjectId, u64> = BTreeMap::new();
        let mut index = Index::default();
        for (name, image) in &opened.index().images {
            self.work.go_on()?;
            let recipe = match &image.recipe {
                Recipe::Inline(entries) => {
                    let entries = self.entries(entries)?.unwrap_or_else(|| entries.clone());
                    count(&entries, &mut used);
                    Recipe::Inline(entries)
                }
                Recipe::Leaves(leaves) => {
                    let leaves = leaves.iter().map(|leaf| self.leaf(opened, leaf, &mut used));
                    Recipe::Leaves(leaves.collect::<Result<_, RepackError>>()?)
                }
            };
            index.images.insert(name.clone(), Image { length: image.length, recipe });
        }
        self.recipes.close()?;
        let old_sizes: HashMap<ObjectId, u64> = opened.packs().iter().map(|pack| (pack.id, pack.size)).collect();
        for (id, used) in used {
            let size = self.data.size(&id).or_else(|| self.recipes.size(&id)).or_else(|| old_sizes.get(&id).copied());
            let size = size.ok_or(RepackError::Interrupted)?;
            index.packs.push(PackUse { id, size, used: used.min(size) });
        }
        let packs = index.packs.iter().map(|pack| PackRef { id: pack.id, len: pack.size }).collect();
        Ok((self.store(&index)?, packs))
    }

    fn store(&self, index: &Index) -> Result<IndexRef, RepackError> {
        let mut bytes = index.encode();
        let id = ObjectId::random();
        let repository = &self.work.repository;
        repository.crypt.for_object(ObjectKind::Index, &id).seal(0, &[], &mut bytes);
        let len = bytes.len() as u64;
        let _ = self.work.wait(repository.store.put_new(&layout::index(&id), bytes.into()))?;
        crate::failpoint!("repack.index.stored");
        Ok(IndexRef { id, len })
    }

    /// A leaf, written anew if it lies in a pack that goes or lists a chunk that has moved.
    fn leaf(&mut self, opened: &Opened, leaf: &Leaf, used: &mut BTreeMap<ObjectId, u64>) -> Result<Leaf, RepackError> {
        let entries = opened.leaf_entries(leaf)?;
        let changed = self.entries(&entries)?;
        let now = changed.as_ref().unwrap_or(&entries);
        count(now, used);
        let place = (leaf.at.pack, leaf.at.offset);
        let new = if let Some(known) = self.leaves.get(&place) {
            *known
        } else if changed.is_some() || self.doomed.contains(&leaf.at.pack) {
            let bytes = recipe::encode(now);
            let new = Leaf {
                covers: leaf.covers,
                id: self.work.repository.crypt.chunk_id(&bytes),
                length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                // Names of chunks fill it, and they do not compress.
                at: self.recipes.push_raw(&bytes)?,
            };
            self.leaves.insert(place, new);
            new
        } else {
            *leaf
        };
        *used.entry(new.at.pack).or_default() += u64::from(new.at.stored);
        Ok(new)
    }

    /// The entries with their chunks' new places; none when nothing of them has moved.
    fn entries(&self, entries: &[Entry]) -> Result<Option<Vec<Entry>>, RepackError> {
        let is_gone = |entry: &Entry| matches!(entry, Entry::Chunk { at, .. } if self.doomed.contains(&at.pack));
        if !entries.iter().any(is_gone) {
            return Ok(None);
        }
        let follow = |entry: &Entry| match entry {
            Entry::Chunk { id, length, at } if self.doomed.contains(&at.pack) => {
                // The survey has seen every visible generation, so it has seen this chunk.
                let at = *self.moved.get(&(at.pack, at.offset)).ok_or(RepackError::Interrupted)?;
                Ok(Entry::Chunk { id: *id, length: *length, at })
            }
            other => Ok(*other),
        };
        entries.iter().map(follow).collect::<Result<Vec<_>, RepackError>>().map(Some)
    }
}

fn count(entries: &[Entry], used: &mut BTreeMap<ObjectId, u64>) {
    for entry in entries {
        if let Entry::Chunk { at, .. } = entry {
            *used.entry(at.pack).or_default() += u64::from(at.stored);
        }
    }
}
