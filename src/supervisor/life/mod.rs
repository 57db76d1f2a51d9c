//! PID 1's loop: brings events to the state machine and does what it says.

mod actions;
mod facts;
mod filling;
mod hooks;
mod looking;
mod memory;
mod reaping;
mod requests;
mod said;
mod triggers;

use super::Input;
use super::clock::{Alarm, Clock};
use super::control::{Answer, Asked, Question};
use super::ending::Facts;
use super::engine::Engine;
use super::settings::Settings;
use super::signals::Signals;
use super::state::{Event, State, Verdict};
use crate::checkpoint::protocol::{Holder, Saved, Stdio as Roles};
use crate::explain::Problem;
use crate::job::{Epoch, Generation};
use crate::observe::Observed;
use crate::trigger::book::Book;
use crate::trigger::interval::History;
use crate::trigger::outside::Outside;
use crate::trigger::{SharedBoard, Source};
use crate::workload::cgroup::memory::Memory;
use crate::workload::command::Command;
use crate::workload::kill;
use crate::workload::stdio::{Attached, Prepared};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;
use tracing::{debug, warn};

/// How many inputs may wait for the loop; whoever brings more waits himself.
pub const INPUTS: usize = 64;

/// Renews the claim for as long as it runs; ends only when another container has taken it over.
pub type Lease = Box<dyn Fn(Epoch) -> Pin<Box<dyn Future<Output = ()>>>>;

/// The workload while it lives.
#[derive(Debug)]
struct Workload {
    root: i32,
    command: Option<i32>,
    since: Instant,
    restored_from: Option<Generation>,
    roles: Roles,
    /// What was stopped before the save under way.
    stopped_before: BTreeSet<i32>,
}

/// Somebody who waits for a save.
#[derive(Debug)]
struct Waiter {
    stop: bool,
    answers: mpsc::Sender<Answer>,
}

/// What the saves of this container have cost.
#[derive(Debug, Default)]
struct Cost {
    saves: u64,
    failed: u64,
    frozen_ms: u64,
    stored_bytes: u64,
    last: Option<Saved>,
    /// The save that this container continued from.
    earlier: Option<Saved>,
}

/// What the triggers have said, and what follows from it.
#[derive(Debug, Default)]
struct Triggers {
    book: Book,
    board: SharedBoard,
    /// Who listens to cloud and cluster, and puts events on the pod.
    outside: Option<Outside>,
    /// How earlier containers of this job have fared.
    history: History,
    /// When the pod's grace period ends, if the cluster has told.
    killed_at: Option<std::time::SystemTime>,
    /// A first scheduled save was arranged.
    scheduled: bool,
    /// When the save under way was begun.
    saving_since: Option<Instant>,
    /// It was said that the save under way will not be in time.
    hopeless: bool,
    /// The container's memory group.
    memory: Option<Memory>,
    /// OOM kills in it before the workload, or since it is known that they were not the workload's.
    kills_before: u64,
    /// Restores after OOM kills without a durable save between them.
    restores_in_a_row: u32,
}

