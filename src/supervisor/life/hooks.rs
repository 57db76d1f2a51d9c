//! Hooks: when each has its turn, how long it may take, and what becomes of it.

use super::Life;
use crate::checkpoint::protocol::Saved;
use crate::explain::Problem;
use crate::supervisor::clock::Alarm;
use crate::supervisor::ending;
use crate::supervisor::hook::facts::Facts;
use crate::supervisor::hook::{Hook, Moment, process, reaction, time_before_save};
use crate::supervisor::state::{Cause, Event, Next, State};
use crate::supervisor::words;
use crate::workload::command::Command;
use crate::workload::kill;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::{info, warn};

/// The hooks under way: at most one for each moment.
pub(super) type Running = BTreeMap<Moment, Started>;

/// A hook under way.
#[derive(Debug)]
pub(super) struct Started {
    /// None while only the pause after a signal is waited for.
    pid: Option<i32>,
    since: Instant,
    until: Instant,
}

impl Life {
    /// The hook before a save, or the save at once.
    pub(super) fn prepare(&mut self) {
        if self.waits_for_memory() {
            return;
        }
        let now = Instant::now();
        let begun = match self.time_before_save(now) {
            Some(limit) => self.start_hook(Moment::BeforeSave, limit, None),
            None if self.settings.hooks.before_save.is_some() => {
                warn!("no time for the before-save hook: the save is made without it");
                self.observed.hook_ended(Moment::BeforeSave, "skipped");
                false
            }
            None => false,
        };
        if !begun {
            self.feed(Event::Prepared);
        }
    }

    fn time_before_save(&self, now: Instant) -> Option<Duration> {
        time_before_save(self.settings.hooks.timeout, self.left_to_save(now), self.expected_cost())
    }

    /// The end has come nearer: the hook before the save has less time.
    pub(super) fn hurry_hook(&mut self) {
        let now = Instant::now();
        let limit = self.time_before_save(now).unwrap_or_default();
        if let Some(hook) = self.hooks.get_mut(&Moment::BeforeSave) {
            hook.until = hook.until.min(now + limit);
            self.clock.set(Alarm::Hook(Moment::BeforeSave), hook.until);
        }
    }

    /// Ends the hook before a save that will not be made.
    pub(super) fn cancel_hook(&mut self) {
        self.end_hook(Moment::BeforeSave);
    }

    /// A save is over; whatever came of it, the hook after it has its turn.
    pub(super) fn hook_after_save(&mut self, outcome: &Result<Saved, Problem>) {
        // The command is being killed already, where the save was its last.
        let gone = outcome.is_ok() && self.is_final();
        let signal = matches!(self.settings.hooks.after_save, Some(Hook::Signal { .. }));
        if !(gone && signal) {
            self.start_hook(Moment::AfterSave, self.settings.hooks.timeout, Some(outcome));
        }
    }

    /// The workload runs again.
    pub(super) fn hook_after_restore(&mut self) {
        if self.state.has_workload() {
            self.start_hook(Moment::AfterRestore, self.settings.hooks.timeout, None);
        }
    }

    /// Whether the workload does not run on after the save of this moment.
    fn is_final(&self) -> bool {
        matches!(
            self.state,
            State::Preparing(Next::Stop | Next::Term) | State::Halting(_) | State::Abandoning | State::Stopping
        )
    }

    /// Returns whether something is under way now.
    fn start_hook(&mut self, moment: Moment, limit: Duration, outcome: Option<&Result<Saved, Problem>>) -> bool {
        let Some(hook) = self.settings.hooks.at(moment).cloned() else { return false };
        if self.end_hook(moment) {
            warn!("the {moment} hook of the time before was still running, and was ended");
        }
        match hook {
            Hook::Program(command) => self.run_program(moment, &command, limit, outcome),
            Hook::Signal { signal, pause } => self.send_signal(moment, signal, pause.min(limit)),
        }
    }

    fn run_program(
        &mut self,
        moment: Moment,
        command: &Command,
        limit: Duration,
        outcome: Option<&Result<Saved, Problem>>,
    ) -> bool {
        let variables = self.hook_facts(moment, limit, outcome);
        match process::start(command, &variables) {
            Ok(pid) => {
                self.hook_is_under_way(moment, Some(pid), limit);
                true
            }
            Err(error) => {
                warn!(%error, "the {moment} hook could not be started: {error}{}", in_spite(moment));
                self.observed.hook_ended(moment, "failed");
                false
            }
        }
    }

