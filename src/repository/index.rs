//! The index of a generation: for each image its length and the leaves of its recipe, and the packs
//! that hold them. Small enough to be read whole; from it any byte of any image is three reads away.

use super::crypto::{ChunkId, ObjectId};
use super::recipe::{CHUNK_LIMIT, Entry, LEAF_MAX_BYTES, Location, PACK_LIMIT};
use super::wire::{Malformed, Wire, put_varint};
use std::collections::BTreeMap;

/// The largest index object that is read: a job of 16 TiB in default chunks needs less.
pub const INDEX_LIMIT: u64 = 64 << 20;
/// The longest name of an image, in bytes.
pub const NAME_LIMIT: usize = 255;
/// Recipes of at most this many entries lie in the index itself instead of a leaf.
pub const INLINE_ENTRIES: usize = 8;

const MAGIC: &[u8; 8] = b"RVNTIDX1";

/// A pack that the generation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub id: ObjectId,
    /// Bytes of the pack that this generation uses, seals included: the rest is dead weight to it.
    pub used: u64,
    /// Size of the whole pack object, in bytes.
    pub size: u64,
}

/// A leaf of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Bytes of the image that its entries cover.
    pub covers: u64,
    /// The chunk that the leaf is stored as.
    pub id: ChunkId,
    /// Plain length of that chunk.
    pub length: u32,
    /// Where that chunk is.
    pub at: Location,
}

/// How an image is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// The entries themselves.
    Inline(Vec<Entry>),
    /// Leaves that hold the entries.
    Leaves(Vec<Leaf>),
}

/// An image: a file that CRIU or revenant wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its length in bytes: what the recipe covers.
    pub length: u64,
    /// What it is made of.
    pub recipe: Recipe,
}

/// Everything that a restore needs besides the packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Images by name.
    pub images: BTreeMap<String, Image>,
    /// The packs that hold their chunks and leaves, by id.
    pub packs: Vec<PackUse>,
}

impl Index {
    /// Writes the index (not yet sealed).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut numbers = BTreeMap::new();
        put_varint(&mut out, self.packs.len() as u64);
        for (number, pack) in self.packs.iter().enumerate() {
            out.extend_from_slice(&pack.id.0);
            put_varint(&mut out, pack.size);
            put_varint(&mut out, pack.used);
            numbers.insert(pack.id, number as u64);
        }
        let put_place = |out: &mut Vec<u8>, id: &ChunkId, length: u32, at: &Location| {
            put_varint(out, numbers.get(&at.pack).copied().unwrap_or(u64::MAX));
            for number in [at.offset, at.stored, length] {
                put_varint(out, u64::from(number));
            }
            out.extend_from_slice(&id.0);
        };
        put_varint(&mut out, self.images.len() as u64);
        for (name, image) in &self.images {
            put_varint(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
            match &image.recipe {
                Recipe::Inline(entries) => {
                    put_varint(&mut out, (entries.len() as u64) << 1);
                    for entry in entries {
                        match entry {
                            Entry::Zero(length) => {
                                out.push(0);
                                put_varint(&mut out, *length);
                            }
                            Entry::Chunk { id, length, at } => {
                                out.push(1);
                                put_place(&mut out, id, *length, at);
                            }
                        }
                    }
                }
                Recipe::Leaves(leaves) => {
                    put_varint(&mut out, ((leaves.len() as u64) << 1) | 1);
                    for leaf in leaves {
                        put_varint(&mut out, leaf.covers);
                        put_place(&mut out, &leaf.id, leaf.length, &leaf.at);
                    }
                }
            }
        }
        out
    }

    /// Reads an index that was opened already. Everything is bounded by the length of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut wire = Wire::new(bytes);
        if &wire.array::<8>()? != MAGIC {
            return Err(Malformed("is not an index, or one of an unknown version"));
        }
        let packs = (0..wire.count(34)?)
            .map(|_| {
                let id = ObjectId(wire.array()?);
                Ok(PackUse { id, size: wire.varint_to(PACK_LIMIT)?, used: wire.varint_to(PACK_LIMIT)? })
            })
            .collect::<Result<Vec<_>, Malformed>>()?;
        let mut images = BTreeMap::new();
        for _ in 0..wire.count(3)? {
            let length = wire.varint_to(NAME_LIMIT as u64)?;
            let name = wire.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
            let name = std::str::from_utf8(name).map_err(|_| Malformed("names an image in no known letters"))?;
            let image = decode_image(&mut wire, &packs)?;
            if images.insert(name.to_owned(), image).is_some() {
                return Err(Malformed("names an image twice"));
            }
        }
        wire.end()?;
        Ok(Self { images, packs })
    }
}

