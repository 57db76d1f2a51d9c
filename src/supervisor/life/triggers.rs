//! What the triggers say, brought to the state machine; and the moments that follow from it.

use super::Life;
use crate::kubernetes::watch::annotation::Checkpoint;
use crate::kubernetes::watch::events::Happening;
use crate::supervisor::clock::Alarm;
use crate::supervisor::state::{Event, State};
use crate::supervisor::words;
use crate::trigger::board::Notice;
use crate::trigger::book::Ruling;
use crate::trigger::outside::{Outside, Told};
use crate::trigger::{Heard, Source, Trigger, Urgency, interval};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// A last save begins this much before the announced end, besides twice what it is likely to take.
const SPARE: Duration = Duration::from_secs(5);
/// A last save that failed is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(3);
/// An announced end is not exact: a save must be durable this much before it.
const MARGIN: Duration = Duration::from_secs(1);

impl Life {
    /// The process that listens to cloud and cluster.
    pub(super) fn listener(&self) -> Option<i32> {
        self.triggers.outside.as_ref().and_then(Outside::pid)
    }

    /// Puts an event on the pod, and which checkpoint is now the newest if there is a new one.
    pub(super) fn put_on_pod(&self, happening: Happening, message: String, checkpoint: Option<Checkpoint>) {
        if let Some(outside) = &self.triggers.outside {
            outside.tell(&Told { happening, message, checkpoint });
        }
    }