    fn send_signal(&mut self, moment: Moment, signal: Signal, pause: Duration) -> bool {
        let Some(command) = self.command_pid() else { return false };
        if reaction::handles(command, signal) != Some(true) {
            warn!(command, "the command does not handle {signal}, which might end it: not sent{}", in_spite(moment));
            self.observed.hook_ended(moment, "skipped");
            return false;
        }
        info!(command, "{moment}: {signal} to the command");
        kill::send(command, signal);
        self.observed.hook_ended(moment, "ok");
        if moment == Moment::BeforeSave && !pause.is_zero() {
            self.hook_is_under_way(moment, None, pause);
            return true;
        }
        false
    }

    fn hook_is_under_way(&mut self, moment: Moment, pid: Option<i32>, limit: Duration) {
        let since = Instant::now();
        let until = since + limit;
        self.hooks.insert(moment, Started { pid, since, until });
        self.clock.set(Alarm::Hook(moment), until);
    }

    fn hook_facts(
        &mut self,
        moment: Moment,
        limit: Duration,
        outcome: Option<&Result<Saved, Problem>>,
    ) -> Vec<(&'static str, String)> {
        let command_pid = self.command_pid();
        let reason = match (moment, self.state) {
            (Moment::AfterRestore, _) if self.again => "out of memory",
            (Moment::AfterRestore, _) => "new container",
            (_, State::Preparing(Next::Term) | State::Halting(Cause::Term)) => self.stop_signal.as_str(),
            _ => &self.reason,
        };
        let notice = self.triggers.board.borrow().notice().map(|notice| notice.deadline);
        let killed_at = self.clock.over_in(Instant::now()).map(|left| SystemTime::now() + left);
        let facts = Facts {
            moment,
            job: &self.settings.job,
            runtime_dir: &self.settings.runtime_dir,
            reason,
            last: self.is_final(),
            limit,
            killed_at: killed_at.into_iter().chain(notice).min(),
            command_pid,
            generation: match outcome {
                Some(Ok(saved)) => Some((saved.generation, saved.at)),
                _ => self.facts.saved,
            },
            outcome,
        };
        facts.variables()
    }

    /// A child has ended that may be a hook.
    pub(super) fn hook_reaped(&mut self, pid: i32, status: WaitStatus) -> bool {
        let Some(moment) = self.hooks.iter().find(|(_, hook)| hook.pid == Some(pid)).map(|(moment, _)| *moment) else {
            return false;
        };
        let Some(hook) = self.hooks.remove(&moment) else { return false };
        self.clock.clear(Alarm::Hook(moment));
        // What it has left behind in its group.
        process::kill(pid);
        let took = words::duration(hook.since.elapsed());
        let code = ending::workload_code(status);
        self.observed.hook_ended(moment, if code == 0 { "ok" } else { "failed" });
        if code == 0 {
            info!("the {moment} hook is done, after {took}");
        } else {
            warn!(code, "the {moment} hook failed with code {code} after {took}{}", in_spite(moment));
        }
        self.hook_over(moment);
        true
    }

    /// It has had its time.
    pub(super) fn hook_time_is_up(&mut self, moment: Moment) {
        let pause_only = self.hooks.get(&moment).is_some_and(|hook| hook.pid.is_none());
        if self.end_hook(moment) && !pause_only {
            self.observed.hook_ended(moment, "timeout");
            warn!("the {moment} hook has not ended in time and was killed{}", in_spite(moment));
        }
        self.hook_over(moment);
    }

    /// Kills it, if it runs, and forgets it: one that the kernel cannot kill must not hold anything up.
    fn end_hook(&mut self, moment: Moment) -> bool {
        self.clock.clear(Alarm::Hook(moment));
        let Some(hook) = self.hooks.remove(&moment) else { return false };
        if let Some(pid) = hook.pid {
            process::kill(pid);
        }
        true
    }

    fn hook_over(&mut self, moment: Moment) {
        if moment == Moment::BeforeSave {
            self.feed(Event::Prepared);
        }
    }

    /// No time for hooks any more.
    pub(super) fn end_all_hooks(&mut self) {
        for moment in [Moment::BeforeSave, Moment::AfterSave, Moment::AfterRestore] {
            if self.end_hook(moment) {
                self.observed.hook_ended(moment, "timeout");
                warn!("the {moment} hook was killed: the container ends");
            }
        }
    }

    /// The last hook, which may still run when the workload is gone.
    pub(super) fn last_hook(&self) -> Option<i32> {
        self.hooks.get(&Moment::AfterSave).and_then(|hook| hook.pid)
    }
}

fn in_spite(moment: Moment) -> &'static str {
    match moment {
        Moment::BeforeSave => "; the save is made all the same",
        Moment::AfterSave | Moment::AfterRestore => "",
    }
}
