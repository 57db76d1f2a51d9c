//! Who may read a repository: key slots.
//!
//! Content is encrypted with the repository's random key. That key lies in the store wrapped by a
//! user's key, once for each user key: in `keys/<slot>.json`. So keys are rotated by adding a slot
//! and removing another, and no content is rewritten.

use super::crypto::{RepositoryId, RepositoryKey};
use super::document;
use super::layout;
use super::timestamp;
use super::user_key::UserKey;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::store::{Store, StoreError};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Far above what a slot needs.
pub(super) const MAX_LEN: u64 = 16 << 10;
/// Nobody has more keys to one repository; a store with more is not ours.
const MAX_SLOTS: usize = 64;
/// Kind of a slot's document.
pub(super) const KIND: &str = "key slot";
const CONTEXT_WRAP: &str = "revenant 2026-01 key slot v1";

/// Why a repository does not open, or a key cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The repository is encrypted and no key was given.
    #[error("the checkpoints of this job are encrypted, and no key was given")]
    Missing,
    /// The key opens none of the slots.
    #[error("the key does not open this job's checkpoints")]
    Wrong {
        /// How many slots there are.
        slots: usize,
    },
    /// An encrypted repository without a slot.
    #[error("the checkpoints of this job are encrypted, and their key slots are gone")]
    NoSlots,
    /// A key was given and the repository is not encrypted.
    #[error("a key was given, but the checkpoints of this job are not encrypted")]
    NotEncrypted,
    /// The key itself is of no use.
    #[error("the key is not usable: {reason}")]
    Unusable {
        /// In what respect.
        reason: String,
    },
    /// The key file cannot be read.
    #[error("cannot read the key file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There is no such slot.
    #[error("there is no key slot {slot}")]
    NoSuchSlot {
        /// As given.
        slot: String,
    },
    /// Without this slot nobody could read the repository.
    #[error("key slot {slot} is the last one")]
    LastSlot {
        /// Its name.
        slot: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for KeyError {
    fn explain(&self) -> Problem {
        let (cause, next) = match self {
            Self::Missing => (
                "neither --key-file (REVENANT_KEY_FILE) nor REVENANT_KEY is set in this container".to_owned(),
                "give the key that the job was started with, for example from a Kubernetes Secret",
            ),
            Self::Wrong { slots } => (
                format!("it is another key than the {slots} that were set up for this job"),
                "give the right key; without it the checkpoints cannot be read by anybody, and the job has to start under a new name",
            ),
            Self::NoSlots => (
                "the objects below keys/ were removed from the store".to_owned(),
                "bring keys/ back from a copy of the store; without it the checkpoints cannot be read by anybody",
            ),
            Self::NotEncrypted => (
                "the job was started without a key; continuing would leave its checkpoints readable by others"
                    .to_owned(),
                "start the job under a new name to encrypt it, or remove the key from this container",
            ),
            Self::Unusable { reason } => (
                reason.clone(),
                "make a key with `head -c32 /dev/urandom | base64`, or use a passphrase of at least 12 characters",
            ),
            Self::File { reason, .. } => (reason.clone(), "check the path, the mounted Secret, and who may read it"),
            Self::NoSuchSlot { .. } => {
                ("the name is mistyped, or it was removed before".to_owned(), "`revenant key list` shows the slots")
            }
            Self::LastSlot { .. } => (
                "without a slot nobody could ever read the checkpoints again".to_owned(),
                "add another key first: `revenant key add`",
            ),
            Self::Store(error) => return error.explain(),
        };
        Problem::new(Exit::Key, self.to_string(), cause, next)
    }
}

/// How the wrapping key comes from the user's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Kdf {
    /// The user's key has 256 random bits.
    Blake3,
    /// The user's key is a passphrase (RFC 9106).
    Argon2id {
        /// Memory, in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

/// What is known of a slot without any key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotHeader {
    version: u32,
    repository: RepositoryId,
    /// The slot's name.
    pub slot: String,
    /// When it was made.
    #[serde(with = "timestamp")]
    pub created: SystemTime,
    kdf: Kdf,
    #[serde(with = "hex::serde")]
    salt: [u8; 32],
}

impl SlotHeader {
    /// Whether the key of this slot is a passphrase.
    pub fn is_passphrase(&self) -> bool {
        matches!(self.kdf, Kdf::Argon2id { .. })
    }

    /// Exactly what is stored, bound into the wrapped key.
    fn bound(&self) -> Result<Vec<u8>, KeyError> {
        serde_json::to_vec(self).map_err(|error| KeyError::Unusable { reason: error.to_string() })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Slot {
    #[serde(flatten)]
    header: SlotHeader,
    #[serde(with = "hex::serde")]
    nonce: [u8; 12],
    /// The repository key and its tag.
    #[serde(with = "hex::serde")]
    wrapped: [u8; 48],
}

impl Slot {
    fn wrap(repository: RepositoryId, key: &RepositoryKey, user: &UserKey) -> Result<Self, KeyError> {
        let header = SlotHeader {
            version: 1,
            repository,
            slot: hex::encode(rand::random::<[u8; 8]>()),
            created: timestamp::now(),
            kdf: user.kdf(),
            salt: rand::random(),
        };
        let nonce: [u8; 12] = rand::random();
        let mut wrapped = [0; 48];
        wrapped[..32].copy_from_slice(key.expose());
        let cipher = wrapping_cipher(&header, user)?;
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header.bound()?),
                &mut wrapped[..32],
            )
            .map_err(|_| KeyError::Unusable { reason: "it cannot be wrapped".to_owned() })?;
        wrapped[32..].copy_from_slice(tag.as_ref());
        Ok(Self { header, nonce, wrapped })
    }

    /// The repository key, or none when the user's key is not this slot's.
    fn unwrap_with(&self, user: &UserKey) -> Result<Option<RepositoryKey>, KeyError> {
        if !user.fits(&self.header.kdf) {
            return Ok(None);
        }
        let cipher = wrapping_cipher(&self.header, user)?;
        let mut bytes = Zeroizing::new(self.wrapped);
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        match cipher.open_in_place(nonce, Aad::from(self.header.bound()?), &mut *bytes) {
            Ok(plain) => {
                let mut key = Zeroizing::new([0; 32]);
                key.copy_from_slice(plain);
                Ok(Some(RepositoryKey::from_bytes(*key)))
            }
            Err(ring::error::Unspecified) => Ok(None),
        }
    }
}

fn wrapping_cipher(header: &SlotHeader, user: &UserKey) -> Result<LessSafeKey, KeyError> {
    let stretched = user.stretch(&header.kdf, &header.salt)?;
    let mut material = Zeroizing::new([0; 64]);
    material[..32].copy_from_slice(&*stretched);
    material[32..].copy_from_slice(&header.salt);
    let key = Zeroizing::new(blake3::derive_key(CONTEXT_WRAP, &*material));
    let unbound = UnboundKey::new(&AES_256_GCM, &*key)
        .map_err(|_| KeyError::Unusable { reason: "it does not make an AES key".to_owned() })?;
    Ok(LessSafeKey::new(unbound))
}

/// The slots of a repository. Slots that do not parse or belong to another repository (left by a
/// writer that lost the race to create it) are passed over.
async fn read_slots(store: &Store, repository: RepositoryId) -> Result<Vec<Slot>, KeyError> {
    let mut slots = Vec::new();
    for info in store.list(layout::KEYS).await?.into_iter().take(MAX_SLOTS) {
        let bytes = match store.get(&info.key, MAX_LEN).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_damage() => {
                tracing::warn!(key = info.key, %error, "a key slot cannot be read");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match document::decode::<Slot>(KIND, &bytes) {
            Ok(slot) if slot.header.repository == repository && layout::key_slot(&slot.header.slot) == info.key => {
                slots.push(slot);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(key = info.key, %error, "a key slot is damaged"),
        }
    }
    Ok(slots)
}

/// The slots of a repository, without their secrets.
pub async fn slots(store: &Store, repository: RepositoryId) -> Result<Vec<SlotHeader>, KeyError> {
    Ok(read_slots(store, repository).await?.into_iter().map(|slot| slot.header).collect())
}

/// Unwraps the repository's key. Also says by which slot.
pub async fn unlock(
    store: &Store,
    repository: RepositoryId,
    user: &UserKey,
) -> Result<(RepositoryKey, String), KeyError> {
    let slots = read_slots(store, repository).await?;
    if slots.is_empty() {
        return Err(KeyError::NoSlots);
    }
    for slot in &slots {
        if let Some(key) = slot.unwrap_with(user)? {
            return Ok((key, slot.header.slot.clone()));
        }
    }
    Err(KeyError::Wrong { slots: slots.len() })
}

/// Adds a slot for another user key, and returns its name. The slot is read back and opened before
/// this returns.
pub async fn add(
    store: &Store,
    repository: RepositoryId,
    key: &RepositoryKey,
    user: &UserKey,
) -> Result<String, KeyError> {
    let slot = Slot::wrap(repository, key, user)?;
    let bytes = document::encode(KIND, &slot).map_err(|error| KeyError::Unusable { reason: error.to_string() })?;
    let name = layout::key_slot(&slot.header.slot);
    store.put(&name, bytes.into()).await?;
    let stored = store.get(&name, MAX_LEN).await?;
    let reread: Slot =
        document::decode(KIND, &stored).map_err(|error| KeyError::Unusable { reason: error.to_string() })?;
    match reread.unwrap_with(user)? {
        Some(again) if again.expose() == key.expose() => Ok(slot.header.slot),
        _ => Err(KeyError::Unusable { reason: "the slot that was written does not open".to_owned() }),
    }
}

/// Removes a slot. The last one stays.
pub async fn remove(store: &Store, repository: RepositoryId, slot: &str) -> Result<(), KeyError> {
    let slots = slots(store, repository).await?;
    if !slots.iter().any(|known| known.slot == slot) {
        return Err(KeyError::NoSuchSlot { slot: slot.chars().take(64).collect() });
    }
    if slots.len() == 1 {
        return Err(KeyError::LastSlot { slot: slot.to_owned() });
    }
    Ok(store.delete(&layout::key_slot(slot)).await?)
}

/// Replaces `old` by `new`: adds a slot, then removes the one that `old` opens. Interrupted between
/// the two, both keys work. Returns the new slot's name.
pub async fn rotate(store: &Store, repository: RepositoryId, old: &UserKey, new: &UserKey) -> Result<String, KeyError> {
    let (key, old_slot) = unlock(store, repository, old).await?;
    let new_slot = add(store, repository, &key, new).await?;
    crate::failpoint!("key-rotate-added");
    remove(store, repository, &old_slot).await?;
    Ok(new_slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fault::{FailNth, Moment};
    use proptest::prelude::*;
    use std::sync::Arc;

    const REPOSITORY: RepositoryId = RepositoryId([3; 16]);

    fn user(text: &str) -> UserKey {
        UserKey::from_text(text).unwrap()
    }

    fn random_user() -> UserKey {
        user(&hex::encode(rand::random::<[u8; 32]>()))
    }

    /// Whatever operation fails, before or after it took effect: the old key or the new one opens.
    #[tokio::test]
    async fn a_rotation_that_fails_anywhere_locks_nobody_out() {
        for number in 1.. {
            let mut done = false;
            for (moment, and_later) in [(Moment::Before, true), (Moment::After, true), (Moment::Before, false)] {
                let store = Store::memory();
                let (old, new, key) = (random_user(), random_user(), RepositoryKey::random());
                add(&store, REPOSITORY, &key, &old).await.unwrap();
                let faulty = store.clone().with_fault(Arc::new(FailNth { number, and_later, moment }));
                let result = rotate(&faulty, REPOSITORY, &old, &new).await;
                let context = format!("operation {number} {moment:?}: {result:?}");
                let by_old = unlock(&store, REPOSITORY, &old).await;
                let by_new = unlock(&store, REPOSITORY, &new).await;
                assert!(by_old.is_ok() || by_new.is_ok(), "{context}");
                assert!(result.is_err() || by_new.is_ok() && by_old.is_err(), "{context}");
                for (again, _) in by_old.into_iter().chain(by_new) {
                    assert_eq!(again.expose(), key.expose(), "{context}");
                }
                done |= result.is_ok() && and_later;
            }
            if done {
                assert!(number > 4, "only {number} operations");
                return;
            }
        }
    }

    #[tokio::test]
    async fn rotation_changes_who_opens_and_not_what_is_opened() {
        let store = Store::memory();
        let (old, new) = (random_user(), user("correct horse battery staple"));
        let key = RepositoryKey::random();
        add(&store, REPOSITORY, &key, &old).await.unwrap();
        let (again, slot) = unlock(&store, REPOSITORY, &old).await.unwrap();
        assert_eq!(again.expose(), key.expose());
        assert!(matches!(remove(&store, REPOSITORY, &slot).await, Err(KeyError::LastSlot { .. })));
        rotate(&store, REPOSITORY, &old, &new).await.unwrap();
        assert!(matches!(unlock(&store, REPOSITORY, &old).await, Err(KeyError::Wrong { slots: 1 })));
        assert_eq!(unlock(&store, REPOSITORY, &new).await.unwrap().0.expose(), key.expose());
        assert!(matches!(
            unlock(&store, REPOSITORY, &user("correct horse battery stable")).await,
            Err(KeyError::Wrong { .. })
        ));
    }

    #[tokio::test]
    async fn a_slot_works_in_its_own_repository_only() {
        let store = Store::memory();
        let owner = random_user();
        let slot = add(&store, REPOSITORY, &RepositoryKey::random(), &owner).await.unwrap();
        let other = RepositoryId([4; 16]);
        assert!(matches!(unlock(&store, other, &owner).await, Err(KeyError::NoSlots)));
        let name = layout::key_slot(&slot);
        let mut moved: Slot = document::decode(KIND, &store.get(&name, MAX_LEN).await.unwrap()).unwrap();
        moved.header.repository = other;
        store.put(&name, document::encode(KIND, &moved).unwrap().into()).await.unwrap();
        assert!(
            matches!(unlock(&store, other, &owner).await, Err(KeyError::Wrong { .. })),
            "the repository is bound in"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_slot_never_opens_wrongly(at: prop::sample::Index, byte: u8) {
            let owner = UserKey::from_text(&"ab".repeat(32)).unwrap();
            let key = RepositoryKey::from_bytes([5; 32]);
            let slot = Slot::wrap(REPOSITORY, &key, &owner).unwrap();
            let mut bytes = document::encode(KIND, &slot).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(parsed) = document::decode::<Slot>(KIND, &bytes)
                && let Ok(Some(opened)) = parsed.unwrap_with(&owner) {
                prop_assert_eq!(opened.expose(), key.expose());
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_slot(bytes: Vec<u8>) {
            prop_assert!(document::decode::<Slot>(KIND, &bytes).is_err());
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        insta::assert_snapshot!(
            [KeyError::Missing, KeyError::Wrong { slots: 2 }, KeyError::NoSlots, KeyError::NotEncrypted]
                .map(|error| error.explain().to_string()).join("\n\n"), @r"
the checkpoints of this job are encrypted, and no key was given
  why:  neither --key-file (REVENANT_KEY_FILE) nor REVENANT_KEY is set in this container
  next: give the key that the job was started with, for example from a Kubernetes Secret

the key does not open this job's checkpoints
  why:  it is another key than the 2 that were set up for this job
  next: give the right key; without it the checkpoints cannot be read by anybody, and the job has to start under a new name

the checkpoints of this job are encrypted, and their key slots are gone
  why:  the objects below keys/ were removed from the store
  next: bring keys/ back from a copy of the store; without it the checkpoints cannot be read by anybody

a key was given, but the checkpoints of this job are not encrypted
  why:  the job was started without a key; continuing would leave its checkpoints readable by others
  next: start the job under a new name to encrypt it, or remove the key from this container
");
    }
}
