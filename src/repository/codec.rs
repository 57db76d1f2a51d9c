//! Compression of one chunk: a codec byte, then the payload.
//!
//! Content that does not compress is found by a sample and stored as it is; so is content that
//! compression would save less than a sixteenth of.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use zstd::zstd_safe::CParameter;

/// Beyond this zstd level repeats are looked for in all content.
const LETTERS_MAX_LEVEL: i32 = 6;

/// How new chunks are compressed. What is stored already keeps the codec that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Compression {
    /// zstd, lz4 or nothing, chosen while saving by whether the cores or the link are behind.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// lz4: fast, and finds repeats only.
    Lz4,
    /// zstd at this level (-7 to 19).
    Zstd(i32),
}

/// Text that names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a compression; use auto, none, lz4, zstd or zstd:LEVEL with a level from -7 to 19")]
pub struct InvalidCompression(String);

impl FromStr for Compression {
    type Err = InvalidCompression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd(1)),
            _ => text
                .strip_prefix("zstd:")
                .and_then(|level| level.parse().ok())
                .filter(|level| (-7..=19).contains(level))
                .map(Self::Zstd)
                .ok_or_else(|| InvalidCompression(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl TryFrom<String> for Compression {
    type Error = InvalidCompression;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> Self {
        compression.to_string()
    }
}

/// The first byte of a stored chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    Raw = 0,
    Lz4 = 1,
    Zstd = 2,
}

/// A stored chunk that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No codec byte.
    #[error("a stored chunk is empty")]
    Empty,
    /// Written by a newer version, or damaged.
    #[error("a stored chunk has the unknown codec {0}")]
    UnknownCodec(u8),
    /// The payload is not what the codec expects, or not of the promised length.
    #[error("a stored chunk does not decompress to the {expected} bytes that the index promises")]
    Payload {
        /// Bytes that the index promises.
        expected: usize,
    },
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressed<'a> {
    /// The codec byte and payload to store.
    Smaller(&'a [u8]),
    /// Not worth it: store [`RAW`] and the plain bytes.
    Raw,
}

/// The codec byte of a chunk that is stored as it is.
pub const RAW: u8 = Codec::Raw as u8;

/// Compresses chunks, reusing its tables and its output.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    zstd_level: i32,
    /// zstd that hardly looks for repeats: see [`is_letters`].
    letters: zstd::bulk::Compressor<'static>,
    lz4: lz4_flex::block::CompressTable,
    out: Vec<u8>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("zstd_level", &self.zstd_level).finish_non_exhaustive()
    }
}

impl Compressor {
    /// For chunks of up to `max_chunk` bytes; larger ones cost an allocation.
    pub fn new(max_chunk: usize) -> std::io::Result<Self> {
        let zstd_level = 1;
        let mut letters = zstd::bulk::Compressor::new(zstd_level)?;
        letters.set_parameter(CParameter::HashLog(6))?;
        letters.set_parameter(CParameter::MinMatch(7))?;
        Ok(Self {
            zstd: zstd::bulk::Compressor::new(zstd_level)?,
            zstd_level,
            letters,
            lz4: lz4_flex::block::CompressTable::large(),
            out: vec![0; bound(max_chunk)],
        })
    }

    /// Compresses one chunk. `Auto` counts as zstd level 1: the caller chooses the level.
    pub fn compress(&mut self, plain: &[u8], compression: Compression) -> Compressed<'_> {
        let room = bound(plain.len());
        if self.out.len() < room {
            self.out.resize(room, 0);
        }
        let length = match compression {
            Compression::None => return Compressed::Raw,
            _ if looks_random(plain) => return Compressed::Raw,
            Compression::Lz4 => {
                self.out[0] = Codec::Lz4 as u8;
                lz4_flex::block::compress_into_with_table(plain, &mut self.out[1..], &mut self.lz4).ok()
            }
            Compression::Auto => self.zstd(plain, 1),
            Compression::Zstd(level) => self.zstd(plain, level),
        };
        match length {
            Some(length) if length + plain.len() / 16 < plain.len() => Compressed::Smaller(&self.out[..=length]),
            _ => Compressed::Raw,
        }
    }

    fn zstd(&mut self, plain: &[u8], level: i32) -> Option<usize> {
        if level != self.zstd_level {
            self.zstd.set_compression_level(level).ok()?;
            self.zstd_level = level;
        }
        self.out[0] = Codec::Zstd as u8;
        let zstd = if (1..=LETTERS_MAX_LEVEL).contains(&level) && is_letters(plain) {
            &mut self.letters
        } else {
            &mut self.zstd
        };
        zstd.compress_to_buffer(plain, &mut self.out[1..]).ok()
    }
}

/// The most that a stored chunk of this plain length can take, codec byte included.
pub fn bound(plain: usize) -> usize {
    1 + zstd::zstd_safe::compress_bound(plain).max(lz4_flex::block::get_maximum_output_size(plain))
}

