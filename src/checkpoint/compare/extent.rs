//! Ranges of addresses, and which of an image's bytes another generation has.

use crate::criu::images::Pagemap;
use crate::repository::crypto::ChunkId;
use crate::repository::read::{Opened, ReadError};
use crate::repository::recipe::Entry;
use std::ops::Range;

/// Bytes of a page; CRIU counts in these on every architecture that revenant runs on.
const PAGE: u64 = 4096;

/// Ranges that are sorted and do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extents(Vec<Range<u64>>);

impl Extents {
    /// Adds a range behind all others; what is empty or comes too early is left out.
    pub fn push(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            Some(last) if last.end > range.start => {}
            _ => self.0.push(range),
        }
    }

    /// Bytes of `range` that are covered.
    pub fn covered(&self, range: &Range<u64>) -> u64 {
        let first = self.0.partition_point(|extent| extent.end <= range.start);
        let inside = self.0[first..].iter().take_while(|extent| extent.start < range.end);
        inside.map(|extent| extent.end.min(range.end) - extent.start.max(range.start)).sum()
    }

    /// Bytes that are covered.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|extent| extent.end - extent.start).sum()
    }
}

/// The chunks of a generation: the first half of a half of each name. Two of them are alike once in
/// 2^64: enough to count by, and 16 million chunks of a job of 1 TB take 128 MB.
pub(super) struct Known(Vec<u64>);

impl Known {
    pub fn of(opened: &Opened) -> Result<Self, ReadError> {
        let mut names = Vec::new();
        opened.each_chunk(|id, _, _| {
            names.push(short(id));
            true
        })?;
        names.sort_unstable();
        names.dedup();
        Ok(Self(names))
    }

    fn has(&self, id: &ChunkId) -> bool {
        self.0.binary_search(&short(id)).is_ok()
    }
}

fn short(id: &ChunkId) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&id.0[..8]);
    u64::from_le_bytes(word)
}

/// The addresses that a pagemap has pages for, and those whose content is not `known`.
pub(super) fn extents(
    opened: &Opened,
    pagemap: &Pagemap,
    known: Option<&Known>,
) -> Result<(Extents, Extents), ReadError> {
    // Where each run begins in `pages-N.img`.
    let (mut runs, mut offset) = (Vec::new(), 0u64);
    let mut present = Extents::default();
    for run in pagemap.runs.iter().filter(|run| run.is_present()) {
        let length = run.pages().saturating_mul(PAGE);
        present.push(run.address..run.address.saturating_add(length));
        runs.push((offset, run.address));
        offset = offset.saturating_add(length);
    }
    let mut new = Extents::default();
    let Some(known) = known else { return Ok((present, new)) };
    let end = offset;
    let (mut position, mut run) = (0u64, 0);
    opened.each_entry(&format!("pages-{}.img", pagemap.pages_id), |entry| {
        let next = position.saturating_add(entry.len()).min(end);
        let foreign = matches!(entry, Entry::Chunk { id, .. } if !known.has(id));
        while position < next {
            let (start, address) = runs[run];
            let stop = runs.get(run + 1).map_or(end, |(start, _)| *start);
            let upto = next.min(stop);
            if foreign {
                let at = |position: u64| address.saturating_add(position - start);
                new.push(at(position)..at(upto));
            }
            position = upto;
            if upto == stop && run + 1 < runs.len() {
                run += 1;
            }
        }
    })?;
    Ok((present, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_what_is_covered(pieces in proptest::collection::vec((0u64..20, 0u64..20), 0..20), from in 0u64..300, len in 0u64..300) {
            let mut extents = Extents::default();
            let mut bytes = std::collections::BTreeSet::new();
            let mut at = 0;
            for (gap, length) in pieces {
                at += gap;
                extents.push(at..at + length);
                bytes.extend(at..at + length);
                at += length;
            }
            prop_assert_eq!(extents.total(), bytes.len() as u64);
            prop_assert_eq!(extents.covered(&(from..from + len)), bytes.range(from..from + len).count() as u64);
        }
    }
}
