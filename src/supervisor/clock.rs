//! The few moments that PID 1 waits for. Nothing ticks: without a moment to wait for it sleeps.

use super::hook::Moment;
use std::time::Duration;
use tokio::time::Instant;

/// Leaves the last moment of the grace period to record the ending.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What a moment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// See [`super::state::Event::SaveTimeUp`].
    SaveTimeUp,
    /// See [`super::state::Event::GraceOver`].
    GraceOver,
    /// An engine that was told to give up has had its time.
    EnginePatience,
    /// Look again whether the tree is gone.
    LookAtTree,
    /// The next scheduled save.
    Schedule,
    /// A trigger that was held back may save now.
    HeldBack,
    /// See [`super::state::Event::LastCall`].
    LastCall,
    /// The first look at what the workload holds.
    Look,
    /// This hook has had its time.
    Hook(Moment),
}

/// Moments to come.
#[derive(Debug, Default)]
pub struct Clock {
    alarms: Vec<(Instant, Alarm)>,
    term: Option<(Instant, Duration)>,
}

impl Clock {
    /// Sets an alarm; an earlier setting of the same is forgotten.
    pub fn set(&mut self, alarm: Alarm, at: Instant) {
        self.clear(alarm);
        self.alarms.push((at, alarm));
    }

    /// Sets an alarm after `patience`, or a third of what is left of the grace period, if that is less.
    pub fn set_soon(&mut self, alarm: Alarm, now: Instant, patience: Duration) {
        let over = self.alarms.iter().find(|(_, alarm)| *alarm == Alarm::GraceOver).map(|(at, _)| *at);
        let left = over.map_or(patience, |at| at.saturating_duration_since(now) / 3);
        self.set(alarm, now + patience.min(left));
    }

    /// Forgets an alarm.
    pub fn clear(&mut self, alarm: Alarm) {
        self.alarms.retain(|(_, other)| *other != alarm);
    }

    /// The first SIGTERM has come; later calls change nothing.
    pub fn start_grace(&mut self, now: Instant, grace: Duration) {
        if self.term.is_none() {
            self.term = Some((now, grace));
            self.set(Alarm::SaveTimeUp, now + grace.saturating_sub(reserve(grace)));
            self.set(Alarm::GraceOver, now + grace.saturating_sub(LAST_MOMENT.min(grace / 4)));
        }
    }

    /// How long a save may still take; none when nothing limits it.
    pub fn left_to_save(&self, now: Instant) -> Option<Duration> {
        let (term, grace) = self.term?;
        Some((term + grace.saturating_sub(reserve(grace))).saturating_duration_since(now))
    }

    /// How long until the grace period is over; none when it has not begun.
    pub fn over_in(&self, now: Instant) -> Option<Duration> {
        let (term, grace) = self.term?;
        Some((term + grace).saturating_duration_since(now))
    }

    /// The next moment, and what it is for.
    pub fn next(&self) -> Option<(Instant, Alarm)> {
        self.alarms.iter().min().copied()
    }

    /// Takes the first alarm that is due.
    pub fn take_due(&mut self, now: Instant) -> Option<Alarm> {
        let (at, alarm) = self.next()?;
        (at <= now).then(|| {
            self.clear(alarm);
            alarm
        })
    }
}

/// What a save leaves of the grace period for the workload's own SIGTERM.
fn reserve(grace: Duration) -> Duration {
    (grace / 10).clamp(Duration::from_secs(1), Duration::from_secs(5)).min(grace / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_in_order_and_only_once() {
        let mut clock = Clock::default();
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        clock.start_grace(now, Duration::from_secs(30));
        clock.start_grace(after(9000), Duration::from_secs(30));
        clock.set(Alarm::Schedule, after(60_000));
        clock.set(Alarm::Schedule, after(1000));
        assert_eq!(clock.take_due(after(999)), None);
        assert_eq!(clock.take_due(after(1000)), Some(Alarm::Schedule));
        assert_eq!(clock.next(), Some((after(27_000), Alarm::SaveTimeUp)));
        assert_eq!(clock.left_to_save(after(7000)), Some(Duration::from_secs(20)));
        assert_eq!(clock.take_due(after(40_000)), Some(Alarm::SaveTimeUp));
        clock.set_soon(Alarm::EnginePatience, after(26_500), Duration::from_secs(2));
        assert_eq!(clock.take_due(after(27_499)), None);
        assert_eq!(clock.take_due(after(27_500)), Some(Alarm::EnginePatience));
        assert_eq!(clock.take_due(after(29_499)), None);
        assert_eq!(clock.take_due(after(29_500)), Some(Alarm::GraceOver));
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn short_grace_periods_are_shared_too() {
        assert_eq!(reserve(Duration::from_secs(1)), Duration::from_millis(500));
        assert_eq!(reserve(Duration::from_secs(30)), Duration::from_secs(3));
        assert_eq!(reserve(Duration::from_secs(3600)), Duration::from_secs(5));
    }
}
