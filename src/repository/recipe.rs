//! A recipe: how an image is put together from chunks and zeros, in order.
//!
//! A recipe is stored in leaves of some hundred entries. Where a leaf ends is chosen by the ids of
//! its chunks, so an unchanged stretch of memory gives the same leaf byte for byte in the next
//! generation; leaves are stored as chunks, so such a leaf is not stored again.

use super::chunker::Chunking;
use super::crypto::{ChunkId, ObjectId};
use super::wire::{Malformed, Wire, put_varint};

/// The most entries in a leaf.
pub const LEAF_MAX_ENTRIES: usize = 2048;
/// No leaf is ended by content before this many entries.
const LEAF_MIN_ENTRIES: usize = 128;
/// A chunk ends its leaf with probability 1 / 512.
const LEAF_CUT: u64 = u64::MAX / 512;
/// The most bytes that a leaf can take: [`LEAF_MAX_ENTRIES`] entries, each from a pack of its own.
pub const LEAF_MAX_BYTES: usize = 16 + LEAF_MAX_ENTRIES * (32 + 32 + 32);

/// The largest pack that the format allows: 1 GiB.
pub const PACK_LIMIT: u64 = 1 << 30;

const VERSION: u8 = 1;
const ZERO: u8 = 0;
const FOLLOWS: u8 = 1;
const ELSEWHERE: u8 = 2;

/// Where a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack.
    pub pack: ObjectId,
    /// Byte offset in the pack. Bound into the chunk's seal.
    pub offset: u32,
    /// Bytes that it takes there, seal included.
    pub stored: u32,
}

/// One entry of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// This many zero bytes.
    Zero(u64),
    /// A chunk.
    Chunk {
        /// Its name.
        id: ChunkId,
        /// Its plain length, in bytes.
        length: u32,
        /// Where it is.
        at: Location,
    },
}

impl Entry {
    /// Bytes of the image that it covers.
    pub fn len(&self) -> u64 {
        match self {
            Self::Zero(length) => *length,
            Self::Chunk { length, .. } => u64::from(*length),
        }
    }

    /// Never, in a well-formed recipe.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether a leaf ends after a chunk with this id, having so many entries.
pub fn ends_leaf(entries: usize, last: Option<&ChunkId>) -> bool {
    let by_content = last.is_some_and(|id| {
        let mut word = [0; 8];
        word.copy_from_slice(&id.0[24..]);
        u64::from_le_bytes(word) < LEAF_CUT
    });
    entries >= LEAF_MAX_ENTRIES || (entries >= LEAF_MIN_ENTRIES && by_content)
}

/// Writes a leaf. The same entries always give the same bytes.
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut packs: Vec<ObjectId> = Vec::new();
    let mut body = Vec::with_capacity(entries.len() * 40);
    put_varint(&mut body, entries.len() as u64);
    let mut expected: Option<(ObjectId, u32)> = None;
    for entry in entries {
        match entry {
            Entry::Zero(length) => {
                body.push(ZERO);
                put_varint(&mut body, *length);
            }
            Entry::Chunk { id, length, at } => {
                if expected == Some((at.pack, at.offset)) {
                    body.push(FOLLOWS);
                } else {
                    let number = packs.iter().rposition(|pack| *pack == at.pack).unwrap_or_else(|| {
                        packs.push(at.pack);
                        packs.len() - 1
                    });
                    body.push(ELSEWHERE);
                    put_varint(&mut body, number as u64);
                    put_varint(&mut body, u64::from(at.offset));
                }
                put_varint(&mut body, u64::from(at.stored));
                put_varint(&mut body, u64::from(*length));
                body.extend_from_slice(&id.0);
                expected = Some((at.pack, at.offset.saturating_add(at.stored)));
            }
        }
    }
    let mut out = Vec::with_capacity(body.len() + packs.len() * 32 + 8);
    out.push(VERSION);
    put_varint(&mut out, packs.len() as u64);
    for pack in packs {
        out.extend_from_slice(&pack.0);
    }
    out.extend_from_slice(&body);
    out
}