/// Restores chunks, reusing its tables.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    /// A decompressor.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()? })
    }

    /// Fills `plain` from a stored chunk, exactly. Never writes beyond `plain` and allocates nothing.
    pub fn decompress(&mut self, stored: &[u8], plain: &mut [u8]) -> Result<(), CodecError> {
        let expected = plain.len();
        let (&codec, payload) = stored.split_first().ok_or(CodecError::Empty)?;
        let length = match codec {
            0 => {
                if payload.len() != expected {
                    return Err(CodecError::Payload { expected });
                }
                plain.copy_from_slice(payload);
                return Ok(());
            }
            1 => lz4_flex::block::decompress_into(payload, plain).ok(),
            2 => self.zstd.decompress_to_buffer(payload, plain).ok(),
            other => return Err(CodecError::UnknownCodec(other)),
        };
        if length == Some(expected) { Ok(()) } else { Err(CodecError::Payload { expected }) }
    }
}

/// Whether a sample of the content has nearly eight bits of entropy for each byte and no repeats of
/// its own, as encrypted or compressed data has. About 3 µs for a chunk of any size.
fn looks_random(plain: &[u8]) -> bool {
    let Some(counts) = sample::<4096>(plain) else { return false };
    // For uniformly random bytes, 4096 samples give Σc² ≈ 4096²/256 + 4096 ≈ 69 600 (collision entropy).
    // 84 000 is about 7.64 bits: text, code, numbers and DNA lie far above it.
    let squares: u64 = counts.iter().map(|&c| u64::from(c) * u64::from(c)).sum();
    squares < 84_000 && !repeats(plain)
}

/// How often each byte occurs in `SAMPLE` bytes of the content, eight pieces spread over it; none where it is too short.
fn sample<const SAMPLE: usize>(plain: &[u8]) -> Option<[u16; 256]> {
    const PIECES: usize = 8;
    let piece = SAMPLE / PIECES;
    if plain.len() < 2 * SAMPLE {
        return None;
    }
    // Four tables: where a byte recurs, as zeros do, each step would wait for the one before.
    let mut lanes = [[0u16; 256]; 4];
    let stride = (plain.len() - piece) / (PIECES - 1);
    for number in 0..PIECES {
        for four in plain[number * stride..][..piece].chunks_exact(4) {
            for (lane, &byte) in lanes.iter_mut().zip(four) {
                lane[usize::from(byte)] += 1;
            }
        }
    }
    let [mut counts, others @ ..] = lanes;
    for other in others {
        for (count, more) in counts.iter_mut().zip(other) {
            *count += more;
        }
    }
    Some(counts)
}

/// Whether the content is text over a few letters that does not repeat itself: DNA, mostly. Short
/// accidental repeats are all that zstd finds there, and they cost more than they save: without them
/// 32 KiB of random bases take 17 % less (3.9 to 1 instead of 3.2) and little more than half the time.
fn is_letters(plain: &[u8]) -> bool {
    const SAMPLE: usize = 2048;
    /// Four bases in both cases, the unknown one, gaps, ends of lines.
    const LETTERS: usize = 12;
    let Some(counts) = sample::<SAMPLE>(plain) else { return false };
    let used = counts.iter().filter(|&&count| count > 0).count();
    // Numbers have zeros in most of their bytes, and repeats that are worth finding: no letter may have
    // more than half of all places.
    let most = counts.iter().copied().max().unwrap_or(0);
    (2..=LETTERS).contains(&used) && usize::from(most) <= SAMPLE / 2 && !repeats_at_any_place(plain)
}

