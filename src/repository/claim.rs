//! One writer per job: taking, keeping and giving back the right to write.
//!
//! `docs/claims.md` tells the protocol and goes through its interleavings. In short: the highest
//! epoch in `claims/` owns the job; its *seal* lists the earlier generations that exist; a writer
//! looks at the claims again after each commit, so it either sees its successor, or its successor's
//! seal has seen the commit.

use super::claims::{Beat, Claims, Seal, Taken as Taking};
use super::document::DocumentError;
use super::{claims, layout};
use crate::checkpoint::protocol::Holder;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::{Epoch, Generation};
use crate::store::{Created, Store, StoreError};
use crate::trigger::interval::History;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// By the store's own clock a beat that is this many leases old is not watched any more.
const CLEARLY_OLD: u32 = 5;
/// No lease is longer, whatever a document says.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
/// Lost races before we let somebody else have it.
const ATTEMPTS: usize = 8;

/// How a claim is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// A holder whose beat has not changed for this long is taken for dead.
    pub lease: Duration,
    /// Take the job from a holder that seems alive.
    pub takeover: bool,
}

/// The right to write generations of a job. It may have been lost meanwhile: see [`Claim::check`].
#[derive(Debug, Clone)]
pub struct Claim {
    store: Store,
    /// Its number.
    pub epoch: Epoch,
    /// How long the holder may be silent.
    pub lease: Duration,
}

/// What came of [`take`].
#[derive(Debug)]
pub enum Take {
    /// The job is ours.
    Taken {
        /// The claim.
        claim: Claim,
        /// The earlier generations that exist, oldest first.
        accepted: Vec<Generation>,
    },
    /// Another container has it.
    InUse(InUse),
}

/// Who has the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The holder's epoch.
    pub epoch: Epoch,
    /// The holder, if its document can be read.
    pub holder: Option<Holder>,
    /// How long ago the holder gave a sign of life, by the store's clock or by watching.
    pub beat_age: Duration,
}

impl Explain for InUse {
    fn explain(&self) -> Problem {
        let holder = match &self.holder {
            Some(Holder { host, pod_uid: Some(pod), .. }) => format!("{host} (pod {pod})"),
            Some(Holder { host, .. }) => host.clone(),
            None => "unknown".to_owned(),
        };
        Problem::new(
            Exit::JobInUse,
            "another container is running this job",
            format!("holder: {holder}, last sign of life {} s ago, claim {}", self.beat_age.as_secs(), self.epoch.0),
            "stop the other container, or use another --job; --takeover takes the job from it (its unsaved work is lost)",
        )
    }
}

/// Whether a claim still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody else has taken the job.
    Held,
    /// Somebody has. None when the claims were removed altogether.
    Fenced {
        /// The newer claim.
        by: Option<(Epoch, Option<Holder>)>,
    },
}

/// Why claims cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A claim was written by a newer revenant.
    #[error("{key}: {source}")]
    Document {
        /// Which object.
        key: String,
        /// In what respect.
        source: DocumentError,
    },
    /// Numbers have run out, or a document names an impossible one.
    #[error("the claims of this job cannot be continued after number {0}")]
    Exhausted(u64),
    /// Others kept taking the job at the same moment.
    #[error("{ATTEMPTS} times in a row another container took the job at the same moment")]
    Contended,
}

impl Explain for ClaimError {
    fn explain(&self) -> Problem {
        match self {
            Self::Store(error) => error.explain(),
            Self::Document { source: DocumentError::Newer { .. }, .. } => Problem::new(
                Exit::RestoreRefused,
                self.to_string(),
                "the job was continued by a newer revenant than the one in this image",
                "use an image with at least that revenant; nothing was changed",
            ),
            Self::Document { .. } | Self::Exhausted(_) => Problem::new(
                Exit::Damaged,
                self.to_string(),
                "an object below claims/ is damaged or was put there by something else",
                "run `revenant verify`",
            ),
            Self::Contended => Problem::new(
                Exit::JobInUse,
                self.to_string(),
                "several containers of this job start at once, again and again",
                "run one container for each job: a Job with parallelism 1, or an own --job for each",
            ),
        }
    }
}

