//! What the engine says, and what it means.

use super::Life;
use crate::checkpoint::protocol::{Event as Said, Outcome, Saved};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::job::Epoch;
use crate::kubernetes::watch::annotation::Checkpoint;
use crate::kubernetes::watch::events::Happening;
use crate::supervisor::clock::Alarm;
use crate::supervisor::control::Answer;
use crate::supervisor::engine::Kind;
use crate::supervisor::state::{Event, State};
use crate::supervisor::{Input, words};
use nix::sys::wait::WaitStatus;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// How long a CRIU without its engine may take to let the tree go (it took 60 ms when it was tried).
const CRIU_PATIENCE: Duration = Duration::from_secs(5);

impl Life {
    pub(super) fn on_engine(&mut self, event: Said) {
        match event {
            Said::Notice { message } => info!("{message}"),
            Said::Warning { problem } => {
                self.observed.warned();
                warn!(exit = problem.exit, "{problem}");
            }
            Said::Observed(observation) => self.observed.noticed(&observation),
            Said::Progress(progress) => {
                if let Some(line) = self.observed.progress(&progress) {
                    let end = self
                        .left_to_save(Instant::now())
                        .map_or_else(String::new, |left| format!("; it must be durable in {}", words::duration(left)));
                    info!(phase = progress.phase, done_bytes = progress.done_bytes, "{line}{end}");
                }
                self.tell_progress(&progress);
            }
            Said::Claimed { epoch, history } => {
                self.triggers.history = history;
                self.claimed(epoch);
            }
            Said::Ready => self.let_run(),
            Said::Looked { findings } => self.looked(findings),
            Said::Frozen => {
                self.frozen = true;
                self.observed.frozen();
            }
            Said::Released { frozen_ms } => {
                self.frozen = false;
                for waiter in &self.waiters {
                    let _ = waiter.answers.try_send(Answer::Released { frozen_ms });
                }
            }
            Said::Filled { .. } => {}
            Said::Began { outcome } => {
                let engine = self.engine.take();
                // Its end may have been seen before its last word.
                self.clock.clear(Alarm::EnginePatience);
                let lazy = match &outcome {
                    Outcome::Restored { lazy, .. } => *lazy,
                    _ => None,
                };
                self.began(outcome);
                self.fills(engine, lazy);
                self.resumed();
            }
            Said::Durable(saved) => {
                // It goes on to remove old generations.
                self.lingering = self.engine.take().filter(|engine| engine.ended.is_none());
                self.durable(saved);
            }
            Said::Finished => {
                self.engine = None;
                self.feed(Event::Finished);
            }
            Said::Failed { problem } => self.engine_failed(problem),
        }
    }

    /// The engine holds a restored workload. From here on it counts as running: a signal waits until it does.
    fn let_run(&mut self) {
        if let Some(engine) = self.engine.as_mut().filter(|_| self.state == State::Beginning) {
            self.resuming = true;
            engine.let_run();
        }
    }

    /// The workload runs, or never will.
    fn resumed(&mut self) {
        self.resuming = false;
        for signal in std::mem::take(&mut self.held_back) {
            self.on_signal(signal);
        }
    }

    pub(super) fn claimed(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
        if let Some(earlier) = self.beating.take() {
            earlier.abort();
        }
        if let Some(lease) = &self.lease {
            let (lost, inputs) = (lease(epoch), self.inputs.clone());
            self.beating = Some(tokio::task::spawn_local(async move {
                lost.await;
                let _ = inputs.send(Input::Fenced).await;
            }));
        }
    }