/// Whether stretches of 16 bytes recur in the first 4 KiB, wherever they begin. One in eight is looked
/// for, chosen by its content.
fn repeats_at_any_place(plain: &[u8]) -> bool {
    let mut seen = [0u64; 256];
    let mut hits = 0;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&plain[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    for at in 0..plain.len().min(4096).saturating_sub(16) {
        let mixed = word(at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if mixed >> 61 != 0 {
            continue;
        }
        let whole = mixed ^ word(at + 8).rotate_left(31);
        let slot = (mixed >> 53) as usize & 255;
        hits += u32::from(seen[slot] == whole);
        seen[slot] = whole;
    }
    hits >= 8
}

/// Whether eight-byte words recur in the first 16 KiB: one word in four is looked for in a small table.
/// Catches high-entropy content that repeats, which order-0 entropy cannot see.
fn repeats(plain: &[u8]) -> bool {
    let mut seen = [0u64; 1024];
    let mut hits = 0;
    for place in plain.chunks_exact(8).take(2 << 10) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(place);
        let word = u64::from_le_bytes(bytes);
        let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if mixed & 0x3000_0000 != 0 {
            continue;
        }
        let slot = (mixed >> 54) as usize;
        if seen[slot] == word && word != 0 {
            hits += 1;
        }
        seen[slot] = word;
    }
    hits >= 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Compression; 6] = [
        Compression::Auto,
        Compression::None,
        Compression::Lz4,
        Compression::Zstd(-3),
        Compression::Zstd(1),
        Compression::Zstd(9),
    ];

    fn noise(bytes: usize, mut seed: u64) -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()
        })
        .flatten()
        .take(bytes)
        .collect()
    }

    fn stored(compressor: &mut Compressor, plain: &[u8], compression: Compression) -> Vec<u8> {
        match compressor.compress(plain, compression) {
            Compressed::Smaller(bytes) => bytes.to_vec(),
            Compressed::Raw => [&[RAW], plain].concat(),
        }
    }

    proptest! {
        #[test]
        fn gives_back_what_it_got(seed in 1u64.., repeat in 1usize..40, length in 0usize..3000) {
            let plain = noise(length, seed).repeat(repeat);
            let mut compressor = Compressor::new(64 << 10).unwrap();
            for compression in ALL {
                let bytes = stored(&mut compressor, &plain, compression);
                prop_assert!(bytes.len() <= plain.len() + 1);
                let mut back = vec![0; plain.len()];
                Decompressor::new().unwrap().decompress(&bytes, &mut back).unwrap();
                prop_assert_eq!(&back, &plain);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, codec in 0u8..4, length in 0usize..10_000) {
            bytes.insert(0, codec);
            let mut plain = vec![0; length];
            let _ = Decompressor::new().unwrap().decompress(&bytes, &mut plain);
        }

        #[test]
        fn names_parse_back(level in -7i32..=19) {
            for compression in [Compression::Zstd(level), Compression::Auto, Compression::Lz4, Compression::None] {
                prop_assert_eq!(compression.to_string().parse::<Compression>().unwrap(), compression);
            }
        }
    }

    #[test]
    fn a_chunk_of_another_length_is_refused() {
        let mut compressor = Compressor::new(64 << 10).unwrap();
        let plain = vec![b'A'; 8192];
        for compression in ALL {
            let bytes = stored(&mut compressor, &plain, compression);
            for length in [0, 8191, 8193] {
                let mut back = vec![0; length];
                let refused = Decompressor::new().unwrap().decompress(&bytes, &mut back);
                assert_eq!(refused, Err(CodecError::Payload { expected: length }), "{compression}, {length}");
            }
        }
    }

    #[test]
    fn only_what_does_not_compress_is_stored_raw() {
        let mut compressor = Compressor::new(64 << 10).unwrap();
        assert!(looks_random(&noise(64 << 10, 1)));
        assert_eq!(compressor.compress(&noise(64 << 10, 1), Compression::Auto), Compressed::Raw);
        let dna: Vec<u8> = noise(64 << 10, 2).iter().map(|b| b"ACGT"[usize::from(b & 3)]).collect();
        let floats: Vec<u8> = (0..8192).flat_map(|n| (f64::from(n) * 0.37).to_le_bytes()).collect();
        let repeated = noise(4 << 10, 3).repeat(16);
        for (name, plain) in [("dna", dna), ("floats", floats), ("repeats", repeated)] {
            assert!(!looks_random(&plain), "{name}");
            assert!(matches!(compressor.compress(&plain, Compression::Auto), Compressed::Smaller(_)), "{name}");
        }
    }

    #[test]
    fn letters_take_little_more_than_their_entropy() {
        let bases = |bytes: Vec<u8>| -> Vec<u8> { bytes.iter().map(|b| b"ACGT"[usize::from(b & 3)]).collect() };
        let dna = bases(noise(32 << 10, 5));
        let mut lines = dna.clone();
        lines.iter_mut().skip(60).step_by(61).for_each(|end| *end = b'\n');
        let mut compressor = Compressor::new(64 << 10).unwrap();
        for (name, plain) in [("bases", &dna), ("lines", &lines)] {
            assert!(is_letters(plain), "{name}");
            for compression in [Compression::Auto, Compression::Zstd(3)] {
                let bytes = stored(&mut compressor, plain, compression);
                assert!(bytes.len() * 100 < plain.len() * 30, "{name}: {} bytes", bytes.len());
                let mut back = vec![0; plain.len()];
                Decompressor::new().unwrap().decompress(&bytes, &mut back).unwrap();
                assert_eq!(back, *plain);
            }
        }
    }

    #[test]
    fn what_repeats_itself_or_is_no_text_is_not_taken_for_letters() {
        let read: Vec<u8> = noise(150, 7).iter().map(|b| b"ACGT"[usize::from(b & 3)]).collect();
        assert!(!is_letters(&read.repeat(200)), "the same read again and again");
        let numbers: Vec<u8> = (0..4096u64).flat_map(|n| (n % 10).to_le_bytes()).collect();
        assert!(!is_letters(&numbers), "small numbers");
        assert!(!is_letters(&vec![0; 32 << 10]), "zeros");
        assert!(!is_letters(&noise(32 << 10, 3)), "noise");
        let text = b"a sentence like this one has more letters than a genome, in both cases. ".repeat(500);
        assert!(!is_letters(&text), "prose");
    }

    #[test]
    fn refuses_names_that_mean_nothing() {
        for bad in ["", "gzip", "zstd:", "zstd:20", "zstd:-8", "zstd:x", "LZ4"] {
            assert!(bad.parse::<Compression>().is_err(), "{bad:?} was accepted");
        }
    }
}
