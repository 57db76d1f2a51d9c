//! What the engine is asked to do.

use super::Life;
use crate::checkpoint::files::FilePolicy;
use crate::checkpoint::protocol::{AfterSave, Begin, Finish, JobContext, Request, Save};
use crate::checkpoint::recalled;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::supervisor::ending;
use crate::supervisor::engine::Engine;
use crate::supervisor::state::{Cause, Event, State, Verdict};
use crate::trigger::Source;
use crate::workload::{hold, stdio};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// How often revenant's own processes may be started again because they hold IDs that the checkpoint needs.
const ASIDES: u8 = 3;

/// How long an engine may take to give up, or to say its last words after its end.
pub(super) const ENGINE_PATIENCE: Duration = Duration::from_secs(2);

impl Life {
    pub(super) fn begin(&mut self) {
        let Some(store) = &self.settings.store else {
            debug!("no store: supervising without checkpoints");
            self.to_start = Some(self.settings.command.clone());
            return self.feed(Event::BeganFresh);
        };
        debug!(job = %self.settings.job, store, "beginning");
        let Some(stdio) = &self.stdio else { return };
        let (fds, roles) = stdio.for_restore();
        let request = Request::Begin(Begin {
            context: self.context(),
            takeover: self.settings.takeover,
            lease_seconds: self.settings.lease.as_secs(),
            store_patience_seconds: self.settings.store_patience.as_secs(),
            on_restore_failure: self.settings.on_restore_failure,
            has_resume_command: self.settings.resume_command.is_some(),
            cpu: self.settings.cpu,
            restore_stall_seconds: self.settings.restore_stall.as_secs(),
            stdio: roles,
            clock: self.settings.clock,
            holder: self.holder.clone(),
            chunk_sizes: self.settings.chunk_sizes,
            again: self.again,
            held: self.epoch,
            asides: ASIDES.saturating_sub(self.stood_aside),
            mode: self.settings.restore,
            fill_limit: self.settings.fill_limit,
            cache: self.settings.cache.clone(),
        });
        self.engines += 1;
        let started = Engine::start(self.engines, &request, &fds, self.inputs.clone());
        match started {
            Ok(engine) => self.engine = Some(engine),
            Err(error) => {
                self.facts.problem = Some(cannot_start_engine(&error));
                self.feed(Event::BeginFailed);
            }
        }
    }

    /// An engine, or what listens outside, holds an ID of the checkpoint: both are started again, and get others.
    pub(super) fn begin_beside(&mut self, pids: &[i32]) {
        debug!(?pids, "revenant itself was given IDs that the checkpoint needs");
        self.stood_aside += 1;
        if let Some(outside) = self.triggers.outside.as_ref().filter(|outside| outside.holds(pids)) {
            outside.restart();
        }
        self.begin();
    }

    /// Restores the newest checkpoint in this same container. The claim is taken anew: its number is higher, and
    /// nothing that an engine of before may still do counts.
    pub(super) fn begin_again(&mut self) {
        if let Some(beating) = self.beating.take() {
            beating.abort();
        }
        self.epoch = None;
        self.again = true;
        self.observed.begins_again();
        self.ended_early.clear();
        self.attached.let_go();
        match stdio::prepare(self.settings.tty) {
            Ok(prepared) => {
                self.stdio = Some(prepared);
                self.begin();
            }
            Err(error) => {
                self.facts.problem = Some(Problem::new(
                    Exit::Failure,
                    format!("the workload's stdin, stdout and stderr cannot be arranged again: {error}"),
                    "the container's limit on open files is reached",
                    "nothing is lost: the next container continues from the last checkpoint",
                ));
                self.feed(Event::BeginFailed);
            }
        }
    }

