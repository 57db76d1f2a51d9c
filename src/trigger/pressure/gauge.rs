//! One thing that may run out: how it is read, when it fires, and how that is said.

use super::{alarms::Alarms, disk, level, node, stall};
use crate::trigger::hysteresis::{Band, Edge, Hysteresis};
use crate::trigger::{Heard, Noticed, Reading, Source, Trigger, Unit, Urgency};
use crate::workload::cgroup::memory::Memory;
use crate::workload::cgroup::number;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Probe {
    /// The part of the memory limit that is held.
    Memory(Memory),
    /// The part of the last ten seconds that was lost, from this PSI file.
    Stall(PathBuf),
    /// The part of the last ten seconds that the kernel called critical.
    Level(level::Seconds),
    /// The part of `pids.max` in this folder.
    Pids(PathBuf),
    /// Bytes of the node's memory.
    Node(node::Memory),
    /// The part of bytes that is left on the file system of this folder.
    Disk(PathBuf),
    /// The part of inodes that is left there.
    Inodes(PathBuf),
}

impl Probe {
    #[allow(clippy::cast_precision_loss)] // Gauges, not sums.
    fn read(&mut self, alarms: &Alarms) -> Option<f64> {
        match self {
            Self::Level(seconds) => Some(seconds.told(Instant::now(), alarms.take_critical()?)),
            Self::Memory(memory) => memory.look()?.ratio(),
            Self::Stall(file) => stall::full_of_ten_seconds(&std::fs::read_to_string(file).ok()?),
            Self::Pids(folder) => {
                let (now, most) = (number(&folder.join("pids.current"))?, number(&folder.join("pids.max"))?);
                (most > 0).then(|| now as f64 / most as f64)
            }
            Self::Node(memory) => memory.available().map(|bytes| bytes as f64),
            Self::Disk(folder) => disk::Left::of(folder)?.bytes,
            Self::Inodes(folder) => disk::Left::of(folder)?.inodes,
        }
    }

    fn noticed(&self, alarms: &Alarms) -> Noticed {
        match self {
            Self::Memory(_) => alarms.of_memory(),
            Self::Stall(file) if file.as_path() == Path::new(stall::NODE) => alarms.of_node_stalls(),
            Self::Stall(_) => alarms.of_stalls(),
            Self::Level(_) => Noticed::Told,
            _ => Noticed::Looking,
        }
    }

    /// What is so from the start may always be so: a full disk, a busy node. Only what gets worse is a reason.
    fn may_begin_beyond(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }
}

/// See the module.
pub(super) struct Gauge {
    source: Source,
    of: String,
    unit: Unit,
    band: Band,
    probe: Probe,
    hysteresis: Hysteresis,
    read_before: bool,
    was_calm: bool,
    words: fn(f64, &str) -> String,
}

impl Gauge {
    pub(super) fn new(
        source: Source,
        of: &str,
        unit: Unit,
        band: Band,
        probe: Probe,
        words: fn(f64, &str) -> String,
    ) -> Self {
        let hysteresis = Hysteresis::new(band);
        Self { source, of: of.to_owned(), unit, band, probe, hysteresis, read_before: false, was_calm: true, words }
    }

    /// Reads it. Also says what follows, if something does.
    pub(super) fn look(&mut self, alarms: &Alarms) -> Option<(Reading, Option<Heard>)> {
        let value = self.probe.read(alarms)?;
        let first = !std::mem::replace(&mut self.read_before, true);
        let edge = self.hysteresis.feed(value);
        let calm = edge == Edge::Calm;
        let calm_again = !std::mem::replace(&mut self.was_calm, calm) && calm;
        let said = match edge {
            Edge::Fired if first && self.probe.may_begin_beyond() => {
                Some(Heard::Note { message: format!("{}, since before the start", (self.words)(value, &self.of)) })
            }
            Edge::Fired => Some(Heard::Trigger(Trigger {
                source: self.source,
                urgency: Urgency::Pressing,
                reason: (self.words)(value, &self.of),
                deadline: None,
            })),
            _ if calm_again => Some(Heard::Withdrawn { source: self.source }),
            _ => None,
        };
        let reading = Reading {
            source: self.source,
            of: self.of.clone(),
            value,
            threshold: self.band.fire,
            low: self.band.fire < self.band.rearm,
            unit: self.unit,
            at: SystemTime::now(),
            noticed: self.probe.noticed(alarms),
        };
        Some((reading, said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn says_once_that_it_fires_and_once_that_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let set = |now: u64| {
            fs::write(folder.path().join("pids.current"), now.to_string()).unwrap();
            fs::write(folder.path().join("pids.max"), "100").unwrap();
        };
        let band = Band { fire: 0.85, rearm: 0.75 };
        let probe = Probe::Pids(folder.path().to_owned());
        let mut gauge = Gauge::new(Source::Pids, "", Unit::Ratio, band, probe, |value, _| format!("{value:.2}"));
        let mut said = Vec::new();
        for now in [10, 86, 99, 80, 70, 60, 90] {
            set(now);
            said.push(match gauge.look(&Alarms::default()).unwrap().1 {
                Some(Heard::Trigger(trigger)) => trigger.reason,
                Some(Heard::Withdrawn { .. }) => "over".to_owned(),
                _ => String::new(),
            });
        }
        assert_eq!(said, ["", "0.86", "", "", "over", "", "0.90"]);
    }

    #[test]
    fn what_was_so_before_the_start_is_no_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.pressure");
        fs::write(
            &file,
            "some avg10=99.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=50.00 avg60=0 avg300=0 total=0\n",
        )
        .unwrap();
        let band = Band { fire: 0.2, rearm: 0.1 };
        let mut gauge = Gauge::new(Source::NodeStall, "", Unit::Ratio, band, Probe::Stall(file), |_, _| String::new());
        let (reading, said) = gauge.look(&Alarms::default()).unwrap();
        assert!((reading.value - 0.5).abs() < 1e-9);
        assert!(matches!(said, Some(Heard::Note { .. })), "{said:?}");
        assert_eq!(gauge.look(&Alarms::default()).unwrap().1, None);
    }
}
