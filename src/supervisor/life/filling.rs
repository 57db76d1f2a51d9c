//! A workload that runs before its memory has arrived: the engine that brings it, saves that wait for it, its failure.

use super::Life;
use crate::checkpoint::protocol::{Event as Said, Lazy};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::supervisor::engine::Engine;
use crate::supervisor::state::{Event, State};
use crate::supervisor::{Input, words};
use crate::workload::kill;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::time::Duration;
use tracing::{info, warn};

/// How long the last words of a dead engine may take. (The end of its output shows nothing: its keeper has it open.)
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A lazy restore that goes on.
#[derive(Debug)]
pub(super) struct Filling {
    engine: Engine,
    lazy: Lazy,
    /// A save waits for the end of it.
    save_waits: bool,
}

impl Life {
    /// The workload runs, and its engine goes on.
    pub(super) fn fills(&mut self, engine: Option<Engine>, lazy: Option<Lazy>) {
        let (Some(engine), Some(lazy)) = (engine, lazy) else { return };
        info!(bytes = lazy.bytes, "{} of its memory come while it runs", words::bytes(lazy.bytes));
        let (id, dead) = (engine.id, engine.ended.is_some());
        self.filling = Some(Filling { engine, lazy, save_waits: false });
        if dead {
            self.filler_ended(id);
        }
    }

    /// Whether this engine brings memory.
    pub(super) fn is_filling(&self, id: u64) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.engine.id == id)
    }

    /// What it says.
    pub(super) fn on_fill(&mut self, event: Said) {
        match event {
            Said::Filled { bytes, faults, took_ms } => {
                self.observed.filled();
                let took = words::duration(Duration::from_millis(took_ms));
                info!(
                    bytes,
                    faults, took_ms, "all memory has arrived, after {took} ({faults} times it was waited for)"
                );
                let Some(Filling { engine, save_waits, .. }) = self.filling.take() else { return };
                if save_waits && matches!(self.state, State::Preparing(_)) {
                    drop(engine);
                    self.prepare();
                } else {
                    self.finishing_touch = Some(engine).filter(|engine| engine.ended.is_none());
                }
            }
            Said::Failed { problem } => self.fill_failed(problem),
            other => self.on_engine(other),
        }
    }

    /// Whether a save has to wait; says so.
    pub(super) fn waits_for_memory(&mut self) -> bool {
        // Its standard input ends with this, and it with that.
        self.finishing_touch = None;
        let Some(filling) = &mut self.filling else { return false };
        if !filling.save_waits {
            filling.save_waits = true;
            let stands = self.facts.saved.map_or_else(String::new, |(generation, at)| {
                format!("; until then generation {generation}, saved {} ago, stays the newest", words::age(at))
            });
            info!("the save begins when all memory has arrived{stands}");
        }
        true
    }

    /// The engine that brings memory was reaped; returns whether it was that.
    pub(super) fn filler_reaped(&mut self, pid: i32, status: WaitStatus) -> bool {
        if self.finishing_touch.take_if(|engine| engine.pid == pid).is_some() {
            // Not by us, who end it with what is left of a tree.
            if self.workload.is_some() && matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)) {
                self.count_kill_of_engine();
            }
            return true;
        }
        let Some(filling) = self.filling.as_mut().filter(|filling| filling.engine.pid == pid) else { return false };
        filling.engine.ended = Some(status);
        if matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)) {
            self.count_kill_of_engine();
        }
        let id = self.filling.as_ref().map_or(0, |filling| filling.engine.id);
        self.filler_ended(id);
        true
    }

    fn filler_ended(&self, id: u64) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            let _ = inputs.send(Input::EngineClosed { id }).await;
        });
    }

    /// It has ended without a last word.
    pub(super) fn filler_died(&mut self) {
        self.fill_failed(Problem::new(
            Exit::FillFailed,
            "the engine ended before all memory of the workload had arrived",
            "it was killed, for example by the container's memory limit, or has a defect",
            "nothing that was saved is lost: the next container restores all memory before the workload runs",
        ));
    }

    fn fill_failed(&mut self, problem: Problem) {
        if !self.state.has_workload() {
            return;
        }
        warn!(exit = problem.exit, "the workload is stopped: {problem}");
        if !problem.passing {
            // The next restore of it looks at everything before the workload runs.
            self.facts.crashed_after_restore_of = self.workload.as_ref().and_then(|workload| workload.restored_from);
        }
        self.facts.problem = Some(problem);
        self.feed(Event::FillFailed);
    }

    /// Those who must outlive the workload: without them whoever waits for a page would find zeros there.
    pub(super) fn fillers(&self) -> Vec<i32> {
        self.filling.iter().flat_map(|filling| [filling.engine.pid, filling.lazy.keeper]).collect()
    }

    /// No process of the workload is left.
    pub(super) fn end_filling(&mut self) {
        if let Some(filling) = self.filling.take() {
            self.observed.filled();
            if filling.engine.ended.is_none() {
                filling.engine.kill();
            }
            kill::send(filling.lazy.keeper, Signal::SIGKILL);
        }
    }
}