    pub(super) fn save(&mut self, then: AfterSave) {
        let now = Instant::now();
        let left = self.left_to_save(now);
        self.triggers.saving_since = Some(now);
        self.triggers.hopeless = false;
        if self.state == State::Halting(Cause::Term) {
            self.stop_signal.as_str().clone_into(&mut self.reason);
            self.observed.because(Source::Signal);
        }
        let command_pid = self.command_pid();
        let tuning = self.effort(left);
        let (Some(workload), Some(epoch)) = (&mut self.workload, self.epoch) else {
            return self.cannot_save(no_store());
        };
        workload.stopped_before = hold::stopped(workload.root);
        if self.recalled.is_none() {
            // Without it every save reads the memory as if it were the first one.
            self.recalled = recalled::create().inspect_err(|error| debug!(%error, "saves cannot remember")).ok();
        }
        let request = Request::Save(Save {
            epoch,
            root_pid: workload.root,
            command_pid: command_pid.unwrap_or(workload.root),
            then,
            deadline_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            stdio: workload.roles.clone(),
            reason: self.reason.clone(),
            base: self.facts.saved.map(|(generation, _)| generation),
            keep: self.settings.keep,
            tuning,
            recalls: self.recalled.is_some(),
            context: self.context(),
        });
        self.engines += 1;
        let fds: Vec<_> = self.recalled.iter().map(AsFd::as_fd).collect();
        let started = Engine::start(self.engines, &request, &fds, self.inputs.clone());
        self.observed.save_begins();
        // Told after the start: the log may be slow.
        info!(reason = self.reason, "saving ({})", self.reason);
        match started {
            Ok(engine) => self.engine = Some(engine),
            Err(error) => self.cannot_save(cannot_start_engine(&error)),
        }
    }

    pub(super) fn cannot_save(&mut self, problem: Problem) {
        if self.settings.store.is_some() {
            warn!(exit = problem.exit, "the save failed: {problem}");
        }
        self.cost.failed += 1;
        self.observed.save_failed(&problem);
        self.facts.problem = Some(problem.clone());
        self.save_over(Err(problem));
        self.feed(Event::SaveFailed { intact: true, time_for_another: false });
    }

    pub(super) fn finish(&mut self) {
        if self.lingering.is_some() {
            // The claim is needed until it has tidied up; its end comes back here.
            return;
        }
        if let Some(beating) = self.beating.take() {
            beating.abort();
        }
        let ending = self.verdict.and_then(|verdict| ending::record(verdict, &self.facts));
        let Some(ending) = ending.filter(|_| self.may_hold_the_job()) else { return self.feed(Event::Finished) };
        let request = Request::Finish(Finish {
            context: self.context(),
            epoch: self.epoch,
            holder: self.holder.clone(),
            ending,
            keep_on_complete: self.settings.keep_on_complete,
        });
        self.engines += 1;
        match Engine::start(self.engines, &request, &[], self.inputs.clone()) {
            Ok(engine) => self.engine = Some(engine),
            Err(error) => {
                warn!(%error, "the end of the job could not be recorded: {error}");
                self.feed(Event::Finished);
            }
        }
    }

    /// An engine that was killed, or died, may have taken the job without a word.
    fn may_hold_the_job(&self) -> bool {
        let died = || self.facts.problem.as_ref().is_some_and(|problem| problem.exit == Exit::Internal.code());
        self.epoch.is_some()
            || self.settings.store.is_some()
                && match self.verdict {
                    Some(Verdict::StoppedBeforeStart) => true,
                    Some(Verdict::BeginFailed) => died(),
                    _ => false,
                }
    }

    pub(super) fn context(&self) -> JobContext {
        JobContext {
            job: self.settings.job.clone(),
            store: self.settings.store.clone().unwrap_or_default(),
            runtime_dir: self.settings.runtime_dir.clone(),
            reaper_path: self.reaper_path.clone(),
            files: FilePolicy { own: self.own_paths(), ..self.settings.files.clone() },
        }
    }

    /// What the side effects of the workload are not.
    pub(super) fn own_paths(&self) -> Vec<PathBuf> {
        self.settings.files.own.iter().cloned().chain([self.reaper_path.clone()]).collect()
    }
}

fn cannot_start_engine(error: &std::io::Error) -> Problem {
    Problem::new(
        Exit::Failure,
        format!("the engine cannot be started: {error}"),
        "the container's limit on processes or memory is reached, or /proc is not mounted",
        "raise the limits of the container",
    )
}

pub(super) fn no_store() -> Problem {
    Problem::new(
        Exit::Usage,
        "this workload cannot be saved",
        "revenant was started without a store (--store none)",
        "start it with --store, for example --store file:///checkpoints",
    )
}
