//! Removes what is no longer wanted: old generations, and whatever interrupted saves left.
//!
//! Only the holder of the claim prunes. Every step lists first, then looks whether the claim still
//! holds, then deletes what was listed: if a successor had written any of it, its claim would have
//! been seen. Manifests go first, then index objects, then packs, so that a generation that is
//! visible is always whole, wherever this stops.

use super::claim::{Claim, ClaimError, Standing};
use super::claims::{self, Claims};
use super::generations::{self, GenerationError};
use super::manifest::ManifestError;
use super::open::Repository;
use super::{layout, saves};
use crate::checkpoint::protocol::Holder;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::{Epoch, Generation};
use crate::store::{ObjectInfo, Store, StoreError};
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Deletions under way at once.
const AT_ONCE: usize = 8;
/// How many deletions follow one look at the claim.
const BATCH: usize = 64;
/// Claims older than the newest seal that are kept for people to read.
const OLD_CLAIMS: usize = 16;
/// Temporary files of a file store that are older belong to no living writer.
const TEMPORARY_AGE: Duration = Duration::from_secs(24 * 3600);

/// Which generations stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// That many of the newest good ones; at least one.
    pub last: u32,
    /// And all that are not older than this.
    pub within: Option<Duration>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    /// Generations that existed, oldest first.
    pub generations: Vec<Generation>,
    /// Packs, also those that no generation ever referred to.
    pub packs: u64,
    /// Bytes of packs and index objects.
    pub bytes: u64,
    /// Set when packs had to stay because a generation could not be read.
    pub held_back_by: Option<Generation>,
}

/// Why nothing more was removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Another container has the job.
    #[error("another container has taken this job; nothing of it may be removed here")]
    Fenced(Option<(Epoch, Option<Holder>)>),
    /// A generation of a newer format may refer to anything.
    #[error("generation {0} was saved by a newer revenant")]
    Newer(Generation),
    /// The claims cannot be read.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The generations cannot be read.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for PruneError {
    fn explain(&self) -> Problem {
        match self {
            Self::Fenced(_) => Problem::new(
                Exit::Fenced,
                self.to_string(),
                "this container was silent for longer than its lease, or somebody gave --takeover",
                "nothing; the other container continues the job and prunes it",
            ),
            Self::Newer(_) => Problem::new(
                Exit::RestoreRefused,
                self.to_string(),
                "an older revenant cannot know what it needs",
                "prune with the newer revenant; nothing was removed",
            ),
            Self::Claim(error) => error.explain(),
            Self::Generation(error) => error.explain(),
            Self::Store(error) => error.explain(),
        }
    }
}

/// Which of the good generations go, given when each was made. Oldest first, both ways.
///
/// The newest never goes. A generation whose time lies in the future counts as new: a clock that was
/// set back must not cost a checkpoint.
pub fn plan(good: &[(Generation, SystemTime)], keep: Keep, now: SystemTime) -> Vec<Generation> {
    let last = usize::try_from(keep.last.max(1)).unwrap_or(usize::MAX);
    let candidates = &good[..good.len().saturating_sub(last)];
    let young = |made: SystemTime| {
        keep.within.is_some_and(|span| now.duration_since(made).is_ok_and(|age| age <= span) || made > now)
    };
    candidates.iter().filter(|(_, made)| !young(*made)).map(|(generation, _)| *generation).collect()
}

/// Removes old generations, and what nothing refers to. `protect` are generations that stay in any
/// case, such as the one that the running workload was restored from.
pub async fn prune(
    repository: &Repository,
    claim: &Claim,
    keep: Keep,
    protect: &[Generation],
) -> Result<Pruned, PruneError> {
    let survey = Survey::make(repository, claim).await?;
    let doomed = survey.doomed(keep, protect);
    remove(repository, claim, survey, &doomed).await
}

/// Removes all generations: the job is complete. The records of that stay, and so do the claims.
pub async fn clear(repository: &Repository, claim: &Claim) -> Result<Pruned, PruneError> {
    let survey = Survey::make(repository, claim).await?;
    let doomed = survey.stored.clone();
    remove(repository, claim, survey, &doomed).await
}

