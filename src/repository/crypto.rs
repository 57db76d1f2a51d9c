//! Seals what goes to the store and opens what comes back: authenticated encryption, or in an
//! unencrypted repository a keyed digest in the same place, so that every stored byte is covered
//! either way.
//!
//! One repository key gives, by BLAKE3 key derivation, a key for chunk names and a root for object
//! keys. Each object (a pack, an index, a manifest) has a random 256-bit identity, and with it a
//! key of its own; inside the object the position is the nonce. So no nonce is ever used twice,
//! however many objects there are, and a sealed item opens only in its own repository, object kind,
//! object and position. `docs/format.md` has the drawing.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes that sealing adds at the end of an item, encrypted or not.
pub const OVERHEAD: usize = 16;

const CONTEXT_REPOSITORY: &str = "revenant 2026-01 repository root v1";
const CONTEXT_PLAIN: &str = "revenant 2026-01 unencrypted repository root v1";
const CONTEXT_CHUNK_NAMES: &str = "revenant 2026-01 chunk names v1";
const CONTEXT_OBJECTS: &str = "revenant 2026-01 object keys v1";

/// The name of a chunk: a keyed BLAKE3 of its plain content. Without the repository key nobody can
/// tell from the name what the content is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub [u8; 32]);

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({})", hex::encode(&self.0[..8]))
    }
}

/// The identity of a stored object: 256 random bits, fresh for each attempt to write one. Two
/// different contents are never sealed under the same identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId(pub [u8; 32]);

impl ObjectId {
    /// A fresh identity from the system's random numbers.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({})", hex::encode(&self.0[..8]))
    }
}

/// Text that is not an object's identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an object identity: 64 hexadecimal digits are expected")]
pub struct InvalidObjectId;

impl FromStr for ObjectId {
    type Err = InvalidObjectId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut id = [0; 32];
        // Only the lower-case spelling: one identity has one name.
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidObjectId);
        }
        hex::decode_to_slice(text, &mut id).map_err(|_| InvalidObjectId)?;
        Ok(Self(id))
    }
}

impl TryFrom<String> for ObjectId {
    type Error = InvalidObjectId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.to_string()
    }
}

/// What an object is. Bound into its key, so that one kind cannot be passed off as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Chunks and the pack's own index.
    Pack = 1,
    /// Where each image's bytes are.
    Index = 2,
    /// What makes a generation exist.
    Manifest = 3,
    /// A local spool file of packs that are not yet uploaded.
    Spool = 4,
}

/// An item did not open: it was damaged, cut, moved, or belongs elsewhere. No more is known, by design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored bytes do not match their digest")]
pub struct Forged;

/// The random key of a repository: 256 bits. Wiped from memory when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RepositoryKey([u8; 32]);

impl RepositoryKey {
    /// A fresh key.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// From its bytes, as unwrapped from a key slot.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be wrapped.
    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RepositoryKey(…)")
    }
}

/// The identity of a repository: 128 random bits, in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryId(pub [u8; 16]);

impl RepositoryId {
    /// A fresh identity.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl TryFrom<String> for RepositoryId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut id = [0; 16];
        hex::decode_to_slice(&text, &mut id).map_err(|_| "a repository identity has 32 hexadecimal digits")?;
        Ok(Self(id))
    }
}

impl From<RepositoryId> for String {
    fn from(id: RepositoryId) -> Self {
        id.to_string()
    }
}

/// Names chunks and seals objects of one repository. Cheap to clone.
#[derive(Clone)]
pub struct Crypt(Arc<Roots>);

struct Roots {
    chunk_names: Zeroizing<[u8; 32]>,
    objects: Zeroizing<[u8; 32]>,
    encrypted: bool,
}

impl fmt::Debug for Crypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crypt").field("encrypted", &self.0.encrypted).finish_non_exhaustive()
    }
}

impl Crypt {
    /// For an encrypted repository.
    pub fn encrypted(repository: RepositoryId, key: &RepositoryKey) -> Self {
        let mut material = Zeroizing::new([0; 48]);
        material[..32].copy_from_slice(key.expose());
        material[32..].copy_from_slice(&repository.0);
        Self::from_root(&Zeroizing::new(blake3::derive_key(CONTEXT_REPOSITORY, &*material)), true)
    }

    /// For an unencrypted repository: digests only, keyed with the repository's identity, so that an
    /// object of another repository does not pass.
    pub fn unencrypted(repository: RepositoryId) -> Self {
        Self::from_root(&Zeroizing::new(blake3::derive_key(CONTEXT_PLAIN, &repository.0)), false)
    }

    fn from_root(root: &[u8; 32], encrypted: bool) -> Self {
        Self(Arc::new(Roots {
            chunk_names: Zeroizing::new(blake3::derive_key(CONTEXT_CHUNK_NAMES, root)),
            objects: Zeroizing::new(blake3::derive_key(CONTEXT_OBJECTS, root)),
            encrypted,
        }))
    }

    /// Whether content is encrypted, or only covered by digests.
    pub fn is_encrypted(&self) -> bool {
        self.0.encrypted
    }

