//! Cheap evidence that a file's content is what it was: BLAKE3 of its two ends, of all of it where
//! it is small.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much of either end is looked at.
pub const END: u64 = 64 << 10;
/// Up to this size the whole file is looked at.
pub const WHOLE: u64 = 4 << 20;

/// Digests of the first `size` bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// Of the first 64 KiB.
    #[serde(with = "hex::serde")]
    pub head: [u8; 32],
    /// Of the last 64 KiB.
    #[serde(with = "hex::serde")]
    pub tail: [u8; 32],
    /// Of everything, up to 4 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

impl Digests {
    /// Of the first `size` bytes. A file that is shorter is an error (`UnexpectedEof`).
    pub fn of(file: &File, size: u64) -> io::Result<Self> {
        let tail = size.saturating_sub(END);
        let whole = if size <= WHOLE { Some(hash(file, 0, size)?.to_hex().to_string()) } else { None };
        Ok(Self { head: hash(file, 0, size.min(END))?.into(), tail: hash(file, tail, size - tail)?.into(), whole })
    }
}

fn hash(file: &File, at: u64, length: u64) -> io::Result<blake3::Hash> {
    // At most WHOLE bytes.
    let mut buffer = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut buffer, at)?;
    Ok(blake3::hash(&buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_does_not_change_the_digests_of_what_was_there() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 200_000], 0).unwrap();
        let before = Digests::of(&file, 200_000).unwrap();
        file.write_all_at(b"more", 200_000).unwrap();
        assert_eq!(Digests::of(&file, 200_000).unwrap(), before);
        file.write_all_at(b"!", 100_000).unwrap();
        let after = Digests::of(&file, 200_000).unwrap();
        assert_eq!((&after.head, &after.tail), (&before.head, &before.tail));
        assert_ne!(after.whole, before.whole, "a change in the middle shows in a small file");
        assert!(Digests::of(&file, 300_000).is_err());
    }
}
