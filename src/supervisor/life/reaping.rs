//! Children that end: the engine, the workload, orphans; and trees that have to.

use super::Life;
use super::requests::ENGINE_PATIENCE;
use crate::supervisor::clock::Alarm;
use crate::supervisor::ending;
use crate::supervisor::state::{Event, State, Verdict};
use crate::workload::{kill, trace};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// How often a tree that does not die at once is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Life {
    /// Reaps everything that has ended.
    pub(super) fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    warn!(%error, "cannot wait for children: {error}");
                    break;
                }
                Ok(status) => self.on_reaped(status),
            }
        }
        if matches!(self.state, State::Killing | State::Clearing) || self.settling.is_some() {
            self.look_at_tree();
        }
    }

    pub(super) fn on_reaped(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid().map(nix::unistd::Pid::as_raw) else { return };
        if let Some(engine) = self.engine.as_mut().filter(|engine| engine.pid == pid) {
            // Its last lines may still be on their way; the end of its stdout follows.
            engine.ended = Some(status);
            if matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)) {
                // Perhaps for want of memory, but not the workload.
                self.count_kill_of_engine();
            }
            self.clock.set(Alarm::EnginePatience, Instant::now() + ENGINE_PATIENCE);
        } else if self.lingering.as_ref().is_some_and(|engine| engine.pid == pid) {
            self.lingering = None;
            if self.state == State::Finishing {
                self.finish();
            }
        } else if self.filler_reaped(pid, status) {
            // Said there.
        } else if self.workload.as_ref().is_some_and(|workload| workload.root == pid) {
            self.workload_ended(status);
        } else if self.hook_reaped(pid, status) {
            // Said there.
        } else if self.state == State::Beginning {
            self.ended_early.insert(pid, status);
        } else {
            debug!(pid, ?status, "reaped");
        }
    }

    pub(super) fn workload_ended(&mut self, status: WaitStatus) {
        let Some(workload) = self.workload.take() else { return };
        self.facts.workload = Some(status);
        // A CRIU that is killed while it puts its code into a process can leave a trap behind there
        // (docs/criu-failures.md): not the workload's own fault, and not its end.
        if matches!(status, WaitStatus::Signaled(_, Signal::SIGTRAP, _)) && self.is_held_by_criu() {
            self.settling = None;
            return self.feed(Event::SaveFailed { intact: false, time_for_another: false });
        }
        let failed = ending::workload_code(status) != 0;
        // One that was killed because its memory did not come has not crashed; whether the generation is to blame is known.
        let by_us = self.verdict == Some(Verdict::FillFailed);
        if failed && !by_us && workload.since.elapsed() < self.settings.crash_window {
            self.facts.crashed_after_restore_of = workload.restored_from;
        }
        let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
        if killed && matches!(self.state, State::Halting(_) | State::Abandoning) && self.engine.is_some() {
            // CRIU kills what it has saved, and its end can be seen before the word that it is durable.
            self.ended_in_save = true;
            return;
        }
        let event = self.end_or_restore(status);
        self.feed(event);
    }

    /// Killing: is it gone? After a failed save: has CRIU let go of it?
    pub(super) fn look_at_tree(&mut self) {
        let again = Instant::now() + LOOK_AGAIN;
        if matches!(self.state, State::Killing | State::Clearing) {
            let engines = self.engine.iter().chain(&self.lingering).map(|engine| engine.pid);
            // The hook after the last save runs on; before a restore in this container, none may hold a PID.
            let hook = self.last_hook().filter(|_| self.state == State::Killing);
            let spared: Vec<i32> = engines.chain(self.fillers()).chain(self.listener()).chain(hook).collect();
            match kill::kill_below(own_pid(), &spared) {
                0 => {
                    self.clock.clear(Alarm::LookAtTree);
                    self.end_filling();
                    self.feed(Event::TreeGone);
                }
                _ => self.clock.set(Alarm::LookAtTree, again),
            }
        } else if let (Some(patience), Some(workload)) = (self.settling, &self.workload) {
            let tracers = trace::tracers_from_outside(workload.root);
            if tracers.is_empty() {
                self.settling = None;
                let time_for_another = self.time_for_another();
                self.feed(Event::SaveFailed { intact: true, time_for_another });
            } else {
                if Instant::now() > patience {
                    for tracer in tracers {
                        kill::send(tracer, Signal::SIGKILL);
                    }
                }
                self.clock.set(Alarm::LookAtTree, again);
            }
        }
    }

    fn is_held_by_criu(&self) -> bool {
        self.settling.is_some() || self.frozen
    }
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}