/// Removes what nothing refers to, and no generation.
pub(super) async fn sweep(repository: &Repository, claim: &Claim) -> Result<Pruned, PruneError> {
    let survey = Survey::make(repository, claim).await?;
    remove(repository, claim, survey, &BTreeSet::new()).await
}

/// What there is.
struct Survey {
    /// All manifests.
    stored: BTreeSet<Generation>,
    /// Those that exist by the newest seal.
    visible: BTreeSet<Generation>,
    /// Those that exist and can be read, oldest first.
    good: Vec<Good>,
}

struct Good {
    generation: Generation,
    created: SystemTime,
    /// The generation of which it is a copy.
    replaces: Option<Generation>,
    /// Keys of all that it refers to.
    needs: Vec<String>,
}

impl Survey {
    async fn make(repository: &Repository, claim: &Claim) -> Result<Self, PruneError> {
        let store = &repository.store;
        let stored = generations::stored(store).await?;
        let visible: BTreeSet<Generation> =
            Claims::read(store).await?.visible(store, stored.clone()).await?.into_iter().collect();
        held(claim).await?;
        let mut good = Vec::new();
        for &generation in &visible {
            match generations::load(repository, generation).await {
                Ok(manifest) => good.push(Good {
                    generation,
                    created: manifest.created,
                    replaces: manifest.replaces,
                    needs: std::iter::once(layout::index(&manifest.index.id))
                        .chain(manifest.packs.iter().map(|pack| layout::pack(&pack.id)))
                        .collect(),
                }),
                Err(GenerationError::Manifest { source: ManifestError::Newer { .. }, .. }) => {
                    return Err(PruneError::Newer(generation));
                }
                Err(error @ (GenerationError::Manifest { .. } | GenerationError::Unknown(_))) => {
                    tracing::warn!(%generation, %error, "a generation cannot be read");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { stored, visible, good })
    }

    /// What goes: by the plan; what repacking has copied and was killed before it removed it; what a fenced
    /// writer committed too late; and what cannot be read, once it is older than everything that stays.
    fn doomed(&self, keep: Keep, protect: &[Generation]) -> BTreeSet<Generation> {
        let copied: BTreeSet<Generation> = self.good.iter().filter_map(|good| good.replaces).collect();
        let once = self.good.iter().filter(|good| !copied.contains(&good.generation));
        let times: Vec<_> = once.map(|good| (good.generation, good.created)).collect();
        let mut doomed: BTreeSet<Generation> = plan(&times, keep, SystemTime::now()).into_iter().collect();
        doomed.extend(copied.into_iter().filter(|copied| self.good.iter().any(|good| good.generation == *copied)));
        doomed.retain(|generation| !protect.contains(generation));
        let is_good = |generation: &Generation| self.good.iter().any(|good| good.generation == *generation);
        let oldest_kept = self.good.iter().map(|good| good.generation).find(|generation| !doomed.contains(generation));
        let unreadable = self
            .visible
            .iter()
            .filter(|generation| !is_good(generation) && oldest_kept.is_some_and(|kept| **generation < kept));
        let late = self.stored.difference(&self.visible);
        let others: Vec<Generation> = unreadable.chain(late).copied().collect();
        doomed.extend(others);
        doomed
    }
}

/// Whether nobody else has taken the job.
pub(super) async fn held(claim: &Claim) -> Result<(), PruneError> {
    match claim.check().await? {
        Standing::Held => Ok(()),
        Standing::Fenced { by } => Err(PruneError::Fenced(by)),
    }
}

async fn remove(
    repository: &Repository,
    claim: &Claim,
    survey: Survey,
    doomed: &BTreeSet<Generation>,
) -> Result<Pruned, PruneError> {
    let store = &repository.store;
    // What a claim after ours wrote is not ours to judge.
    let doomed: Vec<Generation> = doomed.iter().copied().filter(|generation| generation.epoch <= claim.epoch).collect();
    delete(claim, store, doomed.iter().map(|&generation| layout::manifest(generation)).collect()).await?;
    crate::failpoint!("prune-manifests");
    let mut pruned = Pruned {
        generations: doomed.iter().copied().filter(|generation| survey.visible.contains(generation)).collect(),
        ..Pruned::default()
    };
    pruned.held_back_by = survey.visible.iter().copied().find(|generation| {
        !doomed.contains(generation) && !survey.good.iter().any(|good| good.generation == *generation)
    });
    if pruned.held_back_by.is_none() {
        let gone = |good: &&Good| doomed.contains(&good.generation);
        let needed: BTreeSet<&String> =
            survey.good.iter().filter(|good| !gone(good)).flat_map(|good| &good.needs).collect();
        let given_up: BTreeSet<&String> = survey.good.iter().filter(gone).flat_map(|good| &good.needs).collect();
        // What no generation ever referred to may belong to a save under way. No times are compared: a
        // clock that was set back during that save must not make its packs look old.
        let running = is_saving(store, claim).await?;
        for prefix in [layout::INDEX, layout::PACKS] {
            let idle: Vec<ObjectInfo> = store
                .list(prefix)
                .await?
                .into_iter()
                .filter(|info| !needed.contains(&info.key) && (!running || given_up.contains(&info.key)))
                .collect();
            pruned.bytes += idle.iter().map(|info| info.size).sum::<u64>();
            pruned.packs += if prefix == layout::PACKS { idle.len() as u64 } else { 0 };
            delete(claim, store, idle.into_iter().map(|info| info.key).collect()).await?;
            crate::failpoint!("prune-objects");
        }
    }
    tidy(store, claim, &doomed).await?;
    Ok(pruned)
}

/// Whether a save of this claim is under way, or was killed and no other has followed.
async fn is_saving(store: &Store, claim: &Claim) -> Result<bool, StoreError> {
    let committed =
        generations::stored(store).await?.into_iter().filter(|generation| generation.epoch == claim.epoch).max();
    let running = |mark: &saves::Mark| mark.generation.epoch == claim.epoch && Some(mark.generation) > committed;
    Ok(saves::marks(store).await?.iter().any(running))
}

/// Small leftovers: marks of saves that are over, crash records of generations that are gone, claims
/// that no longer decide anything, probes, temporary files.
async fn tidy(store: &Store, claim: &Claim, doomed: &[Generation]) -> Result<(), PruneError> {
    let mut keys = Vec::new();
    let committed =
        generations::stored(store).await?.into_iter().filter(|generation| generation.epoch == claim.epoch).max();
    for mark in saves::marks(store).await? {
        if mark.generation.epoch < claim.epoch || Some(mark.generation) <= committed {
            keys.push(layout::save(mark.generation));
        }
    }
    for &generation in doomed {
        keys.extend(store.list(&layout::crashes_of(generation)).await?.into_iter().map(|info| info.key));
    }
    keys.extend(store.list(layout::PROBES).await?.into_iter().map(|info| info.key));
    for epoch in Claims::read(store).await?.superseded(OLD_CLAIMS) {
        // The claim itself last: without it the others mean nothing.
        keys.extend(
            [claims::BEAT, claims::RELEASED, claims::SEAL, claims::CLAIM].map(|what| layout::claim(epoch, what)),
        );
    }
    delete(claim, store, keys).await?;
    Ok(store.sweep(TEMPORARY_AGE).await?)
}

/// Deletes what was listed before, as long as the claim holds.
async fn delete(claim: &Claim, store: &Store, keys: Vec<String>) -> Result<(), PruneError> {
    for batch in keys.chunks(BATCH) {
        held(claim).await?;
        let deletions = futures::stream::iter(batch).map(|key| store.delete(key)).buffer_unordered(AT_ONCE);
        deletions.try_collect::<()>().await?;
        crate::failpoint!("prune-batch");
    }
    Ok(())
}
