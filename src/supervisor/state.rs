//! The life of a workload as a pure state machine: state × event → next state and actions.
//!
//! No clock, no process, no I/O: `life` feeds events in and carries actions out. Every cell of the
//! table is written down in `docs/state-machine.md`, which a test compares with this code.

use crate::checkpoint::protocol::AfterSave;

/// Where the workload's life stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The engine takes the claim, and restores if there is something to restore.
    Beginning,
    /// The workload runs, no save is under way.
    Running,
    /// A save is about to begin: the hook before it runs, and the workload too.
    Preparing(Next),
    /// A save is under way after which the workload runs on.
    Saving(Next),
    /// A save is under way during and after which the workload stays stopped.
    Halting(Cause),
    /// SIGTERM has come, and the save was told to give up.
    Abandoning,
    /// The workload has got its SIGTERM and may use the rest of the grace period.
    Stopping,
    /// The workload was killed for want of memory; what is left of it gets SIGKILL, then it is restored here.
    Clearing,
    /// Every process of the tree has got SIGKILL.
    Killing,
    /// The engine records the ending and releases the claim.
    Finishing,
    /// Over.
    Ended,
}

/// What follows: when the save is prepared, which save it will be; after a run-on save, whether there is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// The workload runs on.
    RunOn,
    /// Somebody asked to stop, or an announced end is near: one more save, with the workload stopped.
    Stop,
    /// SIGTERM came: one more save, with the workload stopped, if there is time.
    Term,
}

/// Why a save stops the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Somebody asked (`revenant checkpoint --stop`), or an announced end is near.
    Request,
    /// SIGTERM: the container is about to be killed.
    Term,
}

/// What happens to a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// SIGTERM (before the workload runs, SIGINT and SIGQUIT too).
    Term,
    /// Somebody asks for a save.
    Request {
        /// And for the end of the workload after it.
        stop: bool,
    },
    /// A trigger wants a save after which the workload runs on: schedule, pressure, a notice, a file.
    Trigger,
    /// What was announced is so near that the last save must be made now.
    LastCall,
    /// The workload was killed for want of memory, and there is a checkpoint to go back to.
    OutOfMemory,
    /// Nothing was restored: the command is to be started.
    BeganFresh,
    /// The workload runs again.
    BeganRestored,
    /// The job was complete already.
    BeganComplete,
    /// Neither started nor restored.
    BeginFailed,
    /// The command could not be started.
    SpawnFailed,
    /// The hook before a save has ended or has had its time, or there is none.
    Prepared,
    /// A save is complete and durable.
    Durable {
        /// Whether there is time for another one before the deadline.
        time_for_another: bool,
    },
    /// A save failed, or its engine died.
    SaveFailed {
        /// Whether all processes of the tree can be continued.
        intact: bool,
        /// Whether there is time for another one before the deadline.
        time_for_another: bool,
    },
    /// Memory of the workload has not arrived, and never will.
    FillFailed,
    /// The command has ended, and the reaper with it.
    WorkloadEnded,
    /// No process of the tree is left.
    TreeGone,
    /// The ending is recorded, or that has failed.
    Finished,
    /// What is left of the grace period is needed for the workload's own SIGTERM.
    SaveTimeUp,
    /// The grace period is almost over.
    GraceOver,
    /// Another container has taken the job over.
    Fenced,
}

/// What the supervisor does next, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the command under the reaper.
    Spawn,
    /// Supervise the tree that the engine restored.
    Adopt,
    /// Start the engine to restore the newest checkpoint in this same container.
    BeginAgain,
    /// Run the hook before a save.
    Prepare,
    /// Leave that hook no more time than the grace period does.
    Hurry,
    /// The save that is being prepared is not made: end its hook.
    CancelSave,
    /// Start the engine for a save.
    Save(AfterSave),
    /// Tell the engine to give up; at the second time, kill it.
    Abandon,
    /// Kill the engine and forget it.
    KillEngine,
    /// The one who asks waits for the save under way.
    Join,
    /// The one who asks is told that it cannot be done now.
    Refuse,
    /// Those who wait for the save under way are told how it went.
    Tell,
    /// Continue the processes that the save has stopped.
    Continue,
    /// Send SIGTERM to the command.
    Terminate,
    /// Send SIGKILL to every process of the tree, until none is left.
    KillTree,
    /// Start the clock of the grace period, unless it runs.
    StartClock,
    /// Settle with which code and words the container ends.
    Decide(Verdict),
    /// Start the engine to record the ending.
    Finish,
    /// Leave.
    Exit,
}

/// How the container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// As the workload did.
    AsWorkload,
    /// Saved and stopped.
    Saved,
    /// Stopped without a new save.
    Unsaved,
    /// A save left processes behind that must not run on.
    Damaged,
    /// Memory that the workload needs could not be brought.
    FillFailed,
    /// Another container has the job.
    Fenced,
    /// Told to stop before the workload ran.
    StoppedBeforeStart,
    /// The job was complete before.
    AlreadyComplete,
    /// With the problem of the failed beginning.
    BeginFailed,
    /// With the problem of the failed start.
    SpawnFailed,
}