/// Takes the job, if nobody has it or its holder is dead. Watching a silent holder takes up to a lease.
pub async fn take(store: &Store, holder: &Holder, terms: &Terms) -> Result<Take, ClaimError> {
    for _ in 0..ATTEMPTS {
        let claims = Claims::read(store).await?;
        if let Some(epoch) = claims.highest()
            && !terms.takeover
            && let Some(in_use) = judge(store, &claims, epoch, holder, terms.lease).await?
        {
            return Ok(Take::InUse(in_use));
        }
        let last = claims.highest().map_or(0, |epoch| epoch.0);
        let epoch = Epoch(last.checked_add(1).filter(|&next| next < u64::MAX).ok_or(ClaimError::Exhausted(last))?);
        let lease = terms.lease.min(LONGEST_LEASE);
        let taking = Taking { holder: holder.clone(), at: SystemTime::now(), lease_seconds: lease.as_secs() };
        match claims::create(store, epoch, claims::CLAIM, &taking).await? {
            Created::New => return settle(Claim { store: store.clone(), epoch, lease }).await,
            // Somebody was faster: look again.
            Created::AlreadyExists => {}
        }
    }
    Err(ClaimError::Contended)
}

/// How the containers before this one have fared, as far as their claims are still there.
pub async fn history(store: &Store, mine: Epoch) -> Result<History, ClaimError> {
    Ok(Claims::read(store).await?.history(mine))
}

/// The last sign of life of a container that ended without giving the job back.
#[derive(Debug, Clone, PartialEq)]
pub struct LastSign {
    /// When, by its own clock.
    pub at: SystemTime,
    /// Which part of its memory limit it held then, if it had one.
    pub memory: Option<f64>,
}

/// What the container before this one was like when it was last heard of. None when it ended in order.
pub async fn lost_predecessor(store: &Store, mine: Epoch) -> Result<Option<LastSign>, ClaimError> {
    let Some(epoch) = Claims::read(store).await?.lost_before(mine) else { return Ok(None) };
    let beat = claims::read::<Beat>(store, epoch, claims::BEAT).await?;
    Ok(beat.map(|beat| {
        let (at, memory) = beat.facts();
        LastSign { at, memory }
    }))
}

/// A claim that this container took a moment ago, with what it then accepted.
pub async fn held(claim: Claim) -> Result<Take, ClaimError> {
    let stored = super::generations::stored(&claim.store).await?;
    let accepted = Claims::read(&claim.store).await?.visible(&claim.store, stored).await?;
    taken(claim, accepted).await
}

/// The claim object is ours: beat, seal, and look whether somebody came after us.
async fn settle(claim: Claim) -> Result<Take, ClaimError> {
    crate::failpoint!("claim-taken");
    claim.write_beat(None).await?;
    // After our claim: what a predecessor commits from now on it will know to be fenced.
    let claims = Claims::read(&claim.store).await?;
    let accepted = claims.visible(&claim.store, super::generations::stored(&claim.store).await?).await?;
    let accepted: Vec<Generation> = accepted.into_iter().filter(|generation| generation.epoch < claim.epoch).collect();
    claims::create(&claim.store, claim.epoch, claims::SEAL, &Seal { accepted: accepted.clone() })
        .await?
        .ours(&claim)?;
    crate::failpoint!("claim-sealed");
    taken(claim, accepted).await
}

async fn taken(claim: Claim, accepted: Vec<Generation>) -> Result<Take, ClaimError> {
    match claim.check().await? {
        Standing::Held => Ok(Take::Taken { claim, accepted }),
        Standing::Fenced { by } => {
            let (epoch, holder) = by.unwrap_or((claim.epoch, None));
            Ok(Take::InUse(InUse { epoch, holder, beat_age: Duration::ZERO }))
        }
    }
}

impl Created {
    /// Nobody else writes the objects of our epoch.
    fn ours(self, claim: &Claim) -> Result<(), ClaimError> {
        match self {
            Self::New => Ok(()),
            Self::AlreadyExists => Err(ClaimError::Exhausted(claim.epoch.0)),
        }
    }
}

/// The claim that owns the job, if `holder` took it.
pub async fn held_by(store: &Store, holder: &Holder) -> Result<Option<Claim>, ClaimError> {
    let Some(epoch) = Claims::read(store).await?.highest() else { return Ok(None) };
    let taken = claims::read::<Taking>(store, epoch, claims::CLAIM).await?;
    Ok(taken
        .filter(|taken| !holder.instance.is_empty() && taken.holder.instance == holder.instance)
        .map(|taken| Claim { store: store.clone(), epoch, lease: taken.lease() }))
}

/// When the holder of the claim before `epoch` was last seen alive, by the store's clock.
pub async fn predecessor_seen(store: &Store, epoch: Epoch) -> Result<Option<SystemTime>, ClaimError> {
    Ok(Claims::read(store).await?.seen_before(epoch))
}

