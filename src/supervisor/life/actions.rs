//! What the state machine wants done.

use super::requests::ENGINE_PATIENCE;
use super::{Life, Workload, facts};
use crate::checkpoint::protocol::{Progress, Stdio as Roles};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::job::Generation;
use crate::supervisor::clock::Alarm;
use crate::supervisor::control::Answer;
use crate::supervisor::state::{Action, Event, State, Verdict};
use crate::supervisor::{ending, termination};
use crate::workload::isolation::Own;
use crate::workload::{hold, kill, pid_cursor, spawn};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// How long the container's log may take for the last output of a workload that has ended by itself.
const LAST_OUTPUT: Duration = Duration::from_secs(60);

/// And one whose grace period is over.
const AT_LEAST_FOR_OUTPUT: Duration = Duration::from_millis(200);

/// How long the last event may take to reach the pod.
const LAST_WORD: Duration = Duration::from_secs(2);

impl Life {
    pub(super) fn feed(&mut self, event: Event) {
        self.events.push_back(event);
        if self.events.len() > 1 {
            // An action of the event before has caused this one: its turn comes after that one's.
            return;
        }
        while let Some(event) = self.events.front().copied() {
            let (next, actions) = self.state.on(event);
            if next != self.state {
                debug!(?event, from = ?self.state, to = ?next, "state");
            }
            self.state = next;
            for action in actions {
                self.act(action);
            }
            self.events.pop_front();
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Spawn => self.spawn(),
            Action::Adopt => self.adopt(),
            Action::Prepare => self.prepare(),
            Action::Hurry => self.hurry_hook(),
            Action::CancelSave => {
                self.cancel_hook();
                self.save_over(Err(Problem::new(
                    Exit::Failure,
                    "the save was not made",
                    "the workload ended before it began, or lost its job to another container, or had no time left for it",
                    "see the container's log",
                )));
            }
            Action::Save(then) => self.save(then),
            Action::Abandon => {
                if let Some(engine) = &mut self.engine {
                    info!("giving the save up");
                    engine.give_up();
                    self.clock.set_soon(Alarm::EnginePatience, Instant::now(), ENGINE_PATIENCE);
                }
            }
            Action::KillEngine => {
                if let Some(engine) = self.lingering.take() {
                    engine.kill();
                }
                // Without one the work is over, and how it went is known.
                if let Some(engine) = self.engine.take() {
                    engine.kill();
                    self.save_over(Err(Problem::new(
                        Exit::Failure,
                        "the save was ended",
                        "the workload ended meanwhile, or lost its job to another container",
                        "see the container's log",
                    )));
                }
            }
            Action::Join => self.waiters.extend(self.asker.take()),
            Action::Refuse => {
                if let Some(waiter) = self.asker.take() {
                    waiter.end(Answer::Failed { problem: facts::not_now(self.state) });
                }
            }
            Action::Tell => self.tell(),
            Action::Continue => {
                if let Some(workload) = &self.workload {
                    hold::continue_stopped(workload.root, &workload.stopped_before);
                }
            }
            Action::Terminate => {
                if let Some(command) = self.command_pid() {
                    info!(command, "passing {} to the command", self.stop_signal);
                    kill::send(command, self.stop_signal);
                }
            }
            Action::KillTree => {
                self.settling = None;
                self.look_at_tree();
            }
            Action::StartClock => self.start_clock(),
            Action::BeginAgain => self.begin_again(),
            Action::Decide(verdict) => self.verdict = Some(verdict),
            Action::Finish => self.finish(),
            Action::Exit => {}
        }
    }

    pub(super) fn spawn(&mut self) {
        let (Some(stdio), Some(command)) = (self.stdio.take(), self.to_start.take()) else { return };
        self.push_pid_cursor();
        let roles = stdio.fresh.roles.clone();
        let account = self.settings.account.as_ref();
        let own = self.settings.own;
        let given = stdio.fresh.given.try_clone();
        let spawned = given.and_then(|given| spawn::spawn(&self.reaper_path, &command, given, account, own));
        match spawned {
            Ok(root) => {
                info!(root, "started {}", command.program.display());
                self.attached = stdio.attach(&roles);
                self.lives(root, None, None, roles);
            }
            Err(error) => {
                self.facts.problem = Some(Problem::new(
                    Exit::Failure,
                    format!("cannot start {}: {error}", command.program.display()),
                    if own == Own::All {
                        "the kernel refused namespaces (a security module such as AppArmor forbids mounts) or a new process"
                    } else {
                        "the kernel refused a new process: the limit on PIDs or memory is reached"
                    },
                    if own == Own::All {
                        "leave --isolate out; or let the container mount (appArmorProfile: Unconfined)"
                    } else {
                        "raise the limits of the container"
                    },
                ));
                self.feed(Event::SpawnFailed);
            }
        }
    }