/// Reads a leaf. Everything is bounded by the length of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut wire = Wire::new(bytes);
    if wire.byte()? != VERSION {
        return Err(Malformed("is a recipe of an unknown version"));
    }
    let packs: Vec<ObjectId> =
        (0..wire.count(32)?).map(|_| wire.array().map(ObjectId)).collect::<Result<_, Malformed>>()?;
    let count = wire.count(2)?;
    if count > LEAF_MAX_ENTRIES {
        return Err(Malformed("is a recipe with too many entries"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut end: Option<(ObjectId, u32)> = None;
    for _ in 0..count {
        let kind = wire.byte()?;
        if kind == ZERO {
            // No image is larger than an address space.
            let length = wire.varint_to(1 << 57)?;
            if length == 0 {
                return Err(Malformed("is a recipe with an empty run of zeros"));
            }
            entries.push(Entry::Zero(length));
            continue;
        }
        let (pack, offset) = match kind {
            FOLLOWS => end.ok_or(Malformed("is a recipe whose first chunk follows none"))?,
            ELSEWHERE => {
                let number = usize::try_from(wire.varint()?).unwrap_or(usize::MAX);
                let pack = packs.get(number).ok_or(Malformed("is a recipe that names a pack it does not list"))?;
                (*pack, wire.varint32()?)
            }
            _ => return Err(Malformed("is a recipe with an unknown kind of entry")),
        };
        let (stored, length) = (wire.varint32()?, wire.varint32()?);
        let last = offset.checked_add(stored).filter(|end| u64::from(*end) <= PACK_LIMIT);
        let last = last.ok_or(Malformed("is a recipe with a chunk beyond the end of any pack"))?;
        let limit = CHUNK_LIMIT.max(LEAF_MAX_BYTES);
        if length == 0 || length as usize > limit || stored as usize > super::codec::bound(limit) + 64 {
            return Err(Malformed("is a recipe with a chunk of an impossible size"));
        }
        end = Some((pack, last));
        let at = Location { pack, offset, stored };
        entries.push(Entry::Chunk { id: ChunkId(wire.array()?), length, at });
    }
    wire.end()?;
    Ok(entries)
}

/// The largest plain chunk that the format allows.
pub const CHUNK_LIMIT: usize = Chunking::LIMIT_PAGES as usize * super::block::PAGE + super::block::PAGE;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (1u64..1 << 40).prop_map(Entry::Zero),
            (any::<[u8; 32]>(), 1u32..1 << 20, 0u8..3, 0u32..1 << 29, 1u32..1 << 20).prop_map(
                |(id, length, pack, offset, stored)| Entry::Chunk {
                    id: ChunkId(id),
                    length,
                    at: Location { pack: ObjectId([pack; 32]), offset, stored },
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn leaves_come_back(entries in proptest::collection::vec(entry(), 0..100)) {
            let bytes = encode(&entries);
            prop_assert!(bytes.len() <= LEAF_MAX_BYTES);
            prop_assert_eq!(decode(&bytes).unwrap(), entries);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = decode(&[&[VERSION, 0][..], &bytes].concat());
        }

        #[test]
        fn a_cut_leaf_is_refused(entries in proptest::collection::vec(entry(), 1..20), cut in 1usize..40) {
            let bytes = encode(&entries);
            prop_assert!(decode(&bytes[..bytes.len().saturating_sub(cut)]).is_err());
        }
    }

    #[test]
    fn neighbours_in_a_pack_cost_little() {
        let pack = ObjectId([1; 32]);
        let entries: Vec<Entry> = (0..1000u32)
            .map(|n| Entry::Chunk {
                id: ChunkId([7; 32]),
                length: 65536,
                at: Location { pack, offset: n * 30_000, stored: 30_000 },
            })
            .collect();
        assert!(encode(&entries).len() <= 40 * 1000, "{} bytes for 1000 chunks", encode(&entries).len());
    }
}