/// One container's run.
#[allow(clippy::struct_excessive_bools)] // Each is a fact that nothing else implies.
pub struct Life {
    settings: Settings,
    reaper_path: PathBuf,
    lease: Option<Lease>,
    state: State,
    events: VecDeque<Event>,
    clock: Clock,
    born: Instant,
    engine: Option<Engine>,
    /// It has done what it was asked for, and tidies the store up.
    lingering: Option<Engine>,
    /// The workload runs, and memory of it is still to come.
    filling: Option<filling::Filling>,
    /// All memory is there, and until a save is wanted its small pages become huge ones where they were.
    finishing_touch: Option<Engine>,
    engines: u64,
    /// An engine has failed; what it leaves is looked at once nobody traces the tree.
    settling: Option<Instant>,
    holder: Holder,
    /// The restored workload was let loose, and CRIU has not left it yet.
    resuming: bool,
    /// Signals for it, each once.
    held_back: Vec<Signal>,
    epoch: Option<Epoch>,
    beating: Option<tokio::task::JoinHandle<()>>,
    stdio: Option<Prepared>,
    attached: Attached,
    to_start: Option<Command>,
    restored: Option<(i32, i32, Generation, Roles)>,
    workload: Option<Workload>,
    /// The workload was killed during the final save: by it, or else; the engine's last word decides.
    ended_in_save: bool,
    /// Children that ended before they were known to be the workload.
    ended_early: HashMap<i32, WaitStatus>,
    /// The signal that asked for the end; it is passed on to the command.
    stop_signal: Signal,
    reason: String,
    /// The job has run in this container before: it is restored after an OOM kill.
    again: bool,
    /// How often an engine of this container has made room for a checkpoint's IDs.
    stood_aside: u8,
    frozen: bool,
    asker: Option<Waiter>,
    waiters: Vec<Waiter>,
    outcome: Option<Result<Saved, Problem>>,
    cost: Cost,
    triggers: Triggers,
    observed: Observed,
    verdict: Option<Verdict>,
    facts: Facts,
    looking: looking::Looking,
    hooks: hooks::Running,
    /// What saves tell the next ones.
    recalled: Option<OwnedFd>,
    inputs: Sender<Input>,
}

/// Runs the workload's whole life; returns the exit code. Must run inside a `LocalSet`.
pub async fn live(
    settings: Settings,
    reaper_path: PathBuf,
    stdio: Prepared,
    lease: Option<Lease>,
    (board, outside): (SharedBoard, Option<Outside>),
    signals: Signals,
    (inputs, mut arriving): (Sender<Input>, Receiver<Input>),
) -> u8 {
    let mut life = Life {
        reaper_path,
        lease,
        state: State::Beginning,
        events: VecDeque::new(),
        clock: Clock::default(),
        born: Instant::now(),
        engine: None,
        lingering: None,
        filling: None,
        finishing_touch: None,
        engines: 0,
        settling: None,
        holder: this_container(settings.pod_uid.clone()),
        resuming: false,
        held_back: Vec::new(),
        epoch: None,
        beating: None,
        stdio: Some(stdio),
        attached: Attached::default(),
        to_start: None,
        restored: None,
        workload: None,
        ended_in_save: false,
        ended_early: HashMap::new(),
        reason: String::new(),
        again: false,
        stood_aside: 0,
        frozen: false,
        asker: None,
        waiters: Vec::new(),
        outcome: None,
        cost: Cost::default(),
        triggers: Triggers { board, outside, memory: Memory::here(), ..Triggers::default() },
        stop_signal: Signal::SIGTERM,
        observed: Observed::new(settings.metrics.clone()),
        verdict: None,
        facts: Facts::default(),
        looking: looking::Looking::default(),
        hooks: hooks::Running::new(),
        recalled: None,
        inputs,
        settings,
    };
    life.begin();
    while life.state != State::Ended || life.last_hook().is_some() {
        let alarm = life.clock.next();
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Ok(signal) => life.on_signal(signal),
                Err(error) => warn!(%error, "cannot read signals: {error}"),
            },
            Some(input) = arriving.recv() => life.on_input(input),
            () = wait_until(alarm.map(|(at, _)| at)) => life.on_alarm(),
        }
    }
    life.conclude().await
}

fn this_container(pod_uid: Option<String>) -> Holder {
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    Holder { host, pod_uid, instance: format!("{:016x}", rand::random::<u64>()) }
}

