//! What the triggers have shown and done so far, for people and for metrics.

use super::pressure::growth::Growth;
use super::{Reading, Source};
use crate::supervisor::out_of_memory::OutOfMemory;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

/// For so long what was asked for is not forgotten for a smaller number.
const ASKED_LINGERS: Duration = Duration::from_secs(10);

/// The most gauges that are remembered: nobody has as many paths and conditions.
const MOST_READINGS: usize = 64;

/// An announced end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Who announced it.
    pub source: Source,
    /// In words.
    pub reason: String,
    /// When the workload will be gone.
    pub deadline: SystemTime,
}

/// The triggers at one moment: part of `revenant status --json` and the source of metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The latest value of each gauge.
    pub readings: Vec<Reading>,
    /// How often each source has asked for a save.
    pub fired: BTreeMap<Source, u64>,
    /// How often it was held back, because a save had just been made or was under way.
    pub held_back: BTreeMap<Source, u64>,
    /// When the next scheduled save is due.
    pub next_scheduled: Option<SystemTime>,
    /// The announced end, if there is one.
    pub notice: Option<Notice>,
    /// How often the workload was restored in this container after it was killed for want of memory.
    pub restored_after_oom: u64,
    /// What is known of the last such kill.
    pub last_oom: Option<OutOfMemory>,
    /// The most memory that the container was seen to hold, in bytes, without what the kernel can forget.
    pub most_held: Option<u64>,
}

/// Keeps the snapshot up to date.
#[derive(Debug, Default)]
pub struct Board {
    readings: BTreeMap<(Source, String), Reading>,
    /// All but the readings.
    snapshot: Snapshot,
    /// OOM kills in the container, and when their number was last seen to change.
    kills: Option<(u64, Option<Instant>)>,
    scarce: bool,
    growth: Growth,
    /// What the processes had asked for, in bytes, and when that was seen.
    asked: Option<(Instant, u64)>,
    alarm: Rc<Notify>,
}

impl Board {
    /// A new value of a gauge.
    pub fn read(&mut self, reading: Reading) {
        if reading.source == Source::Memory {
            let scarce = reading.value >= reading.threshold;
            if scarce && !std::mem::replace(&mut self.scarce, scarce) {
                self.alarm.notify_one();
            }
            self.scarce = scarce;
        }
        let key = (reading.source, reading.of.clone());
        if self.readings.len() < MOST_READINGS || self.readings.contains_key(&key) {
            self.readings.insert(key, reading);
        }
    }

    /// What the container holds, and what its processes have asked for where that was looked at; both in bytes.
    pub fn held(&mut self, now: Instant, held: u64, asked: Option<u64>) {
        self.growth.seen(now, held);
        self.snapshot.most_held = self.snapshot.most_held.max(Some(held));
        // A process that was just killed asks for nothing any more, and has not been missed yet.
        let lingers = |asked| {
            self.asked.is_some_and(|(at, before)| before > asked && now.saturating_duration_since(at) < ASKED_LINGERS)
        };
        if let Some(asked) = asked.filter(|asked| !lingers(*asked)) {
            self.asked = Some((now, asked));
        }
    }

    /// How fast the container's memory grew, in bytes a second, and what was asked for. The workload is gone: what comes
    /// next begins anew.
    pub fn take_demand(&mut self) -> (Option<u64>, Option<u64>) {
        (std::mem::take(&mut self.growth).per_second(), self.asked.take().map(|(_, asked)| asked))
    }

    /// A trigger that led to a save.
    pub fn fired(&mut self, source: Source) {
        *self.snapshot.fired.entry(source).or_default() += 1;
    }

    /// A trigger that did not.
    pub fn held_back(&mut self, source: Source) {
        *self.snapshot.held_back.entry(source).or_default() += 1;
    }

    /// How many OOM kills the container has seen.
    pub fn killed(&mut self, kills: u64, now: Instant) {
        let since = match self.kills {
            None => None,
            Some((before, since)) => {
                if before == kills {
                    since
                } else {
                    Some(now)
                }
            }
        };
        self.kills = Some((kills, since));
    }

    /// Whether an OOM kill was seen within this time before `now`.
    pub fn killed_within(&self, time: Duration, now: Instant) -> bool {
        self.kills.and_then(|(_, since)| since).is_some_and(|since| now.duration_since(since) <= time)
    }

    /// Rings once when the container's memory gets scarce.
    pub fn alarm(&self) -> Rc<Notify> {
        self.alarm.clone()
    }

    /// What is known besides readings and counts.
    pub fn facts(&mut self) -> &mut Snapshot {
        &mut self.snapshot
    }

    /// The latest value of a gauge.
    pub fn latest(&self, source: Source) -> Option<&Reading> {
        self.readings.iter().find(|((of, _), _)| *of == source).map(|(_, reading)| reading)
    }

    /// The announced end.
    pub fn notice(&self) -> Option<&Notice> {
        self.snapshot.notice.as_ref()
    }

    /// Everything, at this moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { readings: self.readings.values().cloned().collect(), ..self.snapshot.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::Unit;

    #[test]
    fn what_a_killed_process_had_asked_for_is_known_for_a_while() {
        let (mut board, begun) = (Board::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        board.held(after(0), 500, Some(2000));
        board.held(after(1), 510, None);
        board.held(after(2), 300, Some(10));
        assert_eq!(board.take_demand().1, Some(2000));
        assert_eq!(board.take_demand().1, None);
        board.held(after(3), 500, Some(2000));
        board.held(after(14), 300, Some(10));
        assert_eq!(board.take_demand().1, Some(10), "that process is long gone");
    }

    #[test]
    fn keeps_the_latest_of_each_gauge_and_never_grows() {
        let mut board = Board::default();
        let reading = |of: usize, value| Reading {
            source: Source::Disk,
            of: of.to_string(),
            value,
            threshold: 0.1,
            low: true,
            unit: Unit::Ratio,
            at: SystemTime::UNIX_EPOCH,
            noticed: crate::trigger::Noticed::default(),
        };
        for of in 0..1000 {
            board.read(reading(of, 0.5));
        }
        board.read(reading(0, 0.25));
        assert_eq!(board.snapshot().readings.len(), MOST_READINGS);
        assert!((board.latest(Source::Disk).unwrap().value - 0.25).abs() < 1e-9);
        let text = serde_json::to_string(&board.snapshot()).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), board.snapshot());
    }
}