    pub(super) fn began(&mut self, outcome: Outcome) {
        self.observed.began(&outcome);
        match outcome {
            Outcome::InTheWay { pids } => self.begin_beside(&pids),
            Outcome::AlreadyComplete { at } => {
                self.facts.complete_since = Some(at);
                self.feed(Event::BeganComplete);
            }
            Outcome::StartFresh => {
                self.to_start = Some(self.settings.command.clone());
                self.feed(Event::BeganFresh);
            }
            Outcome::Resume { reason } => {
                warn!("nothing could be restored ({reason}); running the resume command instead");
                self.to_start = self.settings.resume_command.clone();
                self.feed(Event::BeganFresh);
            }
            Outcome::Restored { generation, saved_at, root_pid, command_pid, took_ms, stdio, cost, lazy: _ } => {
                self.cost.earlier = cost;
                let message = format!("continued from generation {generation}, saved {} ago", words::age(saved_at));
                self.put_on_pod(Happening::Restored, message, None);
                self.facts.saved = Some((generation, saved_at));
                self.restored = Some((root_pid, command_pid, generation, stdio));
                self.feed(Event::BeganRestored);
                // Once it is told, the workload has its terminal: what is typed from now on is the workload's.
                info!(
                    %generation, root_pid, took_ms,
                    "continued from generation {generation}, saved {} ago, in {}",
                    words::age(saved_at),
                    words::duration(Duration::from_millis(took_ms)),
                );
                self.hook_after_restore();
            }
        }
    }

    pub(super) fn durable(&mut self, saved: Saved) {
        self.observed.saved(&saved);
        info!(
            generation = %saved.generation, image_bytes = saved.image_bytes, stored_bytes = saved.stored_bytes,
            "{}", words::saved(&saved)
        );
        let size = words::bytes(saved.image_bytes);
        let frozen = words::duration(Duration::from_millis(saved.frozen_ms));
        let why = &self.reason;
        self.put_on_pod(
            Happening::Checkpointed,
            format!("saved generation {} ({why}): {size}, frozen {frozen}", saved.generation),
            Some(Checkpoint { generation: saved.generation, at: saved.at }),
        );
        self.cost.saves += 1;
        self.cost.frozen_ms += saved.frozen_ms;
        self.cost.stored_bytes += saved.stored_bytes;
        self.cost.last = Some(saved.clone());
        self.facts.saved = Some((saved.generation, saved.at));
        self.facts.problem = None;
        self.triggers.restores_in_a_row = 0;
        self.save_over(Ok(saved));
        self.schedule();
        let time_for_another = self.time_for_another();
        self.feed(Event::Durable { time_for_another });
    }

    pub(super) fn save_over(&mut self, outcome: Result<Saved, Problem>) {
        self.frozen = false;
        self.clock.clear(Alarm::EnginePatience);
        self.account(outcome.is_ok());
        self.hook_after_save(&outcome);
        self.outcome = Some(outcome);
    }

    /// The engine has closed its events without a final one.
    pub(super) fn engine_died(&mut self) {
        let Some(engine) = &self.engine else { return };
        engine.kill();
        let how = match engine.ended {
            Some(WaitStatus::Signaled(_, signal, _)) => format!("signal {signal}"),
            Some(WaitStatus::Exited(_, code)) => format!("exit code {code}"),
            _ => "its output was closed".to_owned(),
        };
        let next = "look for an OOM kill in the pod's events; raise the memory limit; report it if there was none";
        let next = match engine.kind {
            Kind::Save => {
                format!("{next}. If the checkpoint was complete by then, the next container continues from it")
            }
            Kind::Begin | Kind::Finish | Kind::Look => next.to_owned(),
        };
        let problem = Problem::new(
            Exit::Internal,
            format!("the engine ended before its work was done ({how})"),
            "it was killed, for example by the container's memory limit, or has a defect",
            next,
        );
        self.engine_failed(problem);
    }

    pub(super) fn engine_failed(&mut self, problem: Problem) {
        let Some(engine) = self.engine.take() else { return };
        match engine.kind {
            Kind::Begin => {
                self.observed.begin_failed();
                self.facts.problem = Some(problem);
                self.feed(Event::BeginFailed);
                self.resumed();
            }
            // Its events go elsewhere.
            Kind::Look => {}
            Kind::Finish => {
                warn!(exit = problem.exit, "the end of the job could not be recorded: {problem}");
                self.feed(Event::Finished);
            }
            Kind::Save => {
                warn!(exit = problem.exit, "the save failed; earlier checkpoints stand: {problem}");
                self.put_on_pod(Happening::CheckpointFailed, problem.to_string(), None);
                self.cost.failed += 1;
                self.observed.save_failed(&problem);
                self.facts.problem = Some(problem.clone());
                self.save_over(Err(problem));
                if self.ended_in_save {
                    return self.feed(Event::WorkloadEnded);
                }
                self.settling = Some(Instant::now() + CRIU_PATIENCE);
                self.look_at_tree();
            }
        }
    }
}
