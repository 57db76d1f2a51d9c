//! A pack: one stored object that holds many chunks, each sealed by itself, and a footer that says
//! where they are, so that a pack can be walked without any index.
//!
//! ```text
//! header (48 B)  "RVNTPACK", version, zeros (8 B) │ the pack's id (32 B)
//! chunk          codec (1 B) │ payload │ seal (16 B)      sealed at its offset
//! …
//! footer         for each chunk: stored length, plain length (varints) │ seal (16 B)
//! trailer        length of the footer with its seal (u32) │ "RVNTPEND"
//! ```

use super::codec::RAW;
use super::crypto::{Crypt, Forged, OVERHEAD, ObjectCrypt, ObjectId, ObjectKind};
use super::recipe::{CHUNK_LIMIT, LEAF_MAX_BYTES, Location, PACK_LIMIT};
use super::wire::{Malformed, Wire, put_varint};
use std::ops::Range;

const MAGIC: &[u8; 8] = b"RVNTPACK";
const END: &[u8; 8] = b"RVNTPEND";
const VERSION: u8 = 1;
/// Bytes before the first chunk.
pub const HEADER: usize = 48;
/// Bytes after the footer.
pub const TRAILER: usize = 12;
/// The footer is sealed at this position; chunks are sealed at their offsets, which are smaller.
const FOOTER_POSITION: u64 = u64::MAX;

/// A pack that is being filled.
#[derive(Debug)]
pub struct PackBuilder {
    id: ObjectId,
    crypt: ObjectCrypt,
    bytes: Vec<u8>,
    footer: Vec<u8>,
    chunks: u64,
}

impl PackBuilder {
    /// An empty pack with a fresh identity, which reuses a buffer's memory.
    pub fn new(crypt: &Crypt, mut buffer: Vec<u8>) -> Self {
        let id = ObjectId::random();
        buffer.clear();
        buffer.extend_from_slice(&header(&id));
        Self { crypt: crypt.for_object(ObjectKind::Pack, &id), id, bytes: buffer, footer: Vec::new(), chunks: 0 }
    }

    /// The identity of the pack.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Bytes so far, without the footer.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no chunk was added yet.
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Adds a compressed chunk (codec byte and payload) of `plain` bytes.
    pub fn push(&mut self, stored: &[u8], plain: usize) -> Location {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(stored);
        self.seal(start, plain)
    }

    /// Adds a chunk as it is.
    pub fn push_raw(&mut self, plain: &[u8]) -> Location {
        let start = self.bytes.len();
        self.bytes.push(RAW);
        self.bytes.extend_from_slice(plain);
        self.seal(start, plain.len())
    }

    fn seal(&mut self, start: usize, plain: usize) -> Location {
        let tag = self.crypt.seal_detached(start as u64, &[], &mut self.bytes[start..]);
        self.bytes.extend_from_slice(&tag);
        let stored = self.bytes.len() - start;
        put_varint(&mut self.footer, stored as u64);
        put_varint(&mut self.footer, plain as u64);
        self.chunks += 1;
        // Packs are closed at tens of MiB: offsets fit 32 bits by far.
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Location { pack: self.id, offset: narrow(start), stored: narrow(stored) }
    }

    /// The whole object.
    pub fn finish(mut self) -> Vec<u8> {
        let mut footer = Vec::with_capacity(self.footer.len() + 32);
        put_varint(&mut footer, self.chunks);
        footer.extend_from_slice(&self.footer);
        self.crypt.seal(FOOTER_POSITION, &[], &mut footer);
        self.bytes.extend_from_slice(&footer);
        let length = u32::try_from(footer.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(END);
        self.bytes
    }
}

fn header(id: &ObjectId) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8] = VERSION;
    header[16..].copy_from_slice(&id.0);
    header
}

/// What is wrong with a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Its structure.
    #[error("the pack {0}")]
    Malformed(#[from] Malformed),
    /// A seal that does not open.
    #[error("{0}")]
    Forged(#[from] Forged),
    /// A chunk that does not decompress.
    #[error("{0}")]
    Codec(#[from] super::codec::CodecError),
}

/// A chunk as a pack's footer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Byte offset in the pack.
    pub offset: u32,
    /// Bytes there, seal included.
    pub stored: u32,
    /// Plain length.
    pub plain: u32,
}

/// Where the footer is, from the last [`TRAILER`] bytes of a pack of `size` bytes.
pub fn footer_range(size: u64, trailer: &[u8]) -> Result<Range<u64>, PackError> {
    let mut wire = Wire::new(trailer);
    let length = u64::from(u32::from_le_bytes(wire.array()?));
    if wire.array::<8>()? != *END {
        return Err(Malformed("does not end as a pack does").into());
    }
    wire.end()?;
    let end = size.saturating_sub(TRAILER as u64);
    match end.checked_sub(length) {
        Some(start) if size <= PACK_LIMIT && start >= HEADER as u64 && length >= OVERHEAD as u64 => Ok(start..end),
        _ => Err(Malformed("has a footer of an impossible size").into()),
    }
}

/// Opens a footer found by [`footer_range`]: the chunks in order, together filling all bytes between
/// header and footer.
pub fn open_footer(
    crypt: &Crypt,
    id: &ObjectId,
    range: &Range<u64>,
    mut sealed: Vec<u8>,
) -> Result<Vec<Listed>, PackError> {
    crypt.for_object(ObjectKind::Pack, id).open(FOOTER_POSITION, &[], &mut sealed)?;
    let mut wire = Wire::new(&sealed);
    let count = wire.count(2)?;
    let mut offset = HEADER as u64;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        let stored = wire.varint32()?;
        let plain = wire.varint32()?;
        if plain as usize > CHUNK_LIMIT.max(LEAF_MAX_BYTES) || (stored as usize) <= OVERHEAD {
            return Err(Malformed("lists a chunk of an impossible size").into());
        }
        let narrow = u32::try_from(offset).map_err(|_| Malformed("lists a chunk beyond its end"))?;
        chunks.push(Listed { offset: narrow, stored, plain });
        offset += u64::from(stored);
    }
    wire.end()?;
    if offset != range.start {
        return Err(Malformed("has bytes that belong to no chunk").into());
    }
    Ok(chunks)
}

