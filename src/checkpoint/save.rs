//! Saving: from a running tree to a durable generation.
//!
//! ```text
//! memory ahead (optional) → criu dump → images into the repository → [tree held frozen]
//!   run on:  the tree is released at once; then upload, commit
//!   stop:    upload, commit, then the tree is killed; if anything fails it is released
//! ```

use super::compatibility::Surroundings;
use super::engine::Events;
use super::files::Baseline;
use super::foresight::{self, Frozen, Look};
use super::images_dir::ImagesDir;
use super::intake::{Intake, IntakeError};
use super::job_store::{self, OpenJob};
use super::lazy::hot;
use super::needs::Needs;
use super::precopy;
use super::protocol::{AfterSave, Event, Progress, Save as Request, Saved};
use super::recalled::Recalled;
use super::record::{Host, RECORD_VERSION, Record};
use super::restore::REAPER_IMAGE;
use super::side_effects;
use super::told::while_telling;
use crate::criu::explain::{Operation, explain_in};
use crate::criu::hook::{HeldTree, Hook};
use crate::criu::options::{Afterwards, DumpOptions, Rights};
use crate::criu::run::CriuProcess;
use crate::criu::stream::{CaptureServer, DrainLimits, drain};
use crate::criu::{Criu, images, preload};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::Generation;
use crate::repository::read::Opened;
use crate::repository::save::{Save, SaveOptions, Spool, Watch};
use crate::store::StoreSettings;
use crate::workload::clock::Clocks;
use crate::workload::credentials::Credentials;
use crate::workload::inner_ids::InnerIds;
use crate::workload::isolation::{self, Own};
use crate::workload::strays;
use crate::workload::tree;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;

/// How long CRIU may take from its start to its first word.
const CRIU_STARTS_WITHIN: Duration = Duration::from_secs(60);

/// How often a dump that met a process in the act of ending is made again, and after how long.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

/// How long what was seen of the workload is taken for what it holds.
const STILL_TRUE: Duration = Duration::from_millis(100);

/// Serves one request.
pub fn serve(request: &Request, events: &Events, runtime: &Runtime) -> Result<(), Problem> {
    let started = Instant::now();
    let criu = Criu::locate().map_err(|error| error.explain())?;
    // CRIU starts slowly, an image has many files, a store is far away: none waits for the others.
    let (seen, job, version, baseline) = std::thread::scope(|scope| {
        let version = scope.spawn(|| criu.supported_version().map_err(|error| error.explain()));
        let baseline = scope.spawn(|| side_effects::prepare_capture(&request.context, request.deadline_ms.is_some()));
        let seen = (look(request, events)?, Instant::now());
        let job =
            runtime.block_on(job_store::open_claimed(&request.context, request.epoch, &store_settings(request)))?;
        let generation = runtime.block_on(job.next_generation())?;
        let parent = runtime.block_on(job.parent(request.base));
        let panicked = |_| internal("a thread that prepares the save panicked");
        let version = version.join().map_err(panicked)??;
        Ok::<_, Problem>((seen, (job, generation, parent), version, baseline.join().map_err(panicked)??))
    })?;
    let (job, generation, parent) = job;
    let recalled = request.recalls.then(Recalled::inherited).and_then(Result::ok);
    let made = Made { criu: &criu, version: version.to_string(), baseline, recalled, started };
    let attempt = |seen| attempt(request, events, runtime, &made, seen, (&job, generation, parent.as_ref()));
    let mut result = attempt(Some(seen).filter(|(_, at)| at.elapsed() < STILL_TRUE).map(|(look, _)| look));
    for _ in 0..ATTEMPTS {
        match &result {
            Err(problem) if problem.passing => {
                tracing::debug!(%problem, "trying the dump again");
                std::thread::sleep(BETWEEN_ATTEMPTS);
                result = attempt(None);
            }
            _ => break,
        }
    }
    events.send(&Event::Durable(result?));
    job.prune(request.keep, events, runtime);
    Ok(())
}

/// What is made ready once, before anything is dumped.
struct Made<'a> {
    criu: &'a Criu,
    /// CRIU's.
    version: String,
    baseline: Baseline,
    recalled: Option<Recalled>,
    started: Instant,
}

