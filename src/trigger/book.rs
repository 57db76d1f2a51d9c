//! What becomes of each trigger: a save now, or held back.

use super::budget::Budget;
use super::{Source, Trigger, Urgency};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a trigger leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// A save, as soon as the state machine allows it.
    Save,
    /// Not now: too soon after the last save. It comes back at this moment, unless it is over by then.
    Later(Instant),
}

/// The rules, and the triggers that wait.
#[derive(Debug, Default)]
pub struct Book {
    budget: Budget,
    /// At most one for each source.
    waiting: BTreeMap<Source, Trigger>,
}

impl Book {
    /// A trigger has come.
    pub fn rule(&mut self, trigger: &Trigger, now: Instant) -> Ruling {
        if trigger.urgency == Urgency::Pressing && !self.budget.spend(now) {
            self.waiting.insert(trigger.source, trigger.clone());
            return Ruling::Later(self.budget.opens().unwrap_or(now));
        }
        self.waiting.remove(&trigger.source);
        Ruling::Save
    }

    /// A save has ended. One that was durable answers all that waited.
    pub fn saved(&mut self, now: Instant, took: Duration, durable: bool) {
        self.budget.saved(now, took);
        if durable {
            self.waiting.clear();
        }
    }

    /// What the source asked for has passed.
    pub fn calm(&mut self, source: Source) {
        self.waiting.remove(&source);
    }

    /// Takes one that has waited long enough.
    pub fn due(&mut self, now: Instant) -> Option<Trigger> {
        if self.waiting.is_empty() || !self.budget.spend(now) {
            return None;
        }
        // One save answers them all.
        std::mem::take(&mut self.waiting).into_values().max_by_key(|trigger| trigger.urgency)
    }

    /// When to ask [`Self::due`].
    pub fn next(&self) -> Option<Instant> {
        self.budget.opens().filter(|_| !self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn trigger(source: Source, urgency: Urgency) -> Trigger {
        Trigger { source, urgency, reason: "test".to_owned(), deadline: None }
    }

    #[test]
    fn pressure_waits_but_a_notice_does_not() {
        let (mut book, now) = (Book::default(), Instant::now());
        let pressing = trigger(Source::Memory, Urgency::Pressing);
        assert_eq!(book.rule(&pressing, now), Ruling::Save);
        book.saved(now, SECOND, true);
        let Ruling::Later(at) = book.rule(&trigger(Source::Disk, Urgency::Pressing), now + SECOND) else {
            panic!("a second save at once");
        };
        assert_eq!(book.next(), Some(at));
        assert_eq!(book.rule(&trigger(Source::Spot, Urgency::Now), now + SECOND), Ruling::Save);
        assert_eq!(book.due(now + SECOND), None);
        assert_eq!(book.due(at).map(|trigger| trigger.source), Some(Source::Disk));
        assert_eq!(book.next(), None);
    }

    #[test]
    fn a_durable_save_answers_those_who_wait_and_a_failed_one_does_not() {
        for (durable, left) in [(true, None), (false, Some(()))] {
            let (mut book, now) = (Book::default(), Instant::now());
            book.saved(now, SECOND, true);
            book.rule(&trigger(Source::Memory, Urgency::Pressing), now);
            book.saved(now + SECOND, SECOND, durable);
            assert_eq!(book.due(now + SECOND * 3600).map(drop), left);
        }
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.saved(now, SECOND, true);
        book.rule(&trigger(Source::Memory, Urgency::Pressing), now);
        book.calm(Source::Memory);
        assert_eq!(book.due(now + SECOND * 3600), None);
    }
}
