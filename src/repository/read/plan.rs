//! Cuts an image's recipe into batches: what one loader fetches into one block, and what lies in
//! blocks of others already.

use super::fetch::Wanted;
use super::shelf::{Filling, Shelf};
use crate::repository::recipe::Entry;
use std::ops::Range;
use std::sync::Arc;

/// Blocks of others that one batch refers to, at most.
const OTHERS: usize = 2;
/// Blocks that one batch needs, at most.
pub(super) const BLOCKS: usize = OTHERS + 1;

/// A stretch of the image, in order.
#[derive(Debug, Clone)]
pub(super) enum Segment {
    /// Zero bytes.
    Zero(u64),
    /// A part of the batch's own block.
    Own(Range<usize>),
    /// A part of another image's block: these chunks.
    Other(Arc<Filling>, Range<usize>, Vec<Wanted>),
}

/// Consecutive bytes of an image that fit one block; zeros and what others have take no room in it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Its own block, if it needs one.
    pub own: Option<(u64, Arc<Filling>)>,
    /// What is loaded into it.
    pub wanted: Vec<Wanted>,
    pub segments: Vec<Segment>,
    filled: usize,
    others: Vec<Arc<Filling>>,
}

impl Batch {
    /// Adds an entry, if a block has room for it.
    pub fn add(&mut self, entry: &Entry, blocks: &Shelf) -> bool {
        let (length, at) = match entry {
            Entry::Zero(length) => {
                self.segments.push(Segment::Zero(*length));
                return true;
            }
            Entry::Chunk { length, at, .. } => (*length as usize, *at),
        };
        if let Some((filling, range)) = blocks.find(&at).filter(|(_, range)| range.len() == length) {
            // What recurs within the batch is in its own block.
            if self.own.as_ref().is_some_and(|(_, own)| Arc::ptr_eq(own, &filling)) {
                self.segments.push(Segment::Own(range));
                return true;
            }
            if !self.others.iter().any(|other| Arc::ptr_eq(other, &filling)) {
                if self.others.len() == OTHERS {
                    return false;
                }
                self.others.push(Arc::clone(&filling));
            }
            let wanted = Wanted { at, into: range.clone() };
            match self.segments.last_mut() {
                Some(Segment::Other(last, before, chunks))
                    if Arc::ptr_eq(last, &filling) && before.end == range.start =>
                {
                    before.end = range.end;
                    chunks.push(wanted);
                }
                _ => self.segments.push(Segment::Other(filling, range, vec![wanted])),
            }
            return true;
        }
        let into = self.filled..self.filled + length;
        if into.end > blocks.block_size() {
            return false;
        }
        self.filled = into.end;
        let (number, _) = self.own.get_or_insert_with(|| blocks.begin());
        blocks.announce(*number, at, into.clone());
        match self.segments.last_mut() {
            Some(Segment::Own(range)) if range.end == into.start => range.end = into.end,
            _ => self.segments.push(Segment::Own(into.clone())),
        }
        self.wanted.push(Wanted { at, into });
        true
    }

    /// How many blocks it holds.
    pub fn blocks(&self) -> usize {
        self.others.len() + usize::from(self.own.is_some())
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

impl Drop for Batch {
    /// Nobody may wait for a block that will not be filled.
    fn drop(&mut self) {
        if let Some((_, own)) = &self.own {
            own.set(Err(super::error::ReadError::Aborted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shelf::LEAST;
    use super::*;
    use crate::repository::crypto::{ChunkId, ObjectId};
    use crate::repository::recipe::Location;

    fn chunk(offset: u32, length: u32) -> Entry {
        let at = Location { pack: ObjectId([1; 32]), offset, stored: 10 };
        Entry::Chunk { id: ChunkId([0; 32]), length, at }
    }

    fn shape(batch: &Batch) -> Vec<(char, usize)> {
        let shape = |segment: &Segment| match segment {
            Segment::Zero(length) => ('z', usize::try_from(*length).unwrap()),
            Segment::Own(range) => ('o', range.len()),
            Segment::Other(_, range, chunks) => {
                assert_eq!(chunks.iter().map(|chunk| chunk.into.len()).sum::<usize>(), range.len());
                ('s', range.len())
            }
        };
        batch.segments.iter().map(shape).collect()
    }

    #[test]
    fn a_batch_takes_what_fits_and_joins_neighbours() {
        let shelf = Shelf::new(1, LEAST, 16384).unwrap();
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        for entry in [chunk(0, 4096), chunk(1, 8192), Entry::Zero(1 << 40), chunk(2, 4096)] {
            assert!(batch.add(&entry, &shelf));
        }
        assert!(!batch.add(&chunk(3, 1), &shelf), "the block is full");
        assert_eq!(shape(&batch), [('o', 12288), ('z', 1 << 40), ('o', 4096)]);
        assert_eq!((batch.wanted.len(), batch.blocks()), (3, 1));
    }

    #[test]
    fn what_another_image_has_is_taken_from_there() {
        let shelf = Shelf::new(2, LEAST, 16384).unwrap();
        let (mut one, mut other) = (Batch::default(), Batch::default());
        for n in 0..4 {
            assert!(one.add(&chunk(n, 4096), &shelf));
        }
        for n in [0, 1, 9, 3, 9] {
            assert!(other.add(&chunk(n, 4096), &shelf));
        }
        assert_eq!(shape(&other), [('s', 8192), ('o', 4096), ('s', 4096), ('o', 4096)]);
        assert_eq!((other.wanted.len(), other.blocks()), (1, 2));
        // A block that will never be filled says so.
        let filling = match &other.segments[0] {
            Segment::Other(filling, ..) => Arc::clone(filling),
            _ => unreachable!(),
        };
        drop(one);
        assert!(filling.wait(std::time::Duration::ZERO).unwrap().is_err());
    }
}