/// Checks every byte of a whole pack: structure, every seal, every decompression. Opens in place.
/// Calls `each` with every chunk and its plain content.
pub fn check(
    crypt: &Crypt,
    id: &ObjectId,
    bytes: &mut [u8],
    mut each: impl FnMut(Listed, &[u8]),
) -> Result<(), PackError> {
    let size = bytes.len() as u64;
    let trailer = bytes.last_chunk::<TRAILER>().ok_or(Malformed("is too short"))?;
    let range = footer_range(size, trailer)?;
    if bytes[..HEADER] != header(id) {
        return Err(Malformed("does not begin as this pack must").into());
    }
    let (start, end) = (to_usize(range.start), to_usize(range.end));
    let chunks = open_footer(crypt, id, &range, bytes[start..end].to_vec())?;
    let object = crypt.for_object(ObjectKind::Pack, id);
    let mut decompressor = super::codec::Decompressor::new().map_err(|_| Malformed("cannot be decompressed now"))?;
    let mut plain = Vec::new();
    for chunk in chunks {
        let sealed = &mut bytes[chunk.offset as usize..][..chunk.stored as usize];
        let stored = object.open_slice(u64::from(chunk.offset), &[], sealed)?;
        plain.resize(chunk.plain as usize, 0);
        decompressor.decompress(stored, &mut plain)?;
        each(chunk, &plain);
    }
    Ok(())
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::crypto::{RepositoryId, RepositoryKey};
    use super::*;
    use proptest::prelude::*;

    fn both() -> [Crypt; 2] {
        let id = RepositoryId([7; 16]);
        [Crypt::encrypted(id, &RepositoryKey::from_bytes([1; 32])), Crypt::unencrypted(id)]
    }

    fn small(crypt: &Crypt) -> (ObjectId, Vec<u8>) {
        let mut pack = PackBuilder::new(crypt, Vec::new());
        pack.push_raw(b"first");
        pack.push_raw(&[3; 100]);
        (pack.id(), pack.finish())
    }

    proptest! {
        #[test]
        fn packs_list_and_give_back_their_chunks(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..2000), 0..20),
        ) {
            for crypt in both() {
                let mut pack = PackBuilder::new(&crypt, Vec::new());
                let places: Vec<Location> = chunks.iter().map(|chunk| pack.push_raw(chunk)).collect();
                let (id, mut bytes) = (pack.id(), pack.finish());
                let mut seen = Vec::new();
                check(&crypt, &id, &mut bytes, |at, plain| seen.push((at.offset, at.stored, plain.to_vec()))).unwrap();
                let expected: Vec<_> =
                    places.iter().zip(&chunks).map(|(at, chunk)| (at.offset, at.stored, chunk.clone())).collect();
                prop_assert_eq!(seen, expected);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, length in 0u32..100, tail: bool) {
            if tail {
                bytes.extend(length.to_le_bytes());
                bytes.extend(END);
            }
            for crypt in both() {
                prop_assert!(check(&crypt, &ObjectId([1; 32]), &mut bytes, |_, _| ()).is_err());
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for crypt in both() {
            let (id, good) = small(&crypt);
            assert_eq!(check(&crypt, &id, &mut good.clone(), |_, _| ()), Ok(()));
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&crypt, &id, &mut bytes, |_, _| ()).is_err(), "bit {bit} of {}", good.len() * 8);
            }
        }
    }

    #[test]
    fn every_cut_is_found() {
        for crypt in both() {
            let (id, good) = small(&crypt);
            for length in 0..good.len() {
                assert!(check(&crypt, &id, &mut good[..length].to_vec(), |_, _| ()).is_err(), "cut to {length}");
            }
        }
    }

    #[test]
    fn a_pack_under_another_name_is_refused() {
        for crypt in both() {
            let (_, mut bytes) = small(&crypt);
            assert!(check(&crypt, &ObjectId([1; 32]), &mut bytes, |_, _| ()).is_err());
        }
    }
}