async fn wait_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Life {
    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGCHLD => self.reap(),
            // A second one ends what does not come to an end by itself.
            signal if self.resuming && !self.held_back.contains(&signal) => self.held_back.push(signal),
            // Without a store this is a plain init: SIGTERM is the workload's, like any other signal.
            signal
                if (signal == Signal::SIGTERM || self.settings.stop_signals.contains(&signal))
                    && (self.settings.store.is_some() || !self.state.has_workload()) =>
            {
                if self.state == State::Ended {
                    self.end_all_hooks();
                }
                self.stop_signal = signal;
                self.feed(Event::Term);
            }
            Signal::SIGUSR1 if self.settings.store.is_some() => self.request("SIGUSR1", false, None),
            Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP if self.state == State::Beginning => {
                self.feed(Event::Term);
            }
            Signal::SIGWINCH if self.attached.has_terminal() => self.attached.resize(),
            // They are about revenant's own descriptors and terminal.
            Signal::SIGPIPE | Signal::SIGTTIN | Signal::SIGTTOU => {}
            signal => {
                if self.state.has_workload()
                    && let Some(command) = self.command_pid()
                {
                    debug!(%signal, command, "signal forwarded");
                    kill::send(command, signal);
                }
            }
        }
    }

    fn on_input(&mut self, input: Input) {
        // Also of an engine whose last word was heard: it counts to its end.
        if let Input::Engine { event, .. } = &input
            && let crate::checkpoint::protocol::Event::Observed(observation) = &**event
        {
            return self.observed.noticed(observation);
        }
        match input {
            // Also of an engine that was killed meanwhile: the claim must be given back.
            Input::Engine { event, .. }
                if self.epoch.is_none() && matches!(*event, crate::checkpoint::protocol::Event::Claimed { .. }) =>
            {
                self.on_engine(*event);
            }
            Input::Engine { id, event } if self.is_looking(id) => self.on_look(*event),
            Input::EngineClosed { id } if self.is_looking(id) => self.look_over(),
            Input::Engine { id, event } if self.is_filling(id) => self.on_fill(*event),
            Input::EngineClosed { id } if self.is_filling(id) => self.filler_died(),
            Input::Engine { id, event } => {
                if self.engine.as_ref().is_some_and(|engine| engine.id == id) {
                    self.on_engine(*event);
                }
            }
            Input::EngineClosed { id } => {
                if self.engine.as_ref().is_some_and(|engine| engine.id == id) {
                    self.engine_died();
                }
            }
            Input::Asked(asked) => self.on_asked(asked),
            Input::Heard(heard) => self.on_heard(heard),
            Input::Fenced => self.feed(Event::Fenced),
        }
    }

    fn on_alarm(&mut self) {
        while let Some(alarm) = self.clock.take_due(Instant::now()) {
            match alarm {
                Alarm::SaveTimeUp => self.feed(Event::SaveTimeUp),
                Alarm::GraceOver => {
                    self.end_all_hooks();
                    self.feed(Event::GraceOver);
                }
                Alarm::EnginePatience => match &mut self.engine {
                    Some(engine) if engine.ended.is_some() => self.engine_died(),
                    Some(engine) => engine.give_up(),
                    None => {}
                },
                Alarm::LookAtTree => self.look_at_tree(),
                Alarm::Schedule => self.schedule_is_due(),
                Alarm::HeldBack => self.held_back_is_due(),
                Alarm::LastCall => self.last_call(),
                Alarm::Look => self.look(),
                Alarm::Hook(moment) => self.hook_time_is_up(moment),
            }
        }
    }

    fn on_asked(&mut self, Asked { question, answers }: Asked) {
        match question {
            Question::Status => {
                let _ = answers.try_send(Answer::Status(Box::new(self.status())));
            }
            Question::Checkpoint { stop } => self.request("request", stop, Some(Waiter { stop, answers })),
        }
    }

    fn request(&mut self, reason: &str, stop: bool, asker: Option<Waiter>) {
        if self.settings.store.is_none() {
            if let Some(waiter) = asker {
                waiter.end(Answer::Failed { problem: requests::no_store() });
            }
            return;
        }
        reason.clone_into(&mut self.reason);
        self.observed.because(if asker.is_some() { Source::Request } else { Source::Signal });
        self.asker = asker;
        self.feed(Event::Request { stop });
    }
}

impl Waiter {
    /// Gives the last answer, however slow the asker takes what came before.
    fn end(self, answer: Answer) {
        tokio::spawn(async move { self.answers.send(answer).await });
    }
}