/// One dump into the repository. It may fail for a reason that passes: a process was just ending.
fn attempt(
    request: &Request,
    events: &Events,
    runtime: &Runtime,
    made: &Made<'_>,
    seen: Option<Look>,
    (job, generation, parent): (&OpenJob, Generation, Option<&Opened>),
) -> Result<Saved, Problem> {
    let images = ImagesDir::create(&request.context.runtime_dir, "criu-dump")?;
    let save =
        Save::begin(&job.repository, parent, &options(request)?, runtime.handle()).map_err(|error| error.explain())?;
    if let Some(recalled) = &made.recalled {
        recalled.tell(&save);
    }
    let watch = save.watch();
    let work = Work {
        request,
        events,
        runtime,
        made,
        images: &images,
        intake: Intake::new(save, request.root_pid),
        watch,
        look: OnceLock::new(),
        made_in: OnceLock::new(),
    };
    let outcome = work.run(job, generation, parent, seen);
    if outcome.is_err()
        && let Some(save) = work.intake.take_save()
    {
        save.abort();
    }
    let saved = outcome?;
    images.remove();
    Ok(saved)
}

/// What the workload holds. A save that is known to fail fails here, before it costs a freeze; but the last chance
/// before the end is tried: the look may be wrong, and nobody is held up. Not where CRIU would succeed and the restored
/// workload would be another.
fn look(request: &Request, events: &Events) -> Result<Look, Problem> {
    let look = foresight::look(request.root_pid, &request.context.files, request.tuning.tcp)?;
    events.send(&Event::Looked { findings: look.findings.clone() });
    match foresight::doom(&look.findings, Frozen::Never) {
        Some(problem) if request.deadline_ms.is_none() || foresight::would_be_another(&look.findings) => Err(problem),
        _ => Ok(look),
    }
}

/// Says on every way out, a panic too, that no more images will come.
struct Over<'a>(&'a Intake);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over();
    }
}

struct Work<'a> {
    request: &'a Request,
    events: &'a Events,
    runtime: &'a Runtime,
    made: &'a Made<'a>,
    images: &'a ImagesDir,
    intake: Intake,
    watch: Watch,
    /// What was seen just before the dump.
    look: OnceLock<Look>,
    made_in: OnceLock<Surroundings>,
}