/// The next state and what to do on the way.
pub type Step = (State, Vec<Action>);

impl State {
    /// Whether a workload exists that signals can be forwarded to.
    pub fn has_workload(self) -> bool {
        matches!(
            self,
            Self::Running | Self::Preparing(_) | Self::Saving(_) | Self::Halting(_) | Self::Abandoning | Self::Stopping
        )
    }

    /// What this event does in this state. An event that means nothing here changes nothing.
    #[allow(clippy::match_same_arms)] // A table: each line stands for itself.
    pub fn on(self, event: Event) -> Step {
        use Action::{Abandon, Exit, Finish, KillEngine, KillTree, Refuse, StartClock, Terminate};
        match (self, event) {
            // Endings that are the same wherever a workload lives.
            (Self::Beginning, Event::Fenced) => die(Verdict::Fenced, &[KillEngine]),
            (state, Event::Fenced) if state.has_workload() => die(Verdict::Fenced, state.engine_to_kill()),
            (state, Event::FillFailed) if state.has_workload() => die(Verdict::FillFailed, state.engine_to_kill()),
            (Self::Stopping, Event::WorkloadEnded | Event::GraceOver) => (Self::Killing, vec![KillTree]),
            (state, Event::WorkloadEnded) if state.has_workload() => die(Verdict::AsWorkload, state.engine_to_kill()),
            (Self::Killing | Self::Finishing, Event::Term) => (self, vec![StartClock]),
            (Self::Beginning | Self::Stopping | Self::Killing | Self::Finishing, Event::Request { .. }) => {
                (self, vec![Refuse])
            }
            (Self::Stopping, Event::Term) => (self, vec![Terminate]),
            // Told to end, it ends.
            (Self::Stopping, Event::OutOfMemory) => (Self::Killing, vec![KillTree]),
            (
                Self::Preparing(Next::Term) | Self::Saving(Next::Term) | Self::Halting(Cause::Term) | Self::Abandoning,
                Event::OutOfMemory,
            ) => die(Verdict::AsWorkload, self.engine_to_kill()),
            (state, Event::OutOfMemory) if state.has_workload() => {
                (Self::Clearing, [state.engine_to_kill(), &[KillTree]].concat())
            }
            (Self::Clearing, event) => clear(event),
            (Self::Killing, Event::TreeGone) => (Self::Finishing, vec![Finish]),
            (Self::Finishing, Event::Finished) => (Self::Ended, vec![Exit]),
            (Self::Killing | Self::Finishing, Event::GraceOver) => (Self::Ended, vec![KillEngine, Exit]),
            (Self::Beginning, event) => begin(event),
            (Self::Running, event) => run(event),
            (Self::Preparing(next), event) => prepare(next, event),
            (Self::Saving(next), event) => save(next, event),
            (Self::Halting(cause), event) => halt(cause, event),
            (Self::Abandoning, Event::Term) => (self, vec![Abandon]),
            (Self::Abandoning, event) => abandon(event),
            _ => (self, vec![]),
        }
    }

    fn engine_to_kill(self) -> &'static [Action] {
        match self {
            Self::Preparing(_) => &[Action::CancelSave, Action::Tell],
            Self::Saving(_) | Self::Halting(_) | Self::Abandoning => &[Action::KillEngine, Action::Tell],
            _ => &[],
        }
    }
}

fn die(verdict: Verdict, first: &[Action]) -> Step {
    (State::Killing, [first, &[Action::Decide(verdict), Action::KillTree]].concat())
}

fn begin(event: Event) -> Step {
    match event {
        Event::Term => die(Verdict::StoppedBeforeStart, &[Action::StartClock, Action::KillEngine]),
        Event::BeganFresh => (State::Running, vec![Action::Spawn]),
        Event::BeganRestored => (State::Running, vec![Action::Adopt]),
        Event::BeganComplete => die(Verdict::AlreadyComplete, &[]),
        Event::BeginFailed => die(Verdict::BeginFailed, &[]),
        _ => (State::Beginning, vec![]),
    }
}

fn clear(event: Event) -> Step {
    match event {
        Event::TreeGone => (State::Beginning, vec![Action::BeginAgain]),
        Event::Term => die(Verdict::Unsaved, &[Action::StartClock]),
        Event::Request { .. } => (State::Clearing, vec![Action::Refuse]),
        Event::Fenced => die(Verdict::Fenced, &[]),
        _ => (State::Clearing, vec![]),
    }
}

fn run(event: Event) -> Step {
    use Action::{Join, Prepare, StartClock};
    match event {
        Event::Term => (State::Preparing(Next::Term), vec![StartClock, Prepare]),
        Event::Request { stop: true } => (State::Preparing(Next::Stop), vec![Prepare, Join]),
        Event::Request { stop: false } => (State::Preparing(Next::RunOn), vec![Prepare, Join]),
        Event::Trigger => (State::Preparing(Next::RunOn), vec![Prepare]),
        Event::LastCall => (State::Preparing(Next::Stop), vec![Prepare]),
        Event::SpawnFailed => die(Verdict::SpawnFailed, &[]),
        _ => (State::Running, vec![]),
    }
}

