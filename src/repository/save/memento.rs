//! What a save hands to the next one of the same container: the names of what it has read ahead, by fingerprint.
//!
//! A save of memory that has hardly changed would otherwise name all of it again before it finds that out. With this
//! it recognizes what is as it was at the cost of a fingerprint, as the frozen pass does after pre-copy.
//!
//! ```text
//! magic │ repository │ key │ chunks: fingerprint, name, length, each │ order: numbers of chunks │ BLAKE3 of all before
//! ```
//!
//! It says nothing about what the repository holds: only which name belongs to which bytes. It holds the secret key of
//! the fingerprints, so it lies in memory without a name that PID 1 holds and hands to its engines alone, and ends with
//! the container. The program that reads it is the one that has written it, so it has no versions.

use super::recollection::{Remembered, Seen};
use crate::repository::crypto::{ChunkId, RepositoryId};
use crate::repository::fingerprint::FingerprintKey;
use std::sync::Arc;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"rvnmemnt";
/// A fingerprint, a name and a length.
const CHUNK: usize = 16 + 32 + 4;
const DIGEST: usize = 32;

/// All that is remembered, for the next save.
pub(super) fn write(remembered: &Remembered, repository: RepositoryId) -> Zeroizing<Vec<u8>> {
    let (chunks, order) = remembered.parts();
    let length = MAGIC.len() + 16 + FingerprintKey::LENGTH + 16 + chunks.len() * CHUNK + order.len() * 4 + DIGEST;
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&repository.0);
    out.extend_from_slice(&remembered.key.to_bytes());
    for count in [chunks.len(), order.len()] {
        out.extend_from_slice(&(count as u64).to_le_bytes());
    }
    for Seen { fingerprint, id, length } in chunks {
        for word in fingerprint {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&length.to_le_bytes());
    }
    for number in order {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// What an earlier save has handed on, if it was of this repository and was written to its end.
pub(super) fn read(bytes: &[u8], repository: RepositoryId) -> Option<Remembered> {
    let (bytes, digest) = bytes.split_last_chunk::<DIGEST>()?;
    if blake3::hash(bytes).as_bytes() != digest {
        return None;
    }
    let mut rest = Rest(bytes);
    if rest.take()? != *MAGIC || rest.take()? != repository.0 {
        return None;
    }
    let key = FingerprintKey::from_bytes(rest.slice(FingerprintKey::LENGTH)?)?;
    let count = usize::try_from(u64::from_le_bytes(rest.take()?)).ok()?;
    let places = usize::try_from(u64::from_le_bytes(rest.take()?)).ok()?;
    let mut seen = Rest(rest.slice(count.checked_mul(CHUNK)?)?);
    let mut numbers = Rest(rest.slice(places.checked_mul(4)?)?);
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        chunks.push(Seen {
            fingerprint: [u64::from_le_bytes(seen.take()?), u64::from_le_bytes(seen.take()?)],
            id: ChunkId(seen.take()?),
            length: u32::from_le_bytes(seen.take()?),
        });
    }
    let mut order = Vec::with_capacity(places);
    for _ in 0..places {
        order.push(u32::from_le_bytes(numbers.take()?));
    }
    Some(Remembered::new(Arc::new(key), chunks, order))
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(slice)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: RepositoryId = RepositoryId([1; 16]);

    fn remembered() -> Option<Remembered> {
        let key = Arc::new(FingerprintKey::random()?);
        let seen = |n: u8| Seen { fingerprint: [n.into(), 7], id: ChunkId([n; 32]), length: 4096 * u32::from(n) };
        Some(Remembered::new(key, (1..5).map(seen).collect(), vec![0, 1, 2, 1, 3]))
    }

    #[test]
    fn what_was_handed_on_is_what_there_was() {
        let Some(before) = remembered() else { return };
        let after = read(&write(&before, HERE), HERE).unwrap();
        for place in 0..6 {
            assert_eq!(before.at(place), after.at(place));
        }
        assert_eq!(after.find(&[2, 7]).unwrap().0, 1);
        assert!(after.find(&[2, 8]).is_none());
        let page = vec![3; 4096];
        assert_eq!(before.key.of(&page), after.key.of(&page));
    }

    #[test]
    fn nothing_is_taken_that_is_not_whole_or_of_another_repository() {
        let Some(remembered) = remembered() else { return };
        let bytes = write(&remembered, HERE);
        assert!(read(&bytes, RepositoryId([2; 16])).is_none());
        for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            assert!(read(&bytes[..length], HERE).is_none(), "{length} bytes");
        }
        for place in (0..bytes.len()).step_by(41) {
            let mut other = bytes.to_vec();
            other[place] ^= 1;
            assert!(read(&other, HERE).is_none(), "byte {place}");
        }
        // Of a program that counts otherwise: its digest is right.
        let mut short = bytes[..bytes.len() - DIGEST - 4].to_vec();
        short.extend_from_slice(blake3::hash(&short).as_bytes());
        assert!(read(&short, HERE).is_none());
    }
}
