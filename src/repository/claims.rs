//! The documents below `claims/`, and what follows from them: who has the job, and which generations
//! exist.

use super::claim::ClaimError;
use super::document::{self, DocumentError};
use super::{layout, timestamp};
use crate::checkpoint::protocol::Holder;
use crate::job::{Epoch, Generation};
use crate::store::{Created, Store, StoreError};
use crate::trigger::interval::History;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

pub(super) const CLAIM: &str = "claim";
pub(super) const SEAL: &str = "seal";
pub(super) const BEAT: &str = "beat";
pub(super) const RELEASED: &str = "released";

/// A seal with a million generations; nothing else is nearly as long.
const MAX_LEN: u64 = 64 << 20;

/// `claims/<epoch>.claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub holder: Holder,
    #[serde(with = "timestamp")]
    pub at: SystemTime,
    pub lease_seconds: u64,
}

impl Taken {
    pub(super) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }
}

/// `claims/<epoch>.seal`: the generations of earlier epochs that exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    pub accepted: Vec<Generation>,
}

/// `claims/<epoch>.beat` and `.released`. Two beats are never equal, whatever the clock says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Beat {
    #[serde(with = "timestamp")]
    at: SystemTime,
    nonce: String,
    /// What the container held of its memory limit, for whoever finds it dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<f64>,
}

impl Beat {
    pub(super) fn now() -> Self {
        Self::with(None)
    }

    pub(super) fn with(memory: Option<f64>) -> Self {
        Self { at: SystemTime::now(), nonce: hex::encode(rand::random::<[u8; 8]>()), memory }
    }

    /// When, and with which part of its memory limit in use.
    pub(super) fn facts(&self) -> (SystemTime, Option<f64>) {
        (self.at, self.memory)
    }
}

/// What one listing of `claims/` says.
#[derive(Debug, Default)]
pub(super) struct Claims {
    epochs: BTreeMap<Epoch, Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    claim: Option<SystemTime>,
    beat: Option<SystemTime>,
    sealed: bool,
    released: Option<SystemTime>,
}

impl Claims {
    pub(super) async fn read(store: &Store) -> Result<Self, ClaimError> {
        let mut claims = Self::default();
        for info in store.list(layout::CLAIMS).await? {
            let Some((epoch, what)) = layout::parse_claim(&info.key) else { continue };
            let parts = claims.epochs.entry(epoch).or_default();
            match what {
                CLAIM => parts.claim = Some(info.modified),
                BEAT => parts.beat = Some(info.modified),
                SEAL => parts.sealed = true,
                RELEASED => parts.released = Some(info.modified),
                _ => {}
            }
        }
        // A late beat of a claim that was removed is no claim.
        claims.epochs.retain(|_, parts| parts.claim.is_some());
        Ok(claims)
    }

    /// The claim that owns the job.
    pub(super) fn highest(&self) -> Option<Epoch> {
        self.epochs.last_key_value().map(|(&epoch, _)| epoch)
    }

    pub(super) fn is_released(&self, epoch: Epoch) -> bool {
        self.epochs.get(&epoch).is_some_and(|parts| parts.released.is_some())
    }

    /// By the store's clock.
    pub(super) fn last_sign_of_life(&self, epoch: Epoch) -> Option<SystemTime> {
        self.epochs.get(&epoch).and_then(|parts| parts.beat.max(parts.claim))
    }

    /// The holder before `mine`, if it has not given the job back.
    pub(super) fn lost_before(&self, mine: Epoch) -> Option<Epoch> {
        let (epoch, parts) = self.epochs.range(..mine).next_back()?;
        parts.released.is_none().then_some(*epoch)
    }

    /// How the holders before `mine` have fared, by the store's clock.
    pub(super) fn history(&self, mine: Epoch) -> History {
        let mut history = History::default();
        for parts in self.epochs.range(..mine).map(|(_, parts)| parts) {
            let (born, died) = (parts.claim, parts.released.max(parts.beat).max(parts.claim));
            history.ended += 1;
            history.lived += born.zip(died).and_then(|(born, died)| died.duration_since(born).ok()).unwrap_or_default();
        }
        history
    }

    /// When the claim before `epoch` last gave a sign of life, by the store's clock.
    pub(super) fn seen_before(&self, epoch: Epoch) -> Option<SystemTime> {
        let (&before, _) = self.epochs.range(..epoch).next_back()?;
        self.last_sign_of_life(before)
    }

    /// The newest claim that has sealed what came before it.
    pub(super) fn newest_seal(&self) -> Option<Epoch> {
        self.epochs.iter().rev().find(|(_, parts)| parts.sealed).map(|(&epoch, _)| epoch)
    }

    /// Old claims that decide nothing any more: those before the newest seal, but for the latest `keep`.
    pub(super) fn superseded(&self, keep: usize) -> Vec<Epoch> {
        let Some(sealer) = self.newest_seal() else { return Vec::new() };
        let older: Vec<Epoch> = self.epochs.range(..sealer).map(|(&epoch, _)| epoch).collect();
        older[..older.len().saturating_sub(keep)].to_vec()
    }

