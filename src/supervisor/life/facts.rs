//! What is known about the run, for people and for decisions.

use super::Life;
use crate::checkpoint::protocol::Observation;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::job::Generation;
use crate::store::{self, Trouble};
use crate::supervisor::control::{Phase, Status};
use crate::supervisor::effort;
use crate::supervisor::state::{Next, State};
use crate::workload::cgroup::cpu;
use crate::workload::spawn;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

impl Life {
    pub(super) fn command_pid(&mut self) -> Option<i32> {
        let workload = self.workload.as_mut()?;
        if workload.command.is_none() {
            workload.command = spawn::command_pid(workload.root);
        }
        workload.command
    }

    /// What the next save is likely to take.
    pub(super) fn expected_cost(&self) -> Duration {
        let known = self.cost.last.as_ref().or(self.cost.earlier.as_ref());
        known.map_or_else(|| effort::first_guess(self.held()), |saved| Duration::from_millis(saved.total_ms))
    }

    /// Whether another save like the last one would be done in time.
    pub(super) fn time_for_another(&self) -> bool {
        self.clock.left_to_save(Instant::now()).is_none_or(|left| left > self.expected_cost())
    }

    pub(super) fn status(&mut self) -> Status {
        let command_pid = self.command_pid();
        let Trouble { errors, retries } = store::take_trouble();
        self.observed.noticed(&Observation::Store { errors, retries });
        Status {
            job: self.settings.job.clone(),
            store: self.settings.store.clone(),
            phase: phase(self.state),
            state: describe(self.state).to_owned(),
            frozen: self.frozen,
            uptime_ms: milliseconds(self.born.elapsed()),
            root_pid: self.workload.as_ref().map(|workload| workload.root),
            command_pid,
            restored_from: self.workload.as_ref().and_then(|workload| workload.restored_from),
            generation: self.facts.saved.map(|(generation, _)| generation),
            saved_at: self.facts.saved.map(|(_, at)| at),
            unsaved_ms: self
                .workload
                .as_ref()
                .map_or(0, |workload| milliseconds(unsaved(workload.since, self.facts.saved))),
            last_save: self.cost.last.clone(),
            unsaved: self.observed.unsaved().cloned(),
            progress: self.observed.under_way().cloned(),
            lost_work_ms: self.observed.work_lost().map(milliseconds),
            grace_ms: milliseconds(self.settings.grace),
            saves: self.cost.saves,
            failed_saves: self.cost.failed,
            frozen_ms: self.cost.frozen_ms,
            stored_bytes: self.cost.stored_bytes,
            resident_bytes: resident_bytes(),
            cpu_ms: cpu::used().map(milliseconds),
            triggers: self.triggers.board.borrow().snapshot(),
            not_carried: self.looking.findings.clone(),
        }
    }
}

fn phase(state: State) -> Phase {
    match state {
        State::Beginning | State::Clearing => Phase::Beginning,
        State::Running => Phase::Running,
        State::Preparing(Next::RunOn) | State::Saving(Next::RunOn) => Phase::Saving,
        State::Preparing(_) | State::Saving(_) | State::Halting(_) | State::Abandoning | State::Stopping => {
            Phase::Stopping
        }
        State::Killing | State::Finishing | State::Ended => Phase::Ending,
    }
}

/// Work that would be lost now: since the last save, but no more than was done in this container, where
/// the workload may have come from an older save.
fn unsaved(since: Instant, saved: Option<(Generation, SystemTime)>) -> Duration {
    let here = since.elapsed();
    saved.map_or(here, |(_, at)| SystemTime::now().duration_since(at).unwrap_or_default().min(here))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn describe(state: State) -> &'static str {
    match state {
        State::Beginning => "beginning",
        State::Clearing => "going back to the last checkpoint",
        State::Running => "running",
        State::Preparing(Next::RunOn) | State::Saving(Next::RunOn) => "saving",
        State::Preparing(_) | State::Saving(_) | State::Halting(_) => "saving, then stopping",
        State::Abandoning | State::Stopping => "stopping without a save",
        State::Killing | State::Finishing | State::Ended => "ending",
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

pub(super) fn not_now(state: State) -> Problem {
    Problem::new(
        Exit::Failure,
        "the workload cannot be saved now",
        format!("revenant is {}", describe(state)),
        "try again when `revenant status` says that it is running",
    )
}
