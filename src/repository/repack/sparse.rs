//! Which packs are mostly dead, and what lives in them.

use super::{RepackError, Work};
use crate::repository::crypto::ObjectId;
use crate::repository::index::Recipe;
use crate::repository::manifest::Manifest;
use crate::repository::pack::HEADER;
use crate::repository::recipe::{Entry, Location};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Chunks that are moved at a time, at most: their old and new places take about 150 bytes each.
const MOST_PIECES: u64 = 512 << 10;

/// A chunk that lives, by its offset in the pack.
pub(super) type Pieces = BTreeMap<u32, Piece>;

/// How long a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub stored: u32,
    pub plain: u32,
}

/// A pack that goes.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    /// Bytes of the whole object.
    pub size: u64,
    /// Bytes that live in it.
    pub live: u64,
    /// Chunks of images that live in it. Leaves of recipes are written anew.
    pub pieces: Pieces,
}

pub(super) struct Survey {
    pub doomed: BTreeMap<ObjectId, Sparse>,
    /// Packs that seem sparse and were not looked at.
    pub left: u64,
}

/// How much of a pack the generations say that they use.
#[derive(Default)]
struct Use {
    size: u64,
    /// By the one that uses most of it. What recurs counts each time, so a pack may seem fuller than it is; then it stays.
    most: u64,
    /// By all together: no more lives.
    sum: u64,
}

pub(super) fn survey(work: &Work, manifests: &[Manifest], below: f64) -> Result<Survey, RepackError> {
    let mut uses: HashMap<ObjectId, Use> = HashMap::new();
    for manifest in manifests {
        for pack in work.open(manifest)?.packs() {
            let known = uses.entry(pack.id).or_default();
            known.size = pack.size;
            known.most = known.most.max(pack.used);
            known.sum = known.sum.saturating_add(pack.used).min(pack.size);
        }
    }
    let (mut doomed, left) = candidates(uses, below, u64::from(work.repository.format.chunking.average_pages) * 4096);
    let mut seen = HashSet::new();
    for manifest in manifests {
        if manifest.packs.iter().any(|pack| doomed.contains_key(&pack.id)) {
            look(work, manifest, &mut doomed, &mut seen)?;
        }
    }
    doomed.retain(|_, sparse| is_below(sparse.live, sparse.size, below));
    Ok(Survey { doomed, left })
}

/// Packs that may be sparse, the sparsest first, as many as can be held in memory.
fn candidates(uses: HashMap<ObjectId, Use>, below: f64, average: u64) -> (BTreeMap<ObjectId, Sparse>, u64) {
    let mut sorted: Vec<(ObjectId, Use)> =
        uses.into_iter().filter(|(_, known)| is_below(known.most, known.size, below)).collect();
    sorted.sort_by_key(|(id, known)| (known.most * 1000 / known.size.max(1), *id));
    let (mut chosen, mut left, mut pieces) = (BTreeMap::new(), 0, 0);
    for (id, known) in sorted {
        // Chunks may be compressed four times over.
        pieces += known.sum / (average / 4).max(1) + 1;
        if pieces > MOST_PIECES && !chosen.is_empty() {
            left += 1;
            continue;
        }
        chosen.insert(id, Sparse { size: known.size, live: HEADER as u64, pieces: Pieces::new() });
    }
    (chosen, left)
}

#[allow(clippy::cast_precision_loss)] // Sizes of packs are below 2^31.
fn is_below(part: u64, whole: u64, below: f64) -> bool {
    (part as f64) < below * whole as f64
}

/// Notes what a generation needs of these packs. Leaves that were seen in another generation say nothing new.
fn look(
    work: &Work,
    manifest: &Manifest,
    packs: &mut BTreeMap<ObjectId, Sparse>,
    seen: &mut HashSet<(ObjectId, u32)>,
) -> Result<(), RepackError> {
    let opened = work.open(manifest)?;
    for image in opened.index().images.values() {
        work.go_on()?;
        match &image.recipe {
            Recipe::Inline(entries) => note(entries, packs),
            Recipe::Leaves(leaves) => {
                for leaf in leaves {
                    if seen.insert((leaf.at.pack, leaf.at.offset)) {
                        if let Some(sparse) = packs.get_mut(&leaf.at.pack) {
                            sparse.live += u64::from(leaf.at.stored);
                        }
                        note(&opened.leaf_entries(leaf)?, packs);
                    }
                }
            }
        }
    }
    Ok(())
}

fn note(entries: &[Entry], packs: &mut BTreeMap<ObjectId, Sparse>) {
    for entry in entries {
        let Entry::Chunk { length, at: Location { pack, offset, stored }, .. } = entry else { continue };
        if let Some(sparse) = packs.get_mut(pack) {
            let piece = Piece { stored: *stored, plain: *length };
            if sparse.pieces.insert(*offset, piece).is_none() {
                sparse.live += u64::from(*stored);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_uses_much_of_is_looked_at() {
        let pack = |n: u8| ObjectId([n; 32]);
        let known = |size, most, sum| Use { size, most, sum };
        let uses = HashMap::from([
            (pack(1), known(1000, 400, 600)),
            (pack(2), known(1000, 600, 600)),
            (pack(3), known(1000, 0, 0)),
            (pack(4), known(1000, 500, 500)),
        ]);
        let (chosen, left) = candidates(uses, 0.5, 32 << 10);
        assert_eq!((chosen.into_keys().collect::<Vec<_>>(), left), (vec![pack(1), pack(3)], 0));
    }

    #[test]
    fn memory_is_bounded_and_the_sparsest_go_first() {
        let size = 64 << 20;
        let uses: HashMap<ObjectId, Use> = (0..100u8)
            .map(|n| (ObjectId([n; 32]), Use { size, most: u64::from(n) << 17, sum: u64::from(n) << 17 }))
            .collect();
        let (chosen, left) = candidates(uses, 0.5, 4096);
        assert!(left > 0 && chosen.len() as u64 + left == 100);
        assert!(chosen.contains_key(&ObjectId([0; 32])) && !chosen.contains_key(&ObjectId([99; 32])));
    }
}