    /// The name of a chunk with this plain content.
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0.chunk_names, plain).as_bytes())
    }

    /// The sealer of one object. Costs about a microsecond (one BLAKE3 and one AES key schedule):
    /// make it once for each object.
    pub fn for_object(&self, kind: ObjectKind, id: &ObjectId) -> ObjectCrypt {
        let mut name = [0; 33];
        name[0] = kind as u8;
        name[1..].copy_from_slice(&id.0);
        let key = Zeroizing::new(*blake3::keyed_hash(&self.0.objects, &name).as_bytes());
        if !self.0.encrypted {
            return ObjectCrypt { cipher: Cipher::Digest(key) };
        }
        match UnboundKey::new(&AES_256_GCM, &*key) {
            Ok(unbound) => ObjectCrypt { cipher: Cipher::Aes(Box::new(LessSafeKey::new(unbound))) },
            // The key has 32 bytes, which is the only thing that `ring` checks.
            Err(ring::error::Unspecified) => unreachable!("AES-256 takes a 32-byte key"),
        }
    }
}

/// Seals and opens the items of one object.
pub struct ObjectCrypt {
    cipher: Cipher,
}

enum Cipher {
    Aes(Box<LessSafeKey>),
    Digest(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for ObjectCrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectCrypt(…)")
    }
}

impl ObjectCrypt {
    /// Seals `buf` in place and appends [`OVERHEAD`] bytes. `position` is the item's place in the
    /// object (an offset or a number) and must be used once only for each object; `aad` is bound in
    /// but not stored.
    pub fn seal(&self, position: u64, aad: &[u8], buf: &mut Vec<u8>) {
        let tag = self.seal_detached(position, aad, buf);
        buf.extend_from_slice(&tag);
    }

    /// As [`ObjectCrypt::seal`], with the tag apart, for callers that place it themselves.
    pub fn seal_detached(&self, position: u64, aad: &[u8], buf: &mut [u8]) -> [u8; OVERHEAD] {
        match &self.cipher {
            Cipher::Digest(key) => digest(key, position, aad, buf),
            Cipher::Aes(key) => match key.seal_in_place_separate_tag(nonce(position), Aad::from(aad), buf) {
                Ok(tag) => {
                    let mut out = [0; OVERHEAD];
                    out.copy_from_slice(tag.as_ref());
                    out
                }
                // `ring` refuses only inputs beyond 64 GiB; items are at most a pack.
                Err(ring::error::Unspecified) => unreachable!("an item is far smaller than AES-GCM's limit"),
            },
        }
    }

    /// Opens `buf` in place and cuts the [`OVERHEAD`] off. When it fails, `buf` holds garbage.
    pub fn open(&self, position: u64, aad: &[u8], buf: &mut Vec<u8>) -> Result<(), Forged> {
        let len = self.open_slice(position, aad, buf)?.len();
        buf.truncate(len);
        Ok(())
    }

    /// Opens `buf` (content followed by its tag) in place and returns the content. When it fails,
    /// `buf` holds garbage.
    pub fn open_slice<'a>(&self, position: u64, aad: &[u8], buf: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        let len = buf.len().checked_sub(OVERHEAD).ok_or(Forged)?;
        let (content, stored) = buf.split_at_mut(len);
        let mut tag = [0; OVERHEAD];
        tag.copy_from_slice(stored);
        match &self.cipher {
            Cipher::Digest(key) => {
                // Constant time, so that a forger cannot feel its way to the digest byte by byte.
                let expected = blake3::Hash::from_bytes(widen(&digest(key, position, aad, content)));
                if expected != blake3::Hash::from_bytes(widen(&tag)) {
                    return Err(Forged);
                }
            }
            Cipher::Aes(key) => {
                key.open_in_place_separate_tag(nonce(position), Aad::from(aad), Tag::from(tag), content, 0..)
                    .map_err(|ring::error::Unspecified| Forged)?;
            }
        }
        Ok(content)
    }
}

/// The position as AES-GCM's 96-bit nonce. The key belongs to one object alone.
fn nonce(position: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&position.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// 128 bits of keyed BLAKE3 over position, bound data and content, each of unambiguous length.
fn digest(key: &[u8; 32], position: u64, aad: &[u8], content: &[u8]) -> [u8; OVERHEAD] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&position.to_le_bytes());
    hasher.update(&(aad.len() as u64).to_le_bytes());
    hasher.update(aad);
    hasher.update(content);
    let mut out = [0; OVERHEAD];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..OVERHEAD]);
    out
}

