//! The document that makes a generation exist: what it consists of, and what restores it.
//!
//! A frame with a digest, which anybody can check, around content that only the repository's key
//! opens. The frame's identity is random, so a number that is used again never repeats a nonce.

use super::crypto::{Crypt, OVERHEAD, ObjectId, ObjectKind, RepositoryId};
use super::timestamp;
use crate::job::{Generation, JobName};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

const MAGIC: [u8; 8] = *b"RVNTMFST";
/// The version that this revenant writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Magic, version, reserved, identity, length.
const BOUND: usize = 8 + 4 + 4 + 32 + 8;
const HEADER: usize = BOUND + 32;
/// Longest manifest: 64 MiB, enough for the packs of some hundred terabytes.
pub const MAX_LEN: u64 = 64 << 20;

/// The index object of the generation: where each image's bytes are. Its seal covers every byte, and
/// its identity is random, so nothing else can stand in for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IndexRef {
    /// Its identity, which gives its key.
    pub id: ObjectId,
    /// Its length in bytes.
    pub len: u64,
}

/// A pack that holds chunks of the generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRef {
    /// Its identity, which gives its key.
    pub id: ObjectId,
    /// Its length in bytes.
    pub len: u64,
}

/// An image that CRIU wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageEntry {
    /// Its file name.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// What a save cost, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Sum of the images' lengths, in bytes.
    pub image_bytes: u64,
    /// Bytes of pages that are all zero.
    pub zero_bytes: u64,
    /// Bytes of chunks that were not in the store before, before compression.
    pub new_bytes: u64,
    /// Bytes written to packs and index.
    pub stored_bytes: u64,
    /// For how long the workload was frozen, in milliseconds.
    pub frozen_ms: u64,
    /// From request to commit, in milliseconds.
    pub total_ms: u64,
}

/// One generation of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which repository it belongs to.
    pub repository: RepositoryId,
    /// Which job it was made for, for people.
    pub job: JobName,
    /// Its own name.
    pub generation: Generation,
    /// When it was committed.
    #[serde(with = "timestamp")]
    pub created: SystemTime,
    /// The generation that it was compared with.
    pub base: Option<Generation>,
    /// The generation of which this is a copy, made by repacking: if that is still there, prune removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Generation>,
    /// Why it was made (`SIGTERM`, `request`, …).
    pub reason: String,
    /// What CRIU wrote, in its order.
    pub images: Vec<ImageEntry>,
    /// Where each image's bytes are.
    pub index: IndexRef,
    /// Every pack that has a chunk of this generation, also those that earlier generations wrote.
    pub packs: Vec<PackRef>,
    /// What the checkpoint room records: processes, stdio, compatibility, files.
    pub checkpoint: serde_json::Value,
    /// What it cost.
    pub stats: Stats,
}

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Written by a newer revenant.
    #[error("it has version {found}, and this revenant reads up to version {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Cut, changed, or something else.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It is longer than [`MAX_LEN`].
    #[error("it would have {0} bytes, more than a manifest may have")]
    TooLong(u64),
}

impl Manifest {
    /// The manifest as it is stored. Each call takes a new identity.
    pub fn seal(&self, crypt: &Crypt) -> Result<Vec<u8>, ManifestError> {
        let mut payload = serde_json::to_vec(self).map_err(|_| ManifestError::Damaged("it has no text form"))?;
        let len = (payload.len() + OVERHEAD) as u64;
        if len + HEADER as u64 > MAX_LEN {
            return Err(ManifestError::TooLong(len));
        }
        let id = ObjectId::random();
        let mut bytes = Vec::with_capacity(HEADER + payload.len() + OVERHEAD);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&id.0);
        bytes.extend_from_slice(&len.to_le_bytes());
        crypt.for_object(ObjectKind::Manifest, &id).seal(0, &bound(&bytes, self.generation), &mut payload);
        let digest = digest(&bytes, &payload);
        bytes.extend_from_slice(&digest);
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    /// Opens a manifest that was stored under the name of `generation`.
    pub fn open(bytes: &[u8], generation: Generation, crypt: &Crypt) -> Result<Self, ManifestError> {
        let (id, header, payload) = check_frame(bytes)?;
        let mut payload = payload.to_vec();
        crypt
            .for_object(ObjectKind::Manifest, &id)
            .open(0, &bound(header, generation), &mut payload)
            .map_err(|_| ManifestError::Damaged("it does not open: changed, renamed, or of another repository"))?;
        let manifest: Self =
            serde_json::from_slice(&payload).map_err(|_| ManifestError::Damaged("its content does not parse"))?;
        if manifest.generation != generation {
            return Err(ManifestError::Damaged("it names another generation"));
        }
        Ok(manifest)
    }
}