impl Work<'_> {
    fn run(
        &self,
        job: &OpenJob,
        generation: Generation,
        parent: Option<&Opened>,
        mut seen: Option<Look>,
    ) -> Result<Saved, Problem> {
        if self.wants_memory_ahead() {
            self.with_progress("pre-copy", || self.send_memory_ahead())?;
            // What it holds may have changed meanwhile.
            seen = None;
        }
        let seen = seen.map_or_else(|| look(self.request, self.events), Ok)?;
        let look = self.look.get_or_init(|| seen);
        let _ = self.made_in.set(Surroundings::of(&tree::below(self.request.root_pid).unwrap_or_default()));
        let capture = CaptureServer::bind(self.images.path()).map_err(|error| self.broken(&error))?;
        let hook = Hook::bind(self.images.path()).map_err(|error| self.broken(&error))?;
        let mut criu = CriuProcess::dump(self.made.criu, &self.dump_options(look.needs.clone())?)
            .map_err(|error| error.explain())?;
        let Ok(connection) = capture.accept(criu.peer(), CRIU_STARTS_WITHIN) else {
            return Err(self.dump_failed(&mut criu, None));
        };
        std::thread::scope(|scope| {
            let draining = scope.spawn(|| {
                let _over = Over(&self.intake);
                drain(connection, DrainLimits::default(), &self.intake)
            });
            let mut frozen_at = None;
            let held = self.with_progress("dump", || {
                hook.wait(&criu, || {
                    frozen_at = Some(Instant::now());
                    self.events.send(&Event::Frozen);
                })
            });
            let frozen_at = frozen_at.unwrap_or_else(Instant::now);
            let drained = || draining.join().map_err(|_| internal("the thread that takes CRIU's images panicked"));
            match held {
                Ok(Some(held)) => {
                    let clocks = Clocks::of(self.request.root_pid).ok();
                    if let Err(problem) = self.refuse_to_leave_behind() {
                        drop(held);
                        let _ = criu.wait();
                        return Err(root_cause(drained()?).unwrap_or(problem));
                    }
                    let files = side_effects::capture(
                        &self.request.context,
                        self.request.root_pid,
                        &self.made.baseline,
                        &self.intake,
                        self.events,
                    );
                    if let Err(problem) = files {
                        drop(held);
                        let _ = criu.wait();
                        return Err(root_cause(drained()?).unwrap_or(problem));
                    }
                    let commit = |frozen: Duration| {
                        let host = Host::here(&self.made.version);
                        self.with_progress("upload", || self.commit(job, generation, parent, host, clocks, frozen))
                    };
                    match self.request.then {
                        AfterSave::RunOn => {
                            // CRIU's pipes hold the workload's own pages, not copies: what has not been read when it
                            // runs again would be read as it is then, and the checkpoint would be of no moment.
                            if !self.intake.wait_for_all() {
                                drop(held);
                                let drained = drained()?;
                                return Err(self.dump_failed(&mut criu, root_cause(drained)));
                            }
                            held.proceed().map_err(|error| self.broken(&error))?;
                            let ended = criu.wait().map_err(|error| error.explain())?;
                            let frozen = frozen_at.elapsed();
                            let drained = drained()?;
                            if !ended.success() || drained.is_err() {
                                return Err(self.dump_failed(&mut criu, root_cause(drained)));
                            }
                            self.events.send(&Event::Released { frozen_ms: milliseconds(frozen) });
                            if let Some(recalled) = &self.made.recalled {
                                recalled.keep(&self.watch);
                            }
                            commit(frozen)
                        }
                        AfterSave::Hold => {
                            let saved = self.commit_held(&held, || commit(frozen_at.elapsed()));
                            if let Ok(saved) = &saved {
                                self.events.send(&Event::Durable(saved.clone()));
                                // The tree may already be gone: PID 1 kills it as well.
                                let _ = held.proceed();
                            } else {
                                drop(held);
                            }
                            let _ = criu.wait();
                            let drained = drained()?;
                            saved.map_err(|problem| root_cause(drained).unwrap_or(problem))
                        }
                    }
                }
                Ok(None) => {
                    // A helper of a CRIU that was killed may live on and hold its streams open.
                    let _ = criu.kill();
                    let drained = drained()?;
                    Err(self.dump_failed(&mut criu, root_cause(drained)))
                }
                Err(error) => Err(self.broken(&error)),
            }
        })
    }

    /// Every image is in, the tree is frozen: make it durable.
    fn commit_held(&self, _held: &HeldTree, commit: impl FnOnce() -> Result<Saved, Problem>) -> Result<Saved, Problem> {
        if self.intake.wait_for_all() { commit() } else { Err(internal("CRIU's images ended early")) }
    }

    fn wants_memory_ahead(&self) -> bool {
        let by_default = self.request.then == AfterSave::RunOn && self.request.deadline_ms.is_none();
        self.request.tuning.pre_copy.unwrap_or(by_default)
    }

    fn send_memory_ahead(&self) -> Result<(), Problem> {
        let sent = self.intake.with_save(|save| {
            precopy::send_ahead(self.request.root_pid, save)?;
            save.settle()
        });
        sent.unwrap_or(Ok(())).map_err(|error| error.explain())
    }

    fn dump_options(&self, needs: Needs) -> Result<DumpOptions, Problem> {
        let afterwards = match self.request.then {
            AfterSave::RunOn => Afterwards::Running,
            AfterSave::Hold => Afterwards::Killed,
        };
        let mut options = DumpOptions::new(self.request.root_pid, self.images.path(), afterwards);
        options.script = std::fs::read_link("/proc/self/exe").ok();
        if needs.several_users && self.owner().is_none_or(|owner| !owner.is_not_ours()) {
            let library = preload::install(&self.request.context.reaper_path);
            options.preload = Some(library.map_err(|error| error.explain())?);
        }
        options.needs = needs;
        options.rights = match isolation::of(self.request.root_pid) {
            Own::All => Rights::Privileged,
            Own::Ipc | Own::Nothing => Rights::Unprivileged,
        };
        options.owner = self.owner().filter(Credentials::is_not_ours);
        options.ttys = self.request.stdio.tty.into_iter().collect();
        Ok(options)
    }

    fn commit(
        &self,
        job: &OpenJob,
        generation: Generation,
        parent: Option<&Opened>,
        host: Host,
        clocks: Option<Clocks>,
        frozen: Duration,
    ) -> Result<Saved, Problem> {
        let record = self.record(host, clocks, frozen)?;
        self.store_reaper()?;
        self.store_hot()?;
        let save = self.intake.take_save().ok_or_else(|| internal("the save was finished twice"))?;
        let stored = self.runtime.block_on(save.finish()).map_err(|error| error.explain())?;
        let progress = stored.progress;
        let base = parent.and(self.request.base);
        self.runtime.block_on(job.commit(generation, base, stored, &record, self.made.started.elapsed()))?;
        Ok(Saved {
            generation,
            at: SystemTime::now(),
            image_bytes: progress.image_bytes,
            stored_bytes: progress.stored_bytes,
            frozen_ms: milliseconds(frozen),
            total_ms: milliseconds(self.made.started.elapsed()),
        })
    }

    /// The reaper travels with its tree: the next container's revenant may carry another one.
    fn store_reaper(&self) -> Result<(), Problem> {
        let path = &self.request.context.reaper_path;
        let program = std::fs::read(path).map_err(|error| {
            Problem::new(
                Exit::Failure,
                format!("cannot read the reaper at {}: {error}", path.display()),
                "something removed it from the running container",
                "the workload runs on; start the container again to make it saveable",
            )
        })?;
        let stored = self.intake.with_save(|save| save.store_bytes(REAPER_IMAGE, &program));
        stored.unwrap_or(Ok(())).map_err(|error| error.explain())
    }

    /// What this workload waited for when it was restored.
    fn store_hot(&self) -> Result<(), Problem> {
        let Some(places) = hot::kept(&self.request.context.runtime_dir) else { return Ok(()) };
        let stored = self.intake.with_save(|save| save.store_bytes(hot::IMAGE, &places));
        stored.unwrap_or(Ok(())).map_err(|error| error.explain())
    }

    fn record(&self, host: Host, clocks: Option<Clocks>, frozen: Duration) -> Result<Record, Problem> {
        let pstree = self.intake.remembered("pstree.img").ok_or_else(|| internal("CRIU wrote no process tree"))?;
        let tree = images::pstree(&pstree).map_err(|error| internal(&format!("CRIU's process tree: {error}")))?;
        let ids = tree.iter().flat_map(|process| process.threads.iter().chain([&process.pid]));
        let mut pids: Vec<i32> = ids.filter_map(|id| i32::try_from(*id).ok()).collect();
        pids.sort_unstable();
        pids.dedup();
        let own = isolation::of(self.request.root_pid);
        let ids = InnerIds::of(self.request.root_pid);
        let inner = |pid| ids.inner(pid).ok_or_else(|| internal("a process of the frozen tree is gone"));
        Ok(Record {
            version: RECORD_VERSION,
            reason: self.request.reason.clone(),
            root_pid: inner(self.request.root_pid)?,
            command_pid: inner(self.request.command_pid)?,
            pids,
            stdio: self.request.stdio.clone(),
            reaper_path: self.request.context.reaper_path.clone(),
            host,
            frozen_ms: milliseconds(frozen),
            keeps_tcp: self.look.get().is_some_and(|look| look.needs.keeps_tcp),
            made_in: self.made_in.get().cloned(),
            clocks,
            owner: self.owner(),
            own_ipc: own != Own::Nothing,
            own_pids: own == Own::All,
        })
    }

    /// Whose the tree is: CRIU must be the same user.
    fn owner(&self) -> Option<Credentials> {
        Credentials::of(self.request.root_pid).ok()
    }

    /// Every live process of the job must be in the dump. The tree is frozen, so that the answer stays true.
    fn refuse_to_leave_behind(&self) -> Result<(), Problem> {
        // It is one of the first images. Without it CRIU has failed, which is told later.
        let Some(pstree) = self.intake.remembered("pstree.img") else { return Ok(()) };
        let saved: Vec<u32> =
            images::pstree(&pstree).unwrap_or_default().into_iter().map(|process| process.pid).collect();
        let left = strays::left_behind(self.request.root_pid, &saved).unwrap_or_default();
        let Some(first) = left.first() else { return Ok(()) };
        Err(Problem::new(
            Exit::Failure,
            format!(
                "process {} ({}) belongs to the job, and would be missing from the checkpoint",
                first.pid, first.comm
            ),
            format!(
                "it is not below process {}, the root of the job's tree; its parent is {}",
                self.request.root_pid, first.ppid
            ),
            "end it, if it is not needed; the workload runs on",
        ))
    }

    /// CRIU failed. What broke first is the cause: the repository, or else what CRIU's log says.
    fn dump_failed(&self, criu: &mut CriuProcess, repository: Option<Problem>) -> Problem {
        let _ = criu.wait();
        let known = || self.look.get().and_then(|look| foresight::doom(&look.findings, Frozen::Tried));
        repository.or_else(known).unwrap_or_else(|| explain_in(self.images.path(), Operation::Dump))
    }

    fn broken(&self, error: &impl std::fmt::Display) -> Problem {
        Problem::new(
            Exit::CriuUnusable,
            format!("the connection with CRIU broke: {error}"),
            "CRIU ended early, or the runtime directory is not usable",
            format!("see {} for CRIU's log", self.images.path().display()),
        )
    }

    /// Does `work` while PID 1 is told how far the save is.
    fn with_progress<T>(&self, phase: &str, work: impl FnOnce() -> T) -> T {
        let measure = || {
            let progress = self.watch.progress();
            Progress {
                phase: phase.to_owned(),
                done_bytes: if phase == "pre-copy" { progress.warmed_bytes } else { progress.image_bytes },
                total_bytes: None,
                store_bytes: progress.uploaded_bytes,
            }
        };
        while_telling(self.events, measure, work)
    }
}

