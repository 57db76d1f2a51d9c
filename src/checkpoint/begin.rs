//! The beginning of a container: take the job, then restore it if it can be restored.

use super::engine::Events;
use super::job_store;
use super::lazy::hot::{self, Hot};
use super::lazy::{Filling, Recent};
use super::protocol::{Begin as Request, Event, Lazy, Observation, OnRestoreFailure, Outcome, Saved};
use super::record::Record;
use super::restore::{self, Manner, pids};
use super::side_effects;
use super::store_place;
use crate::criu::Criu;
use crate::criu::probe::{Probe, Rights};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::Generation;
use crate::repository::claim::{self, Claim, ClaimError, Take, Terms};
use crate::repository::completion;
use crate::repository::format::Chunking;
use crate::repository::open::Repository;
use crate::store::{Store, StoreSettings};
use crate::supervisor::words;
use crate::workload::available;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;

/// A generation whose restored workload died within seconds this often is passed over.
const CRASHES_ALLOWED: u64 = 3;

/// How often an unreachable store is tried again, and told of.
const TRY_STORE_EVERY: Duration = Duration::from_secs(5);

/// How long the job may take to be taken before somebody is told why.
const SILENCE: Duration = Duration::from_secs(2);

/// Above this part of its limit, a container that is gone was probably killed for want of memory.
const NEAR_THE_LIMIT: f64 = 0.8;

/// Serves one request.
pub fn serve(request: &Request, events: &Events, runtime: &Runtime) -> Result<(), Problem> {
    // CRIU takes some milliseconds to say its version; the store needs them as well.
    let usable = std::thread::spawn(can_be_saved_here);
    let repository = patiently(request, events, || runtime.block_on(open_repository(request, events)))?;
    let complete = runtime.block_on(completion::completion(&repository.store)).map_err(|error| error.explain())?;
    if let Some(record) = complete {
        events.send(&Event::Began { outcome: Outcome::AlreadyComplete { at: record.at } });
        return Ok(());
    }
    usable.join().unwrap_or(Ok(()))?;
    store_place::warn_if_ephemeral(&request.context.store, events);
    if !request.again {
        side_effects::take_baseline(&request.context)?;
    }
    hot::forget(&request.context.runtime_dir);
    let (claim, generations) = take_the_job(request, &repository, events, runtime)?;
    let decided = decide(request, &repository, &generations, events, runtime);
    if decided.is_err() {
        // The next container need not wait for a lease to run out. If this fails too, it waits.
        let _ = runtime.block_on(claim.release());
    }
    let (outcome, filling) = decided?;
    if matches!(outcome, Outcome::InTheWay { .. }) {
        events.send(&Event::Began { outcome });
        return Ok(());
    }
    let continued_from = match &outcome {
        Outcome::Restored { saved_at, .. } => Some(*saved_at),
        _ => None,
    };
    events.send(&Event::Began { outcome });
    if let Some(saved_at) = continued_from {
        tell_lost_work(&repository, &claim, saved_at, events, runtime);
    } else {
        // The workload starts now; what the image holds is written down beside it.
        side_effects::list_image(&request.context);
    }
    filling.map_or(Ok(()), |filling| filling.wait(events))
}

/// What this container does, and what goes on beside it.
type Decision = (Outcome, Option<Filling>);

/// Tells how long the container before had worked since the save that was restored. Its last sign of life is a
/// beat, so up to a third of a lease more may be lost.
fn tell_lost_work(repository: &Repository, claim: &Claim, saved_at: SystemTime, events: &Events, runtime: &Runtime) {
    if let Ok(Some(seen)) = runtime.block_on(claim::predecessor_seen(&repository.store, claim.epoch)) {
        let lost = seen.duration_since(saved_at).unwrap_or_default();
        let ms = u64::try_from(lost.as_millis()).unwrap_or(u64::MAX);
        events.send(&Event::Observed(Observation::LostWork { ms }));
    }
}

/// Refuses now what would otherwise be found out at the first save, perhaps after months of work.
fn can_be_saved_here() -> Result<(), Problem> {
    let found = Rights::current().map_or(None, |rights| Probe::of(&rights).problem());
    let found = found.or_else(|| {
        let version = Criu::locate().and_then(|criu| criu.supported_version());
        version.err().map(|error| error.explain())
    });
    match found {
        None => Ok(()),
        Some(problem) => Err(Problem {
            next: format!("{}; --store none runs the command here without checkpoints", problem.next),
            ..problem
        }),
    }
}