    /// Which of the stored generations exist: those that the newest seal accepts, and those of the
    /// claim that wrote it. Ascending.
    pub(super) async fn visible(
        &self,
        store: &Store,
        stored: BTreeSet<Generation>,
    ) -> Result<Vec<Generation>, ClaimError> {
        let Some(sealer) = self.newest_seal() else { return Ok(Vec::new()) };
        let accepted = read::<Seal>(store, sealer, SEAL).await?.map(|seal| seal.accepted);
        Ok(visible(sealer, accepted, stored))
    }
}

/// `accepted` is none when the seal is damaged. Then all older generations count: hiding the only
/// good checkpoint would harm more than showing one that was committed too late.
fn visible(sealer: Epoch, accepted: Option<Vec<Generation>>, stored: BTreeSet<Generation>) -> Vec<Generation> {
    let accepted: Option<BTreeSet<Generation>> = accepted.map(|accepted| accepted.into_iter().collect());
    let exists = |generation: &Generation| match generation.epoch.cmp(&sealer) {
        std::cmp::Ordering::Less => accepted.as_ref().is_none_or(|accepted| accepted.contains(generation)),
        std::cmp::Ordering::Equal => true,
        // Its claim has not sealed, so it cannot have saved yet.
        std::cmp::Ordering::Greater => false,
    };
    stored.into_iter().filter(exists).collect()
}

/// A document of a claim. None when it is absent or damaged; damage is logged.
pub(super) async fn read<T: DeserializeOwned>(
    store: &Store,
    epoch: Epoch,
    what: &'static str,
) -> Result<Option<T>, ClaimError> {
    let key = layout::claim(epoch, what);
    let bytes = match store.get(&key, MAX_LEN).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) if error.is_damage() => {
            tracing::warn!(key, %error, "a claim's document cannot be read");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    match document::decode(what, &bytes) {
        Ok(document) => Ok(Some(document)),
        Err(source @ DocumentError::Newer { .. }) => Err(ClaimError::Document { key, source }),
        Err(error @ DocumentError::Damaged(_)) => {
            tracing::warn!(key, %error, "a claim's document is damaged");
            Ok(None)
        }
    }
}

/// Writes a document of a claim, if there is none.
pub(super) async fn create<T: Serialize>(
    store: &Store,
    epoch: Epoch,
    what: &'static str,
    body: &T,
) -> Result<Created, ClaimError> {
    let key = layout::claim(epoch, what);
    Ok(store.put_new(&key, encoded(&key, what, body)?).await?)
}

/// Writes the next beat over the last.
pub(super) async fn replace_beat(store: &Store, epoch: Epoch, beat: &Beat) -> Result<(), ClaimError> {
    let key = layout::claim(epoch, BEAT);
    Ok(store.put(&key, encoded(&key, BEAT, beat)?).await?)
}

/// The beat's bytes, to see whether they change.
pub(super) async fn raw_beat(store: &Store, epoch: Epoch) -> Result<Option<Bytes>, ClaimError> {
    match store.get(&layout::claim(epoch, BEAT), MAX_LEN).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn encoded<T: Serialize>(key: &str, what: &str, body: &T) -> Result<Bytes, ClaimError> {
    let bytes = document::encode(what, body).map_err(|source| ClaimError::Document { key: key.to_owned(), source })?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(epoch: u64, sequence: u64) -> Generation {
        Generation { epoch: Epoch(epoch), sequence }
    }

    #[test]
    fn history_counts_those_before_and_how_long_they_lived() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let parts = |claim, beat, released| Parts { claim, beat, sealed: true, released };
        let claims = Claims {
            epochs: BTreeMap::from([
                (Epoch(1), parts(at(1000), at(4000), None)),
                (Epoch(2), parts(at(5000), None, at(5500))),
                // Its clock went back.
                (Epoch(3), parts(at(9000), at(8000), None)),
                (Epoch(4), parts(at(9500), at(9600), None)),
            ]),
        };
        assert_eq!((claims.lost_before(Epoch(4)), claims.lost_before(Epoch(3))), (Some(Epoch(3)), None));
        assert_eq!(claims.history(Epoch(4)), History { ended: 3, lived: Duration::from_secs(3500) });
    }

    #[test]
    fn the_newest_seal_decides() {
        let stored = BTreeSet::from([generation(1, 1), generation(1, 2), generation(2, 1), generation(3, 1)]);
        let seal = Some(vec![generation(1, 1), generation(1, 9)]);
        assert_eq!(visible(Epoch(2), seal, stored.clone()), [generation(1, 1), generation(2, 1)]);
        assert_eq!(
            visible(Epoch(2), None, stored),
            [generation(1, 1), generation(1, 2), generation(2, 1)],
            "a damaged seal hides nothing"
        );
    }
}