/// What went wrong on our side of the pipes, if it explains a failed dump. A broken conversation does
/// not: CRIU's log says why it ended.
fn root_cause(drained: Result<(), IntakeError>) -> Option<Problem> {
    match drained.err()? {
        IntakeError::Save(error) => Some(error.explain()),
        IntakeError::Stream(_) => None,
        error @ IntakeError::Late(_) => Some(internal(&error.to_string())),
    }
}

/// A store that does not answer must leave the workload time for its SIGTERM.
fn store_settings(request: &Request) -> StoreSettings {
    let default = StoreSettings::default();
    let half = request.deadline_ms.map(|left| Duration::from_millis(left / 2));
    StoreSettings {
        patience: half.map_or(default.patience, |half| half.min(default.patience)),
        upload_limit: request.tuning.upload_limit,
        ..default
    }
}

fn options(request: &Request) -> Result<SaveOptions, Problem> {
    let tuning = &request.tuning;
    let mut options = SaveOptions::default();
    if !tuning.compression.is_empty() {
        options.compression = tuning.compression.parse().map_err(|error| {
            Problem::new(
                Exit::Usage,
                format!("{error}"),
                "the value of --compression is not one that revenant knows",
                "use auto, none, lz4, zstd or zstd:N",
            )
        })?;
    }
    if let Some(limit) = tuning.memory_limit.and_then(|limit| usize::try_from(limit).ok()) {
        options.memory_limit = options.memory_limit.min(limit);
    }
    if let Some(dir) = &tuning.spool {
        options.spool = Some(Spool { dir: dir.clone(), limit: tuning.spool_limit.unwrap_or(u64::MAX) });
    }
    Ok(options)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn internal(what: &str) -> Problem {
    Problem::new(Exit::Internal, what, "this is a defect of revenant", "please report it, with the log")
}