fn decode_image(wire: &mut Wire<'_>, packs: &[PackUse]) -> Result<Image, Malformed> {
    let head = wire.clone().varint()?;
    let leaves = head & 1 == 1;
    // The count is the head without its lowest bit; each item takes at least two bytes.
    let count = usize::try_from(wire.varint()? >> 1).map_err(|_| Malformed("promises too many items"))?;
    let mut covered = 0u64;
    let mut add = |length: u64| {
        covered = covered.checked_add(length).filter(|&sum| sum <= 1 << 60).ok_or(Malformed("has an endless image"))?;
        if length == 0 { Err(Malformed("has an empty entry")) } else { Ok(()) }
    };
    let recipe = if leaves {
        let mut out = Vec::new();
        for _ in 0..count {
            let covers = wire.varint()?;
            add(covers)?;
            let (id, length, at) = decode_place(wire, packs)?;
            if length as usize > LEAF_MAX_BYTES {
                return Err(Malformed("has a leaf of an impossible size"));
            }
            out.push(Leaf { covers, id, length, at });
        }
        Recipe::Leaves(out)
    } else {
        if count > INLINE_ENTRIES {
            return Err(Malformed("has too many entries in place"));
        }
        let mut out = Vec::new();
        for _ in 0..count {
            let entry = match wire.byte()? {
                0 => Entry::Zero(wire.varint()?),
                1 => {
                    let (id, length, at) = decode_place(wire, packs)?;
                    Entry::Chunk { id, length, at }
                }
                _ => return Err(Malformed("has an unknown kind of entry")),
            };
            add(entry.len())?;
            out.push(entry);
        }
        Recipe::Inline(out)
    };
    Ok(Image { length: covered, recipe })
}

fn decode_place(wire: &mut Wire<'_>, packs: &[PackUse]) -> Result<(ChunkId, u32, Location), Malformed> {
    let number = usize::try_from(wire.varint()?).unwrap_or(usize::MAX);
    let pack = packs.get(number).ok_or(Malformed("names a pack it does not list"))?;
    let (offset, stored, length) = (wire.varint32()?, wire.varint32()?, wire.varint32()?);
    if u64::from(offset) + u64::from(stored) > pack.size {
        return Err(Malformed("has a chunk beyond the end of its pack"));
    }
    if length as usize > CHUNK_LIMIT {
        return Err(Malformed("has a chunk of an impossible size"));
    }
    Ok((ChunkId(wire.array()?), length, Location { pack: pack.id, offset, stored }))
}

#[cfg(test)]
mod tests {
    use super::super::recipe::tests::entry;
    use super::*;
    use proptest::prelude::*;

    fn packs() -> Vec<PackUse> {
        (0..3).map(|n| PackUse { id: ObjectId([n; 32]), size: PACK_LIMIT, used: 5 }).collect()
    }

    fn image() -> impl Strategy<Value = Image> {
        prop_oneof![
            proptest::collection::vec(entry(), 0..INLINE_ENTRIES).prop_map(|entries| Image {
                length: entries.iter().map(Entry::len).sum(),
                recipe: Recipe::Inline(entries),
            }),
            proptest::collection::vec((entry(), 1u64..1 << 40), 0..20).prop_map(|leaves| {
                let leaves: Vec<Leaf> = leaves
                    .into_iter()
                    .filter_map(|(entry, covers)| match entry {
                        Entry::Chunk { id, length, at } => Some(Leaf { covers, id, length: length % 4096, at }),
                        Entry::Zero(_) => None,
                    })
                    .collect();
                Image { length: leaves.iter().map(|leaf| leaf.covers).sum(), recipe: Recipe::Leaves(leaves) }
            }),
        ]
    }

    proptest! {
        #[test]
        fn indexes_come_back(images in proptest::collection::btree_map("[a-z0-9.-]{1,30}", image(), 0..10)) {
            let index = Index { images, packs: packs() };
            prop_assert_eq!(Index::decode(&index.encode()).unwrap(), index);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Index::decode(&[&MAGIC[..], &bytes].concat());
            let _ = Index::decode(&[&MAGIC[..], &[0], &bytes].concat());
        }

        #[test]
        fn a_changed_index_never_panics(
            images in proptest::collection::btree_map("[a-z]{1,9}", image(), 1..4), place: prop::sample::Index, byte: u8,
        ) {
            let mut bytes = Index { images, packs: packs() }.encode();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            let _ = Index::decode(&bytes);
            prop_assert!(Index::decode(&bytes[..place]).is_err());
        }
    }
}
