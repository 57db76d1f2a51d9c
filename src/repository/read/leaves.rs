//! Leaves of recipes, fetched and kept for a while; and random access through them.

use super::Inner;
use super::error::ReadError;
use super::fetch::{Loader, Wanted};
use crate::repository::crypto::ChunkId;
use crate::repository::index::{Image, Leaf, Recipe};
use crate::repository::layout;
use crate::repository::recipe::{self, Entry, Location};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Parsed leaves that are kept: each at most 200 KiB, 70 KiB on average.
const KEPT: usize = 32;

#[derive(Debug, Default)]
pub(super) struct LeafCache(Mutex<VecDeque<(ChunkId, Arc<Vec<Entry>>)>>);

impl LeafCache {
    fn get(&self, id: &ChunkId) -> Option<Arc<Vec<Entry>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(other, _)| other == id)?;
        let found = kept.remove(place)?;
        kept.push_back(found.clone());
        Some(found.1)
    }

    fn put(&self, id: ChunkId, entries: Arc<Vec<Entry>>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((id, entries));
    }
}

impl Inner {
    /// The entries of a leaf.
    pub fn leaf(&self, loader: &mut Loader, leaf: &Leaf) -> Result<Arc<Vec<Entry>>, ReadError> {
        if let Some(entries) = self.leaves.get(&leaf.id) {
            return Ok(entries);
        }
        let mut bytes = vec![0; leaf.length as usize];
        let into = 0..bytes.len();
        loader.load(&self.fetcher, &[Wanted { at: leaf.at, into }], &mut bytes)?;
        let entries = parse(leaf, &bytes)?;
        self.leaves.put(leaf.id, Arc::clone(&entries));
        Ok(entries)
    }

    /// Calls `each` with the chunks of an image, whose first leaf has the number `first`; false as
    /// soon as it says so.
    pub fn each_chunk(
        &self,
        loader: &mut Loader,
        image: &Image,
        first: u32,
        each: &mut impl FnMut(&ChunkId, &Location, Option<u32>) -> bool,
    ) -> Result<bool, ReadError> {
        let mut visit = |entries: &[Entry], leaf: Option<u32>| {
            entries.iter().all(|entry| match entry {
                Entry::Zero(_) => true,
                Entry::Chunk { id, at, .. } => each(id, at, leaf),
            })
        };
        let leaves = match &image.recipe {
            Recipe::Inline(entries) => return Ok(visit(entries, None)),
            Recipe::Leaves(leaves) => leaves,
        };
        // Leaves lie side by side in their packs: sixteen at a time are mostly one request.
        let mut bytes = Vec::new();
        let mut number = first;
        for group in leaves.chunks(16) {
            let mut wanted = Vec::with_capacity(group.len());
            let mut end = 0;
            for leaf in group {
                wanted.push(Wanted { at: leaf.at, into: end..end + leaf.length as usize });
                end += leaf.length as usize;
            }
            bytes.resize(end, 0);
            loader.load(&self.fetcher, &wanted, &mut bytes)?;
            for (leaf, wanted) in group.iter().zip(wanted) {
                let entries = parse(leaf, &bytes[wanted.into])?;
                let own = Entry::Chunk { id: leaf.id, length: leaf.length, at: leaf.at };
                if !visit(&entries, Some(number)) || !visit(&[own], None) {
                    return Ok(false);
                }
                number += 1;
            }
        }
        Ok(true)
    }

    /// See [`super::Opened::read_at`].
    pub fn read_at(&self, loader: &mut Loader, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let image = self.find(name)?;
        let length = usize::try_from(image.length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let mut rest = &mut buffer[..length];
        let mut position = offset;
        while !rest.is_empty() {
            let (entries, start) = self.entries_at(loader, name, image, position)?;
            let filled = self.read_entries(loader, &entries, start, position, rest)?;
            if filled == 0 {
                return Err(ReadError::Aborted);
            }
            position += filled as u64;
            rest = &mut std::mem::take(&mut rest)[filled..];
        }
        Ok(length)
    }

    /// The entries that cover this byte of the image, and where the first of them begins.
    fn entries_at(
        &self,
        loader: &mut Loader,
        name: &str,
        image: &Image,
        position: u64,
    ) -> Result<(Arc<Vec<Entry>>, u64), ReadError> {
        match &image.recipe {
            Recipe::Inline(entries) => Ok((Arc::new(entries.clone()), 0)),
            Recipe::Leaves(leaves) => {
                let starts = self.starts.get(name).map_or(&[][..], Vec::as_slice);
                let number = starts.partition_point(|&start| start <= position).saturating_sub(1);
                let (leaf, start) = leaves.get(number).zip(starts.get(number)).ok_or(ReadError::Aborted)?;
                Ok((self.leaf(loader, leaf)?, *start))
            }
        }
    }

    /// Fills the front of `out` with what these entries, the first of which begins at `start`, have
    /// from `position` on.
    fn read_entries(
        &self,
        loader: &mut Loader,
        entries: &[Entry],
        start: u64,
        position: u64,
        out: &mut [u8],
    ) -> Result<usize, ReadError> {
        let narrow = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut begin = start;
        let mut filled = 0;
        let mut whole = Vec::new();
        for entry in entries {
            let end = begin + entry.len();
            if end > position && filled < out.len() {
                let skip = narrow((position + filled as u64).saturating_sub(begin));
                let count = (narrow(entry.len()) - skip).min(out.len() - filled);
                match entry {
                    Entry::Zero(_) => out[filled..filled + count].fill(0),
                    Entry::Chunk { length, at, .. } if count == *length as usize => {
                        whole.push(Wanted { at: *at, into: filled..filled + count });
                    }
                    Entry::Chunk { length, at, .. } => {
                        let mut plain = vec![0; *length as usize];
                        let into = 0..plain.len();
                        loader.load(&self.fetcher, &[Wanted { at: *at, into }], &mut plain)?;
                        out[filled..filled + count].copy_from_slice(&plain[skip..skip + count]);
                    }
                }
                filled += count;
            }
            begin = end;
        }
        loader.load(&self.fetcher, &whole, out)?;
        Ok(filled)
    }
}

/// The entries of a leaf, which must cover as much as the index says.
fn parse(leaf: &Leaf, bytes: &[u8]) -> Result<Arc<Vec<Entry>>, ReadError> {
    let damaged = |reason: &dyn std::fmt::Display| ReadError::damaged(&layout::pack(&leaf.at.pack), reason);
    let entries = recipe::decode(bytes).map_err(|error| damaged(&error))?;
    // Sums of at most 2048 lengths below 2^57 do not overflow.
    if entries.iter().map(Entry::len).sum::<u64>() != leaf.covers {
        return Err(damaged(&"a recipe does not cover what the index says"));
    }
    Ok(Arc::new(entries))
}