fn widen(tag: &[u8; OVERHEAD]) -> [u8; 32] {
    let mut wide = [0; 32];
    wide[..OVERHEAD].copy_from_slice(tag);
    wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both() -> [Crypt; 2] {
        let id = RepositoryId([7; 16]);
        [Crypt::encrypted(id, &RepositoryKey::from_bytes([1; 32])), Crypt::unencrypted(id)]
    }

    const OBJECT: ObjectId = ObjectId([9; 32]);

    proptest! {
        #[test]
        fn opens_what_was_sealed(content: Vec<u8>, aad: Vec<u8>, position: u64) {
            for crypt in both() {
                let object = crypt.for_object(ObjectKind::Pack, &OBJECT);
                let mut buf = content.clone();
                object.seal(position, &aad, &mut buf);
                prop_assert_eq!(buf.len(), content.len() + OVERHEAD);
                object.open(position, &aad, &mut buf).unwrap();
                prop_assert_eq!(&buf, &content);
            }
        }

        #[test]
        fn refuses_every_flipped_bit(content in proptest::collection::vec(any::<u8>(), 0..200), bit: prop::sample::Index) {
            for crypt in both() {
                let object = crypt.for_object(ObjectKind::Pack, &OBJECT);
                let mut buf = content.clone();
                object.seal(3, b"aad", &mut buf);
                let bit = bit.index(buf.len() * 8);
                buf[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(object.open(3, b"aad", &mut buf), Err(Forged));
            }
        }

        #[test]
        fn refuses_arbitrary_bytes(mut bytes: Vec<u8>, position: u64) {
            for crypt in both() {
                prop_assert!(crypt.for_object(ObjectKind::Index, &OBJECT).open(position, b"", &mut bytes).is_err());
            }
        }

        #[test]
        fn refuses_a_cut_item(content in proptest::collection::vec(any::<u8>(), 1..100), cut in 1usize..116) {
            for crypt in both() {
                let object = crypt.for_object(ObjectKind::Pack, &OBJECT);
                let mut buf = content.clone();
                object.seal(0, b"", &mut buf);
                buf.truncate(buf.len().saturating_sub(cut));
                prop_assert!(object.open(0, b"", &mut buf).is_err());
            }
        }
    }

    #[test]
    fn an_item_opens_only_in_its_own_place() {
        let other_repository = [
            Crypt::encrypted(RepositoryId([8; 16]), &RepositoryKey::from_bytes([1; 32])),
            Crypt::unencrypted(RepositoryId([8; 16])),
        ];
        for (crypt, elsewhere) in both().into_iter().zip(other_repository) {
            let sealed = |()| {
                let mut buf = b"secret".to_vec();
                crypt.for_object(ObjectKind::Pack, &OBJECT).seal(1, b"a", &mut buf);
                buf
            };
            let home = crypt.for_object(ObjectKind::Pack, &OBJECT);
            assert_eq!(home.open(2, b"a", &mut sealed(())), Err(Forged), "another position");
            assert_eq!(home.open(1, b"b", &mut sealed(())), Err(Forged), "other bound data");
            let kind = crypt.for_object(ObjectKind::Index, &OBJECT);
            assert_eq!(kind.open(1, b"a", &mut sealed(())), Err(Forged), "another kind");
            let object = crypt.for_object(ObjectKind::Pack, &ObjectId([10; 32]));
            assert_eq!(object.open(1, b"a", &mut sealed(())), Err(Forged), "another object");
            let job = elsewhere.for_object(ObjectKind::Pack, &OBJECT);
            assert_eq!(job.open(1, b"a", &mut sealed(())), Err(Forged), "another repository");
            assert_eq!(home.open(1, b"a", &mut sealed(())), Ok(()));
        }
    }

    #[test]
    fn encrypted_content_and_names_do_not_show_the_plain_content() {
        let [encrypted, plain] = both();
        let content = vec![42u8; 4096];
        assert_ne!(encrypted.chunk_id(&content).0, *blake3::hash(&content).as_bytes());
        assert_ne!(encrypted.chunk_id(&content), plain.chunk_id(&content));
        let mut buf = content.clone();
        encrypted.for_object(ObjectKind::Pack, &OBJECT).seal(0, b"", &mut buf);
        assert!(!buf.windows(8).any(|w| w == [42; 8]));
    }

    #[test]
    fn debug_never_prints_secrets() {
        let key = RepositoryKey::from_bytes([0xab; 32]);
        let crypt = Crypt::encrypted(RepositoryId([7; 16]), &key);
        let text = format!("{key:?} {crypt:?} {:?}", crypt.for_object(ObjectKind::Pack, &OBJECT));
        assert!(!text.contains("171") && !text.contains("ab,") && !text.contains("abab"), "{text}");
    }

    /// The derivations are part of the format: a change here makes stored checkpoints unreadable.
    #[test]
    fn derivations_are_frozen() {
        let [encrypted, plain] = both();
        let sealed = |crypt: &Crypt| {
            let mut buf = b"frozen".to_vec();
            crypt.for_object(ObjectKind::Pack, &OBJECT).seal(5, b"aad", &mut buf);
            hex::encode(buf)
        };
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}\n{}",
            hex::encode(encrypted.chunk_id(b"x").0),
            hex::encode(plain.chunk_id(b"x").0),
            sealed(&encrypted),
            sealed(&plain)
        ), @r"
b01bb0e90ca52ac2fe5bcb77a5ce3830dfa771d2a9c242e5ea4e8c7c39ebf5d7
454603bca567b5733e163d187bd4d1d838e5d2143b4753a2c157f519031bc774
986875b5cca12bc08c6b61f0963eb21ddb5cabb2dbe8
66726f7a656eeba796f60dd37a549ee657b376972de2
");
    }
}