    pub(super) fn adopt(&mut self) {
        self.push_pid_cursor();
        let Some((root, command, generation, roles)) = self.restored.take() else { return };
        // The checkpoint's reaper lies where it lay then.
        if let Ok(path) = std::fs::read_link(format!("/proc/{root}/exe")) {
            self.reaper_path = path;
        }
        if let Some(stdio) = self.stdio.take() {
            self.attached = stdio.attach(&roles);
        }
        self.lives(root, Some(command), Some(generation), roles);
        // An attempt at a newer generation that failed may have left the end of a process of the same PID.
        if let Some(status) = self.ended_early.remove(&root).filter(|_| !kill::is_there(root)) {
            self.workload_ended(status);
        }
    }

    pub(super) fn lives(&mut self, root: i32, command: Option<i32>, restored_from: Option<Generation>, roles: Roles) {
        debug!(root, took = ?self.born.elapsed(), "the workload runs");
        self.workload = Some(Workload {
            root,
            command,
            since: Instant::now(),
            restored_from,
            roles,
            stopped_before: BTreeSet::new(),
        });
        self.ended_early.retain(|pid, _| *pid == root);
        self.count_kills();
        self.schedule();
        self.look_later();
    }

    #[allow(clippy::unused_self)]
    pub(super) fn push_pid_cursor(&self) {
        if let Err(error) = pid_cursor::push() {
            warn!(
                %error,
                "cannot reserve low process IDs: {error}; a restore may collide with revenant's own processes"
            );
        }
    }

    pub(super) fn tell(&mut self) {
        let answer = match &self.outcome {
            Some(Ok(saved)) => Answer::Durable(saved.clone()),
            Some(Err(problem)) => Answer::Failed { problem: problem.clone() },
            None => return,
        };
        // Those who asked to stop wait for the save that stops, unless there will be none.
        let another = matches!(self.state, State::Preparing(_)) && matches!(answer, Answer::Durable(_));
        for waiter in std::mem::take(&mut self.waiters) {
            if another && waiter.stop {
                self.waiters.push(waiter);
            } else {
                waiter.end(answer.clone());
            }
        }
    }

    pub(super) fn tell_progress(&mut self, progress: &Progress) {
        debug!(?progress, "progress");
        self.judge_progress(progress);
        for waiter in &self.waiters {
            let _ = waiter.answers.try_send(Answer::Progress(progress.clone()));
        }
    }

    pub(super) async fn conclude(mut self) -> u8 {
        for waiter in std::mem::take(&mut self.waiters) {
            waiter.end(Answer::Failed { problem: facts::not_now(State::Finishing) });
        }
        // Without a SIGTERM nobody is about to kill the container.
        let longest = self.clock.left_to_save(Instant::now()).unwrap_or(LAST_OUTPUT);
        self.attached.drain(longest.max(AT_LEAST_FOR_OUTPUT)).await;
        if let Some(outside) = self.triggers.outside.take() {
            outside.close(LAST_WORD).await;
        }
        // Answers on their way to askers.
        tokio::task::yield_now().await;
        let verdict = self.verdict.unwrap_or(Verdict::AsWorkload);
        let code = ending::code(verdict, &self.facts);
        if let Some(path) = &self.settings.termination_log {
            termination::write(path, &termination::message(verdict, &self.facts));
        }
        if let Some(words) = ending::words(verdict, &self.facts) {
            match verdict {
                Verdict::Saved | Verdict::AlreadyComplete | Verdict::StoppedBeforeStart => info!(code, "{words}"),
                Verdict::AsWorkload | Verdict::Unsaved => warn!(code, "{words}"),
                _ => tracing::error!(code, "{words}"),
            }
        }
        code
    }
}
