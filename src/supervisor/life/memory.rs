//! Memory that runs out: for the workload, and for a save.

use super::Life;
use crate::checkpoint::protocol::{Progress, Tuning};
use crate::supervisor::effort::{self, Outlook};
use crate::supervisor::out_of_memory::OutOfMemory;
use crate::supervisor::settings::OnOom;
use crate::supervisor::state::{Cause, Event, Next, State};
use crate::supervisor::{ending, words};
use crate::workload::cgroup::memory::Memory;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::{info, warn};

/// Restores after OOM kills in a row, without a durable save between them: more would be a loop.
const RESTORES_IN_A_ROW: u32 = 3;
/// A command that fails this soon after one of its processes was killed has failed because of it.
const SOON: Duration = Duration::from_secs(30);

impl Life {
    /// The OOM kills so far are not the workload's that begins now, or were those of something else.
    pub(super) fn count_kills(&mut self) {
        self.triggers.kills_before = self.triggers.memory.as_ref().and_then(Memory::kills).unwrap_or(0);
    }

    /// The kernel has probably killed the engine for want of memory; that one kill was not the workload's. Others may
    /// have been: both may die before either is reaped.
    pub(super) fn count_kill_of_engine(&mut self) {
        let now = self.triggers.memory.as_ref().and_then(Memory::kills).unwrap_or(0);
        self.triggers.kills_before = now.min(self.triggers.kills_before + 1);
    }

    /// What the end of the workload means: its own, or that of its memory, after which it may be restored here.
    pub(super) fn end_or_restore(&mut self, status: WaitStatus) -> Event {
        if !self.was_killed_for_memory(status) {
            return Event::WorkloadEnded;
        }
        let why = self.say_out_of_memory();
        self.facts.out_of_memory = Some(why.clone());
        let Some((generation, at)) = self.facts.saved else {
            return Event::WorkloadEnded;
        };
        if self.settings.on_oom == OnOom::Exit {
            return Event::WorkloadEnded;
        }
        if self.triggers.restores_in_a_row >= RESTORES_IN_A_ROW {
            warn!("not restored again: the workload has run out of memory {RESTORES_IN_A_ROW} times without a save");
            return Event::WorkloadEnded;
        }
        warn!(%generation, "{why}; going back to generation {generation}, saved {} ago", words::age(at));
        self.triggers.restores_in_a_row += 1;
        self.triggers.board.borrow_mut().facts().restored_after_oom += 1;
        self.facts.workload = None;
        self.facts.crashed_after_restore_of = None;
        Event::OutOfMemory
    }

    fn was_killed_for_memory(&self, status: WaitStatus) -> bool {
        let Some(kills) = self.triggers.memory.as_ref().and_then(Memory::kills) else { return false };
        if kills <= self.triggers.kills_before {
            return false;
        }
        let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
        let mut board = self.triggers.board.borrow_mut();
        board.killed(kills, std::time::Instant::now());
        // A command whose child was killed fails by itself, soon.
        killed || ending::workload_code(status) != 0 && board.killed_within(SOON, std::time::Instant::now())
    }

    fn say_out_of_memory(&self) -> String {
        let memory = self.triggers.memory.as_ref();
        let mut board = self.triggers.board.borrow_mut();
        let (growth_per_second, asked) = board.take_demand();
        let known = OutOfMemory {
            at: SystemTime::now(),
            limit: memory.and_then(Memory::look).and_then(|seen| seen.limit),
            peak: memory.and_then(Memory::peak),
            peak_with_swap: memory.and_then(Memory::peak_with_swap),
            asked,
            growth_per_second,
            excess: None,
        }
        .judge();
        let words = known.words();
        board.facts().last_oom = Some(known);
        words
    }

    /// What the container holds of memory, where it has a control group for that.
    pub(super) fn held(&self) -> Option<u64> {
        self.triggers.memory.as_ref().and_then(Memory::look).map(|seen| seen.held)
    }

    /// How hard the next save tries.
    pub(super) fn effort(&self, left: Option<Duration>) -> Tuning {
        let headroom = self.triggers.memory.as_ref().and_then(Memory::look).and_then(|seen| seen.headroom());
        let outlook = Outlook { left, expected: self.expected_cost(), headroom };
        let (tuning, said) = effort::choose(&self.settings.tuning, outlook);
        for line in said {
            info!("{line}");
        }
        tuning
    }

    /// Gives up a save that will not be in time, so that the workload gets its signal and the rest of the time.
    pub(super) fn judge_progress(&mut self, progress: &Progress) {
        let last = matches!(self.state, State::Halting(Cause::Term) | State::Saving(Next::Term));
        if !last || self.triggers.hopeless {
            return;
        }
        let now = Instant::now();
        let saved = self.cost.last.as_ref().or(self.cost.earlier.as_ref());
        let expected = saved.map(|saved| saved.image_bytes).or_else(|| self.held());
        let (Some(since), Some(left), Some(expected)) =
            (self.triggers.saving_since, self.clock.left_to_save(now), expected)
        else {
            return;
        };
        if effort::hopeless(now.duration_since(since), left, progress.done_bytes, expected) {
            self.triggers.hopeless = true;
            warn!(
                "the save will not be in time: {} of about {} after {}, and {} are left",
                words::bytes(progress.done_bytes),
                words::bytes(expected),
                words::duration(now.duration_since(since)),
                words::duration(left)
            );
            self.feed(Event::SaveTimeUp);
        }
    }
}