fn prepare(next: Next, event: Event) -> Step {
    use Action::{CancelSave, Decide, Hurry, Join, Save, StartClock, Tell, Terminate};
    match (next, event) {
        (Next::RunOn, Event::Prepared) => (State::Saving(Next::RunOn), vec![Save(AfterSave::RunOn)]),
        (Next::Stop, Event::Prepared) => (State::Halting(Cause::Request), vec![Save(AfterSave::Hold)]),
        (Next::Term, Event::Prepared) => (State::Halting(Cause::Term), vec![Save(AfterSave::Hold)]),
        (Next::Term, Event::Term | Event::SaveTimeUp) => {
            (State::Stopping, vec![CancelSave, Tell, Decide(Verdict::Unsaved), Terminate])
        }
        (_, Event::GraceOver) => die(Verdict::Unsaved, &[CancelSave, Tell]),
        // Nothing is saved yet: one save is enough.
        (_, Event::Term) => (State::Preparing(Next::Term), vec![StartClock, Hurry]),
        (Next::RunOn, Event::Request { stop: true }) => (State::Preparing(Next::Stop), vec![Join]),
        (Next::RunOn, Event::LastCall) => (State::Preparing(Next::Stop), vec![Hurry]),
        (_, Event::Request { .. }) => (State::Preparing(next), vec![Join]),
        _ => (State::Preparing(next), vec![]),
    }
}

fn save(next: Next, event: Event) -> Step {
    use Action::{Abandon, Continue, Join, Prepare, StartClock, Tell};
    match (next, event) {
        (Next::Term, Event::Term | Event::SaveTimeUp) => (State::Abandoning, vec![Abandon]),
        (_, Event::Term) => (State::Saving(Next::Term), vec![StartClock]),
        (Next::RunOn, Event::Request { stop: true }) => (State::Saving(Next::Stop), vec![Join]),
        (Next::RunOn, Event::LastCall) => (State::Saving(Next::Stop), vec![]),
        (_, Event::Request { .. }) => (State::Saving(next), vec![Join]),
        (Next::RunOn, Event::Durable { .. }) => (State::Running, vec![Tell]),
        (Next::Stop, Event::Durable { .. }) => (State::Preparing(Next::Stop), vec![Tell, Prepare]),
        (Next::Term, Event::Durable { time_for_another: true }) => (State::Preparing(Next::Term), vec![Tell, Prepare]),
        (Next::Term, Event::Durable { time_for_another: false }) => die(Verdict::Saved, &[Tell]),
        (_, Event::SaveFailed { intact: false, .. }) => die(Verdict::Damaged, &[Action::KillEngine, Tell]),
        (Next::RunOn | Next::Stop, Event::SaveFailed { .. }) => (State::Running, vec![Tell, Continue]),
        (Next::Term, Event::SaveFailed { time_for_another: true, .. }) => {
            (State::Preparing(Next::Term), vec![Tell, Continue, Prepare])
        }
        (Next::Term, Event::SaveFailed { .. }) => stop_unsaved(),
        _ => (State::Saving(next), vec![]),
    }
}

fn halt(cause: Cause, event: Event) -> Step {
    match (cause, event) {
        (Cause::Request, Event::Term) => (State::Halting(Cause::Term), vec![Action::StartClock]),
        (Cause::Term, Event::Term | Event::SaveTimeUp) => (State::Abandoning, vec![Action::Abandon]),
        (_, Event::Request { .. }) => (State::Halting(cause), vec![Action::Join]),
        (Cause::Request, Event::SaveFailed { intact: true, .. }) => {
            (State::Running, vec![Action::Tell, Action::Continue])
        }
        (_, Event::Durable { .. } | Event::SaveFailed { .. }) => settle(event),
        _ => (State::Halting(cause), vec![]),
    }
}

fn abandon(event: Event) -> Step {
    match event {
        Event::Request { .. } => (State::Abandoning, vec![Action::Join]),
        Event::GraceOver => die(Verdict::Unsaved, &[Action::KillEngine, Action::Tell]),
        Event::Durable { .. } | Event::SaveFailed { .. } => settle(event),
        _ => (State::Abandoning, vec![]),
    }
}

/// The last save before the end is over.
fn settle(event: Event) -> Step {
    match event {
        Event::Durable { .. } => die(Verdict::Saved, &[Action::Tell]),
        Event::SaveFailed { intact: false, .. } => die(Verdict::Damaged, &[Action::KillEngine, Action::Tell]),
        _ => stop_unsaved(),
    }
}

fn stop_unsaved() -> Step {
    let unsaved = Action::Decide(Verdict::Unsaved);
    (State::Stopping, vec![Action::Tell, Action::Continue, unsaved, Action::Terminate])
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
