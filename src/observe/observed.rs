//! What PID 1's loop tells of as it happens: the times of a save's parts, what is under way, what went wrong.

use super::identity;
use super::metrics::Metrics;
use super::pace::Pace;
use crate::checkpoint::protocol::{Observation, Outcome, Progress, Saved};
use crate::explain::Problem;
use crate::supervisor::hook::Moment;
use crate::trigger::Source;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The run as it was seen so far.
#[derive(Debug)]
pub struct Observed {
    metrics: Metrics,
    pace: Pace,
    /// What is under way, as the engine said last.
    progress: Option<Progress>,
    /// What the next save is made for.
    because: Option<Source>,
    /// Since when the container begins, or goes back to its last checkpoint.
    begun: Instant,
    /// The save under way: since when, why, and when the workload was frozen.
    save: Option<Saving>,
    /// Why the last save failed; none if it did not.
    unsaved: Option<Unsaved>,
    lost_work: Option<Duration>,
}

#[derive(Debug)]
struct Saving {
    since: Instant,
    source: Option<Source>,
    frozen: Option<Instant>,
}

/// What could not be saved, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Unsaved {
    /// When the save failed.
    pub at: SystemTime,
    /// What, why, next.
    pub problem: Problem,
}

impl Observed {
    /// Of a run that begins now.
    pub fn new(metrics: Metrics) -> Self {
        let pace = Pace::new(Instant::now());
        Self {
            metrics,
            pace,
            progress: None,
            because: None,
            begun: Instant::now(),
            save: None,
            unsaved: None,
            lost_work: None,
        }
    }

    /// The engine's report; a line for the log when one is due.
    pub fn progress(&mut self, progress: &Progress) -> Option<String> {
        self.progress = Some(progress.clone());
        self.pace.line(progress, Instant::now())
    }

    /// The next save is made for this.
    pub fn because(&mut self, source: Source) {
        self.because = Some(source);
    }

    /// A save begins.
    pub fn save_begins(&mut self) {
        self.pace = Pace::new(Instant::now());
        self.save = Some(Saving { since: Instant::now(), source: self.because, frozen: None });
    }

    /// CRIU has stopped the workload.
    pub fn frozen(&mut self) {
        if let Some(save) = &mut self.save {
            save.frozen.get_or_insert_with(Instant::now);
        }
    }

    /// The save is durable.
    pub fn saved(&mut self, saved: &Saved) {
        self.progress = None;
        self.unsaved = None;
        identity::at_generation(saved.generation);
        let save = self.save.take();
        let prepare = save.as_ref().and_then(|save| Some(save.frozen? - save.since)).unwrap_or_default();
        self.metrics.saved(saved, prepare, save.and_then(|save| save.source));
    }

    /// The save has failed.
    pub fn save_failed(&mut self, problem: &Problem) {
        self.progress = None;
        self.metrics.save_failed(self.save.take().and_then(|save| save.source));
        self.unsaved = Some(Unsaved { at: SystemTime::now(), problem: problem.clone() });
    }

    /// The workload is gone, and is restored in this same container.
    pub fn begins_again(&mut self) {
        self.begun = Instant::now();
    }

    /// What the beginning came to.
    pub fn began(&mut self, outcome: &Outcome) {
        let name = match outcome {
            // Not the end of it.
            Outcome::InTheWay { .. } => return,
            Outcome::AlreadyComplete { .. } => "complete",
            Outcome::StartFresh => "fresh",
            Outcome::Resume { .. } => "resumed",
            Outcome::Restored { generation, took_ms, .. } => {
                identity::at_generation(*generation);
                let bytes = self.progress.as_ref().filter(|progress| progress.phase == "restore");
                let bytes = bytes.map_or(0, |progress| progress.done_bytes);
                self.metrics.restored(Duration::from_millis(*took_ms), self.begun.elapsed(), bytes);
                "restored"
            }
        };
        self.progress = None;
        self.metrics.began(name);
    }

    /// The last of the memory has arrived, or nobody waits for it any more.
    pub fn filled(&mut self) {
        self.progress = None;
    }

    /// Neither restored nor started.
    pub fn begin_failed(&mut self) {
        self.progress = None;
        self.metrics.began("failed");
    }

    /// The engine went on in spite of something.
    pub fn warned(&mut self) {
        self.metrics.warned();
    }

    /// A hook has ended, or was left out.
    pub fn hook_ended(&self, moment: Moment, result: &'static str) {
        self.metrics.hook_ended(moment, result);
    }

    /// What an engine noticed by the way. A line for the log if an operator should know.
    pub fn noticed(&mut self, observation: &Observation) {
        match observation {
            Observation::Store { errors, retries } => self.metrics.store_trouble(*errors, *retries),
            Observation::LostWork { ms } => {
                let lost = Duration::from_millis(*ms);
                self.lost_work = Some(lost);
                self.metrics.lost_work(lost);
            }
        }
    }

    /// What is under way.
    pub fn under_way(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// Why the last save failed; none if it did not.
    pub fn unsaved(&self) -> Option<&Unsaved> {
        self.unsaved.as_ref()
    }

    /// What the end of the container before has cost.
    pub fn work_lost(&self) -> Option<Duration> {
        self.lost_work
    }
}