/// Checks all that can be checked without a key, and returns identity, bound header and payload.
pub fn check_frame(bytes: &[u8]) -> Result<(ObjectId, &[u8], &[u8]), ManifestError> {
    let damaged = ManifestError::Damaged;
    if bytes.len() < HEADER {
        return Err(damaged("it is cut off"));
    }
    let (header, rest) = bytes.split_at(BOUND);
    let (stored, payload) = rest.split_at(HEADER - BOUND);
    if header[..8] != MAGIC {
        return Err(damaged("it is not a manifest"));
    }
    let version = header[8..12].try_into().map_or(0, u32::from_le_bytes);
    // The digest covers the version too: without it, a flipped bit would look like a newer revenant.
    if digest(header, payload) != stored {
        return Err(damaged("its digest does not match"));
    }
    match version {
        VERSION => {}
        0 => return Err(damaged("there is no version 0")),
        found => return Err(ManifestError::Newer { found }),
    }
    let len = header[48..56].try_into().map_or(0, u64::from_le_bytes);
    if len != payload.len() as u64 || len > MAX_LEN {
        return Err(damaged("its length does not match"));
    }
    let mut id = [0; 32];
    id.copy_from_slice(&header[16..48]);
    Ok((ObjectId(id), header, payload))
}

/// The header, and the name under which the manifest is stored.
fn bound(header: &[u8], generation: Generation) -> Vec<u8> {
    let mut bound = header.to_vec();
    bound.extend_from_slice(&generation.epoch.0.to_le_bytes());
    bound.extend_from_slice(&generation.sequence.to_le_bytes());
    bound
}

fn digest(header: &[u8], payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(header).update(payload).finalize().as_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::job::Epoch;
    use crate::repository::crypto::RepositoryKey;
    use proptest::prelude::*;

    pub(in super::super) fn sample(repository: RepositoryId, generation: Generation) -> Manifest {
        Manifest {
            repository,
            job: "sample-job".parse().unwrap(),
            generation,
            created: timestamp::now(),
            base: None,
            replaces: None,
            reason: "request".to_owned(),
            images: vec![ImageEntry { name: "pages-1.img".to_owned(), len: 4096 }],
            index: IndexRef { id: ObjectId([2; 32]), len: 600 },
            packs: vec![PackRef { id: ObjectId([1; 32]), len: 5000 }],
            checkpoint: serde_json::json!({ "pids": [300] }),
            stats: Stats::default(),
        }
    }

    const REPOSITORY: RepositoryId = RepositoryId([7; 16]);
    const GENERATION: Generation = Generation { epoch: Epoch(3), sequence: 7 };

    fn both() -> [Crypt; 2] {
        [Crypt::encrypted(REPOSITORY, &RepositoryKey::from_bytes([1; 32])), Crypt::unencrypted(REPOSITORY)]
    }

    #[test]
    fn opens_under_its_own_name_only() {
        for crypt in both() {
            let manifest = sample(REPOSITORY, GENERATION);
            let bytes = manifest.seal(&crypt).unwrap();
            assert_eq!(Manifest::open(&bytes, GENERATION, &crypt).unwrap(), manifest);
            let other = Generation { sequence: 8, ..GENERATION };
            assert!(Manifest::open(&bytes, other, &crypt).is_err());
        }
    }

    #[test]
    fn finds_every_flipped_bit_and_every_cut_without_a_key() {
        let good = sample(REPOSITORY, GENERATION).seal(&both()[0]).unwrap();
        assert!(check_frame(&good).is_ok());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(check_frame(&bad), Err(ManifestError::Damaged(_))), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(check_frame(&good[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn an_encrypted_manifest_shows_nothing() {
        let bytes = sample(REPOSITORY, GENERATION).seal(&both()[0]).unwrap();
        assert!(!bytes.windows(5).any(|w| w == b"pages"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(mut bytes: Vec<u8>, magic: bool) {
            if magic {
                bytes.splice(0..0, MAGIC);
            }
            prop_assert!(Manifest::open(&bytes, GENERATION, &both()[1]).is_err());
        }
    }
}