    pub(super) fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Trigger(trigger) => self.triggered(&trigger),
            Heard::Reading(reading) => self.triggers.board.borrow_mut().read(reading),
            Heard::Withdrawn { source } => self.withdrawn(source),
            Heard::Grace { period } if !self.settings.grace_told => {
                debug!(?period, "the pod's grace period");
                self.settings.grace = period;
            }
            Heard::Grace { .. } => {}
            Heard::KilledAt { at } => self.triggers.killed_at = Some(at),
            Heard::Note { message } => info!("{message}"),
        }
    }

    pub(super) fn triggered(&mut self, trigger: &Trigger) {
        if self.settings.store.is_none() {
            return;
        }
        if let Some(deadline) = trigger.deadline {
            self.announced(trigger, deadline);
        }
        if self.state != State::Running {
            // Before the workload runs there is nothing new to save; during a save it has its save; and
            // after that it is ending.
            debug!(source = %trigger.source, state = ?self.state, "nothing to save for {}", trigger.reason);
            self.triggers.board.borrow_mut().held_back(trigger.source);
            return self.feed(Event::Trigger);
        }
        match self.triggers.book.rule(trigger, Instant::now().into_std()) {
            Ruling::Save => self.save_because(trigger),
            Ruling::Later(at) => {
                self.triggers.board.borrow_mut().held_back(trigger.source);
                let wait = at.saturating_duration_since(Instant::now().into_std());
                info!(
                    source = %trigger.source,
                    "{}; not saving at once: the last save is too recent, the next for this reason is allowed in {}",
                    trigger.reason, words::duration(wait)
                );
                self.arrange_held_back();
            }
        }
    }

    fn save_because(&mut self, trigger: &Trigger) {
        self.triggers.board.borrow_mut().fired(trigger.source);
        trigger.reason.clone_into(&mut self.reason);
        self.observed.because(trigger.source);
        self.feed(Event::Trigger);
    }

    /// The end has a date.
    fn announced(&mut self, trigger: &Trigger, deadline: SystemTime) {
        let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
        let notice = Notice { source: trigger.source, reason: trigger.reason.clone(), deadline };
        let mut board = self.triggers.board.borrow_mut();
        // The nearest end counts.
        if board.notice().is_some_and(|known| known.deadline <= deadline) {
            return;
        }
        warn!(source = %trigger.source, "{}: the end is announced for {} from now", trigger.reason, words::duration(left));
        board.facts().notice = Some(notice);
        drop(board);
        self.arrange_last_call();
    }

    /// When the last save before an announced end must begin.
    pub(super) fn arrange_last_call(&mut self) {
        let Some(left) = self.left_of_notice() else { return };
        let lead = (self.expected_cost() * 2 + SPARE).min(left / 2);
        self.clock.set(Alarm::LastCall, Instant::now() + left.saturating_sub(lead));
    }

    /// What is left until an announced end, less a margin.
    fn left_of_notice(&self) -> Option<Duration> {
        let deadline = self.triggers.board.borrow().notice()?.deadline;
        Some(deadline.duration_since(SystemTime::now()).unwrap_or_default().saturating_sub(MARGIN))
    }

    pub(super) fn last_call(&mut self) {
        let Some(notice) = self.triggers.board.borrow().notice().cloned() else { return };
        match self.state {
            State::Beginning | State::Clearing if !self.left_of_notice().unwrap_or_default().is_zero() => {
                self.clock.set(Alarm::LastCall, Instant::now() + TRY_AGAIN);
            }
            State::Running => {
                notice.reason.clone_into(&mut self.reason);
                self.observed.because(notice.source);
                self.triggers.board.borrow_mut().fired(notice.source);
                self.feed(Event::LastCall);
            }
            _ => self.feed(Event::LastCall),
        }
    }

    fn withdrawn(&mut self, source: Source) {
        self.triggers.book.calm(source);
        let mut board = self.triggers.board.borrow_mut();
        if board.notice().is_some_and(|notice| notice.source == source) {
            info!(%source, "the announced end is called off");
            board.facts().notice = None;
            self.clock.clear(Alarm::LastCall);
        }
    }

    /// How long a save may take: by the grace period, and by what was announced.
    pub(super) fn left_to_save(&self, now: Instant) -> Option<Duration> {
        match (self.clock.left_to_save(now), self.left_of_notice()) {
            (Some(grace), Some(notice)) => Some(grace.min(notice)),
            (grace, notice) => grace.or(notice),
        }
        // An end that has passed was no end.
        .filter(|left| !left.is_zero() || self.clock.left_to_save(now).is_some())
    }

    /// A save is over.
    pub(super) fn account(&mut self, durable: bool) {
        let now = Instant::now();
        let took = self.triggers.saving_since.take().map(|since| now.duration_since(since)).unwrap_or_default();
        self.triggers.book.saved(now.into_std(), took, durable);
        self.arrange_held_back();
        let left = self.left_of_notice().unwrap_or_default();
        if !durable && left > self.expected_cost() + TRY_AGAIN {
            self.clock.set(Alarm::LastCall, now + TRY_AGAIN.max(left.saturating_sub(self.expected_cost() * 2 + SPARE)));
        }
    }

    fn arrange_held_back(&mut self) {
        match self.triggers.book.next() {
            Some(at) => self.clock.set(Alarm::HeldBack, Instant::from_std(at)),
            None => self.clock.clear(Alarm::HeldBack),
        }
    }

    pub(super) fn held_back_is_due(&mut self) {
        if self.state == State::Running
            && let Some(trigger) = self.triggers.book.due(Instant::now().into_std())
        {
            return self.save_because(&trigger);
        }
        if self.state.has_workload() {
            // The save under way ends first, and arranges it anew.
            debug!("a save that was held back goes on waiting");
        }
    }

    /// Arranges the next scheduled save.
    pub(super) fn schedule(&mut self) {
        let Some(every) = self.settings.every.filter(|_| self.settings.store.is_some()) else { return };
        let alive = self.born.elapsed();
        let mtbf = interval::mtbf(self.settings.mtbf, self.triggers.history, alive);
        let cost = self.cost.last.as_ref().map(|saved| Duration::from_millis(saved.total_ms));
        let first = !std::mem::replace(&mut self.triggers.scheduled, true);
        let between = interval::jittered(interval::between(every, cost, mtbf), rand::random(), first);
        debug!(?between, ?mtbf, ?cost, "the next scheduled save");
        self.clock.set(Alarm::Schedule, Instant::now() + between);
        self.triggers.board.borrow_mut().facts().next_scheduled = Some(SystemTime::now() + between);
    }

    pub(super) fn schedule_is_due(&mut self) {
        self.schedule();
        if self.state == State::Running {
            let reason = "schedule".to_owned();
            self.triggered(&Trigger { source: Source::Schedule, urgency: Urgency::Routine, reason, deadline: None });
        }
    }

    /// The grace period runs from the pod's deletion, not from the signal: a preStop hook takes its part.
    pub(super) fn start_clock(&mut self) {
        let left = self.triggers.killed_at.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let grace = left.map_or(self.settings.grace, |left| left.min(self.settings.grace));
        self.clock.start_grace(Instant::now(), grace);
    }
}
