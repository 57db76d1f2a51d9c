//! Takes what is still needed out of packs that are mostly dead, so that the packs can go.
//!
//! A generation never changes, and where its chunks are is written in its recipes. So it gets a successor with
//! the same content, and new numbers: the generations from the oldest that is concerned to the newest are
//! committed again under the claim, the newest first, and each old one is removed as soon as its successor
//! exists. Killed anywhere, the newest generation has the newest content, every generation is whole, and at
//! most one is there twice; whatever was written and is not referred to is garbage that prune removes.
//!
//! ```text
//! which packs? ─▶ move what lives into new packs ─▶ for each generation, from the newest on:
//!                                                   leaves, index, manifest ─▶ remove the old manifest ─▶ sweep
//! ```
//!
//! Only for a job that does not run: a save under way compares with a generation by its name.

mod error;
mod filling;
mod rewrite;
mod sparse;

pub use error::RepackError;

use super::claim::{Claim, Standing};
use super::generations::{self, Commit};
use super::manifest::Manifest;
use super::open::Repository;
use super::read::Opened;
use super::retention::{self, Pruned};
use super::{layout, saves};
use crate::job::Generation;
use bytes::Bytes;
use rewrite::Rewriter;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Repacked {
    /// Packs that were given up.
    pub packs: u64,
    /// Bytes of these.
    pub given_up: u64,
    /// Bytes that were moved out of them.
    pub moved: u64,
    /// The old and the new number of each generation that was committed again, oldest first.
    pub generations: Vec<(Generation, Generation)>,
    /// Sparse packs that are left for the next time: memory for moving is bounded.
    pub left: u64,
    /// What was removed in the end.
    pub swept: Pruned,
}

/// Repacks every pack of which the visible generations use less than the share `below` (0 to 1). The claim
/// must have pruned before: nothing else of the job may be under way.
pub async fn repack(repository: &Repository, claim: &Claim, below: f64) -> Result<Repacked, RepackError> {
    let stop = Arc::new(AtomicBool::new(false));
    let work = {
        let (repository, claim, stop) = (repository.clone(), claim.clone(), Arc::clone(&stop));
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || Work { repository, claim, runtime, stop }.run(below))
    };
    let mut repacked = tokio::select! {
        done = work => done.unwrap_or(Err(RepackError::Interrupted))?,
        lost = beat(claim) => {
            stop.store(true, Ordering::Relaxed);
            return Err(lost);
        }
    };
    if repacked.packs > 0 {
        repacked.swept = retention::sweep(repository, claim).await?;
    }
    Ok(repacked)
}

/// Shows that the claim's holder lives, until somebody else has the job.
async fn beat(claim: &Claim) -> RepackError {
    loop {
        tokio::time::sleep((claim.lease / 3).max(Duration::from_millis(50))).await;
        match claim.beat().await {
            Ok(Standing::Held) => {}
            Ok(Standing::Fenced { .. }) => return RepackError::Fenced,
            // A store that is away: whatever is being stored will tell.
            Err(error) => tracing::debug!(%error, "a beat was lost"),
        }
    }
}

/// What the thread that repacks has. It blocks, also in the store.
struct Work {
    repository: Repository,
    claim: Claim,
    runtime: tokio::runtime::Handle,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn run(&self, below: f64) -> Result<Repacked, RepackError> {
        let manifests = self.manifests()?;
        let survey = sparse::survey(self, &manifests, below)?;
        let mut repacked = Repacked { left: survey.left, ..Repacked::default() };
        let concerned = |manifest: &Manifest| manifest.packs.iter().any(|pack| survey.doomed.contains_key(&pack.id));
        let Some(first) = manifests.iter().position(concerned) else { return Ok(repacked) };
        let concerned = &manifests[first..];

        let mut rewriter = Rewriter::new(self);
        for (pack, sparse) in &survey.doomed {
            self.go_on()?;
            rewriter.move_out(pack, &sparse.pieces)?;
            repacked.packs += 1;
            repacked.given_up += sparse.size;
            repacked.moved += sparse.live;
        }
        rewriter.close()?;
        crate::failpoint!("repack.packs.stored");

        // All numbers first: an older generation must not get a higher one than a newer.
        let mut numbers = BTreeMap::new();
        for manifest in concerned {
            numbers.insert(manifest.generation, self.wait(saves::begin(&self.claim, &self.repository.store))?);
        }
        for manifest in concerned.iter().rev() {
            self.go_on()?;
            let Some(&to) = numbers.get(&manifest.generation) else { continue };
            self.replace(&mut rewriter, manifest, to, &numbers)?;
        }
        repacked.generations = numbers.into_iter().collect();
        Ok(repacked)
    }

    /// The visible generations, oldest first. One that cannot be read might need anything.
    fn manifests(&self) -> Result<Vec<Manifest>, RepackError> {
        let visible = self.wait(generations::list(&self.repository.store))?;
        let load = |generation| Ok(self.wait(generations::load(&self.repository, generation))?);
        visible.into_iter().map(load).collect()
    }

    /// Commits a generation again, under its new number and with its new recipes, and removes the old one.
    fn replace(
        &self,
        rewriter: &mut Rewriter<'_>,
        old: &Manifest,
        to: Generation,
        numbers: &BTreeMap<Generation, Generation>,
    ) -> Result<(), RepackError> {
        let store = &self.repository.store;
        let opened = self.open(old)?;
        let (index, packs) = rewriter.rewrite(&opened, old)?;
        let base = old.base.map(|base| numbers.get(&base).copied().unwrap_or(base));
        let replaces = Some(old.generation);
        let new = Manifest { generation: to, index, packs, base, replaces, ..old.clone() };
        // A generation whose restores have crashed is still that one.
        for info in self.wait(store.list(&layout::crashes_of(old.generation)))? {
            let bytes: Bytes = self.wait(store.get(&info.key, super::completion::MAX_LEN))?;
            let name = info.key.rsplit('/').next().unwrap_or_default();
            self.wait(store.put(&format!("{}/{name}", layout::crashes_of(to)), bytes))?;
        }
        match self.wait(generations::commit(&self.repository, &self.claim, &new))? {
            Commit::Committed => {}
            Commit::Fenced { .. } => return Err(RepackError::Fenced),
        }
        crate::failpoint!("repack.generation.committed");
        self.wait(retention::held(&self.claim))?;
        self.wait(store.delete(&layout::manifest(old.generation)))?;
        crate::failpoint!("repack.generation.replaced");
        for info in self.wait(store.list(&layout::crashes_of(old.generation)))? {
            self.wait(store.delete(&info.key))?;
        }
        Ok(())
    }

    fn open(&self, manifest: &Manifest) -> Result<Opened, RepackError> {
        let index = manifest.index;
        Ok(self.wait(Opened::open(&self.repository, index.id, index.len, &self.runtime))?)
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn go_on(&self) -> Result<(), RepackError> {
        if self.stop.load(Ordering::Relaxed) { Err(RepackError::Interrupted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