/// What this container does with the job that it holds.
fn decide(
    request: &Request,
    repository: &Repository,
    generations: &[Generation],
    events: &Events,
    runtime: &Runtime,
) -> Result<Decision, Problem> {
    let started = runtime.block_on(completion::started(&repository.store)).map_err(|error| error.explain())?;
    let outcome = if generations.is_empty() {
        (without_checkpoint(request, started, events), None)
    } else {
        match restore_newest(request, repository, generations, events, runtime) {
            Ok(outcome) => outcome,
            // Out of sight is not gone: no policy applies.
            Err(problem) if problem.exit == Exit::StoreUnavailable.code() => return Err(problem),
            Err(reason) => (after_failed_restores(request, generations, &reason)?, None),
        }
    };
    if !started {
        let record = completion::Record::now(&request.holder);
        runtime.block_on(completion::record_start(&repository.store, &record)).map_err(|error| error.explain())?;
    }
    Ok(outcome)
}

async fn open_repository(request: &Request, events: &Events) -> Result<Repository, Problem> {
    // Short: `patiently` tries again, and says so.
    let settings = StoreSettings { patience: TRY_STORE_EVERY, ..StoreSettings::default() };
    let store = through_cache(job_store::store(&request.context, &settings)?, request, events);
    let key = job_store::user_key()?;
    let sizes = request.chunk_sizes;
    let chunking = Chunking::for_memory(available::memory()).asked_for(sizes.average, sizes.longest);
    Repository::open_or_create(&store, key.as_ref(), chunking).await.map_err(|error| error.explain())
}

/// A directory is as near as a cache.
fn through_cache(store: Store, request: &Request, events: &Events) -> Store {
    let Some(cache) = request.cache.as_ref().filter(|_| store.is_local().is_none()) else { return store };
    store.clone().cached(&cache.folder, cache.limit).unwrap_or_else(|error| {
        events.notice(format!("nothing is kept in the cache {}: {error}", cache.folder.display()));
        store
    })
}

/// Tries again while the store cannot be reached, and says so: a job must never start from nothing
/// because its checkpoints are out of sight for a moment.
fn patiently<T>(
    request: &Request,
    events: &Events,
    mut attempt: impl FnMut() -> Result<T, Problem>,
) -> Result<T, Problem> {
    let patience = Duration::from_secs(request.store_patience_seconds);
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(problem) if problem.passing => {
                let left = patience.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    return Err(problem);
                }
                events.notice(format!("{}; trying again for {} s more", problem.what, left.as_secs()));
                std::thread::sleep(TRY_STORE_EVERY.min(left));
            }
            result => return result,
        }
    }
}

/// Takes the claim; returns the generations that exist, newest first.
fn take_the_job(
    request: &Request,
    repository: &Repository,
    events: &Events,
    runtime: &Runtime,
) -> Result<(Claim, Vec<Generation>), Problem> {
    let terms = Terms { lease: Duration::from_secs(request.lease_seconds), takeover: request.takeover };
    let taken = patiently(request, events, || {
        let taken = match request.held {
            Some(epoch) => runtime.block_on(claim::held(Claim::resume(&repository.store, epoch, terms.lease))),
            None => runtime.block_on(take_audibly(repository, request, &terms, events)),
        };
        taken.map_err(|error| error.explain())
    })?;
    match taken {
        Take::Taken { claim, accepted } if request.held.is_some() => Ok((claim, accepted.into_iter().rev().collect())),
        Take::Taken { claim, accepted } => {
            say_how_it_was_lost(repository, &claim, events, runtime);
            let history = runtime.block_on(claim::history(&repository.store, claim.epoch)).unwrap_or_default();
            events.send(&Event::Claimed { epoch: claim.epoch, history });
            Ok((claim, accepted.into_iter().rev().collect()))
        }
        Take::InUse(in_use) => Err(in_use.explain()),
    }
}

/// A container that was killed from outside could not say so itself.
fn say_how_it_was_lost(repository: &Repository, claim: &Claim, events: &Events, runtime: &Runtime) {
    let predecessor = runtime.block_on(claim::lost_predecessor(&repository.store, claim.epoch));
    let Ok(Some(last)) = predecessor else { return };
    let ago = words::age(last.at);
    events.notice(match last.memory {
        Some(part) if part >= NEAR_THE_LIMIT => format!(
            "the container before this one was killed without warning: at its last sign of life, {ago} ago, it held \
             {:.0} % of its memory limit, so it was probably killed for want of memory (OOM); raise the pod's memory limit",
            part * 100.0
        ),
        _ => format!(
            "the container before this one ended without warning: its last sign of life was {ago} ago (SIGKILL, a lost \
             node, or a grace period that was too short)"
        ),
    });
}

/// Takes the claim; says so when that means watching a predecessor that may be dead.
async fn take_audibly(
    repository: &Repository,
    request: &Request,
    terms: &Terms,
    events: &Events,
) -> Result<Take, ClaimError> {
    let mut taking = std::pin::pin!(claim::take(&repository.store, &request.holder, terms));
    if let Ok(taken) = tokio::time::timeout(SILENCE, &mut taking).await {
        return taken;
    }
    events.notice(format!(
        "the container that ran this job before has not given it back; waiting up to {} s for a sign of life of it \
         (--takeover does not wait)",
        terms.lease.as_secs()
    ));
    taking.await
}