/// Whether the holder of `epoch` lives. None: it does not, or it has let go.
async fn judge(
    store: &Store,
    claims: &Claims,
    epoch: Epoch,
    me: &Holder,
    lease: Duration,
) -> Result<Option<InUse>, ClaimError> {
    if claims.is_released(epoch) {
        return Ok(None);
    }
    let taken = claims::read::<Taking>(store, epoch, claims::CLAIM).await?;
    let holder = taken.as_ref().map(|taken| taken.holder.clone());
    if let Some(holder) = &holder {
        let same_run = !me.instance.is_empty() && holder.instance == me.instance;
        // Containers of one pod run one after the other.
        let same_pod = me.pod_uid.is_some() && holder.pod_uid == me.pod_uid;
        if same_run || same_pod {
            return Ok(None);
        }
    }
    let lease = taken.map_or(lease, |taken| lease.max(taken.lease())).min(LONGEST_LEASE);
    let age = beat_age(store, claims, epoch).await?;
    if age >= lease * CLEARLY_OLD {
        return Ok(None);
    }
    watch(store, epoch, lease, InUse { epoch, holder, beat_age: age }).await
}

/// How old the last sign of life is, by the store's clock: an object written now tells its time.
async fn beat_age(store: &Store, claims: &Claims, epoch: Epoch) -> Result<Duration, ClaimError> {
    let probe = format!("{}/{}", layout::PROBES, hex::encode(rand::random::<[u8; 16]>()));
    store.put(&probe, bytes::Bytes::new()).await?;
    let now = store.head(&probe).await?;
    store.delete(&probe).await?;
    Ok(match (now, claims.last_sign_of_life(epoch)) {
        (Some(now), Some(beat)) => now.modified.duration_since(beat).unwrap_or_default(),
        _ => Duration::ZERO,
    })
}

/// Watches a silent holder for its lease, by our own clock, which cannot be set back.
async fn watch(store: &Store, epoch: Epoch, lease: Duration, seen: InUse) -> Result<Option<InUse>, ClaimError> {
    let begun = Instant::now();
    let first = claims::raw_beat(store, epoch).await?;
    loop {
        tokio::time::sleep((lease / 20).max(Duration::from_millis(50))).await;
        let claims = Claims::read(store).await?;
        if let Some(newer) = claims.highest().filter(|&highest| highest > epoch) {
            let holder = claims::read::<Taking>(store, newer, claims::CLAIM).await?.map(|taken| taken.holder);
            return Ok(Some(InUse { epoch: newer, holder, beat_age: Duration::ZERO }));
        }
        if claims.is_released(epoch) {
            return Ok(None);
        }
        if claims::raw_beat(store, epoch).await? != first {
            return Ok(Some(InUse { beat_age: Duration::ZERO, ..seen }));
        }
        if begun.elapsed() >= lease {
            return Ok(None);
        }
    }
}

impl Claim {
    /// A claim that another process of this container has taken.
    pub fn resume(store: &Store, epoch: Epoch, lease: Duration) -> Self {
        Self { store: store.clone(), epoch, lease: lease.min(LONGEST_LEASE) }
    }

    /// Shows that the holder lives. To be called at least three times in a lease.
    pub async fn beat(&self) -> Result<Standing, ClaimError> {
        self.beat_with(None).await
    }

    /// As [`Self::beat`], and tells which part of its memory limit the holder's container holds.
    pub async fn beat_with(&self, memory: Option<f64>) -> Result<Standing, ClaimError> {
        self.write_beat(memory).await?;
        self.check().await
    }

    async fn write_beat(&self, memory: Option<f64>) -> Result<(), ClaimError> {
        claims::replace_beat(&self.store, self.epoch, &Beat::with(memory)).await
    }

    /// Whether the claim still holds. One listing.
    pub async fn check(&self) -> Result<Standing, ClaimError> {
        let claims = Claims::read(&self.store).await?;
        match claims.highest() {
            Some(highest) if highest == self.epoch => Ok(Standing::Held),
            Some(highest) if highest > self.epoch => {
                let taken = claims::read::<Taking>(&self.store, highest, claims::CLAIM).await?;
                Ok(Standing::Fenced { by: Some((highest, taken.map(|taken| taken.holder))) })
            }
            _ => Ok(Standing::Fenced { by: None }),
        }
    }

    /// Gives the job back: the next container takes it at once. Nothing may be written after.
    pub async fn release(&self) -> Result<(), ClaimError> {
        let _ = claims::create(&self.store, self.epoch, claims::RELEASED, &Beat::now()).await?;
        Ok(self.store.delete(&layout::claim(self.epoch, claims::BEAT)).await?)
    }
}