/// There is nothing to restore.
fn without_checkpoint(request: &Request, started: bool, events: &Events) -> Outcome {
    match (started, request.has_resume_command) {
        (true, true) => Outcome::Resume { reason: "the job was started before, but never saved".to_owned() },
        (true, false) => {
            events.notice(
                "the job was started before but never saved, and there is no --resume-command: starting from nothing",
            );
            Outcome::StartFresh
        }
        (false, _) => Outcome::StartFresh,
    }
}

/// Restores the newest generation that can be restored. Fails with the newest one's reason.
fn restore_newest(
    request: &Request,
    repository: &Repository,
    generations: &[Generation],
    events: &Events,
    runtime: &Runtime,
) -> Result<Decision, Problem> {
    let mut newest_reason = None;
    for (position, generation) in generations.iter().enumerate() {
        let again = request.again || position > 0;
        let attempt = || restore_one(request, repository, *generation, again, events, runtime);
        match patiently(request, events, attempt) {
            Ok(outcome) => return Ok(outcome),
            Err(problem) if problem.exit == Exit::StoreUnavailable.code() => return Err(problem),
            Err(mut problem) => {
                problem.what = format!("generation {generation} was not restored: {}", problem.what);
                let older = generations.get(position + 1);
                if let Some(older) = older {
                    problem.next = format!("trying the older generation {older}; {}", problem.next);
                }
                events.warn(problem.clone());
                newest_reason.get_or_insert(problem);
            }
        }
    }
    Err(newest_reason.unwrap_or_else(|| Problem::new(Exit::RestoreRefused, "there is no generation", "", "")))
}

fn restore_one(
    request: &Request,
    repository: &Repository,
    generation: Generation,
    again: bool,
    events: &Events,
    runtime: &Runtime,
) -> Result<Decision, Problem> {
    let begun = Instant::now();
    let crashes =
        runtime.block_on(completion::crashes(&repository.store, generation)).map_err(|error| error.explain())?;
    if crashes >= CRASHES_ALLOWED {
        return Err(Problem::new(
            Exit::RestoreRefused,
            format!("the workload died within seconds after each of its last {crashes} restores"),
            "the saved state leads into the failure, or something outside of the checkpoint has changed",
            "look at the workload's own messages of those containers",
        ));
    }
    let (manifest, opened) = runtime.block_on(job_store::open_generation(repository, generation, runtime.handle()))?;
    let record = Record::from_json(&manifest.checkpoint)?;
    let in_the_way = if record.own_pids { Vec::new() } else { pids::held_by_revenant(&record.pids) };
    if !in_the_way.is_empty() && request.asides > 0 {
        // What is started from now on gets IDs behind those.
        pids::push_clear(&record.pids)?;
        return Ok((Outcome::InTheWay { pids: in_the_way }, None));
    }
    let criu = Criu::locate().map_err(|error| error.explain())?;
    // After a lazy restore that was broken off, or a crash, everything is looked at before the workload runs.
    let may_be_lazy = crashes == 0 && !request.again;
    let manner = Manner { again, may_be_lazy, recent: Recent::of(repository, &manifest, runtime.handle()) };
    let (restored, filling) = restore::restore(request, &criu, &opened, &record, &manner, events)?;
    if filling.is_none() {
        // Nobody has waited for anything: what was known stays known.
        let _ = Hot::of(&opened).keep(&request.context.runtime_dir);
    }
    let outcome = Outcome::Restored {
        generation,
        saved_at: manifest.created,
        root_pid: restored.root_pid,
        command_pid: restored.command_pid,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        stdio: restored.stdio,
        cost: Some(Saved {
            generation,
            at: manifest.created,
            image_bytes: manifest.stats.image_bytes,
            stored_bytes: manifest.stats.stored_bytes,
            frozen_ms: manifest.stats.frozen_ms,
            total_ms: manifest.stats.total_ms,
        }),
        lazy: filling.as_ref().map(|filling| Lazy { keeper: filling.keeper(), bytes: filling.service.total }),
    };
    Ok((outcome, filling))
}

/// Checkpoints exist, but none restores: the policy decides.
fn after_failed_restores(request: &Request, generations: &[Generation], reason: &Problem) -> Result<Outcome, Problem> {
    match request.on_restore_failure {
        OnRestoreFailure::ResumeCommand if request.has_resume_command => {
            Ok(Outcome::Resume { reason: reason.what.clone() })
        }
        OnRestoreFailure::Fresh => Ok(Outcome::StartFresh),
        OnRestoreFailure::ResumeCommand | OnRestoreFailure::Fail => Err(Problem {
            what: format!("none of {} checkpoints could be restored; {}", generations.len(), reason.what),
            cause: reason.cause.clone(),
            next: format!(
                "{}; or give a --resume-command, or choose --on-restore-failure fresh to start from nothing",
                reason.next
            ),
            exit: reason.exit,
            passing: false,
        }),
    }
}
