//! The clocks that count from some moment of the past: `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME`.
//!
//! Each time namespace has its own offsets to them (`time_namespaces(7)`); those in
//! `/proc/PID/timens_offsets` are always counted from the machine's own clocks, however deep the
//! namespaces are nested.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::time::Duration;

const NANOS: i128 = 1_000_000_000;

/// What both clocks show to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: Duration,
    /// `CLOCK_BOOTTIME`: the same with the time in which the machine was suspended.
    pub boottime: Duration,
}

/// How far the clocks of a time namespace are ahead of the machine's, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Of `CLOCK_MONOTONIC`.
    pub monotonic: i128,
    /// Of `CLOCK_BOOTTIME`.
    pub boottime: i128,
}

impl Clocks {
    /// What they show to this process.
    pub fn here() -> io::Result<Self> {
        let read = |clock| clock_gettime(clock).map(Duration::from);
        Ok(Self { monotonic: read(ClockId::CLOCK_MONOTONIC)?, boottime: read(ClockId::CLOCK_BOOTTIME)? })
    }

    /// What they show to another process of this machine. On kernels without time namespaces it is the same.
    pub fn of(pid: i32) -> io::Result<Self> {
        let here = Self::here()?;
        match (Offsets::of("self"), Offsets::of(&pid.to_string())) {
            (Ok(own), Ok(its)) => Ok(here.moved(own, its)),
            _ => Ok(here),
        }
    }

    fn moved(self, from: Offsets, to: Offsets) -> Self {
        let moved = |clock: Duration, by: i128| from_nanos(nanos(clock) + by);
        Self {
            monotonic: moved(self.monotonic, to.monotonic - from.monotonic),
            boottime: moved(self.boottime, to.boottime - from.boottime),
        }
    }
}

impl Offsets {
    /// Those of a new namespace whose clocks go on from `then`, made by this process now.
    pub fn that_continue(then: Clocks) -> io::Result<Self> {
        Ok(Self::between(then, Clocks::here()?, Self::of("self")?))
    }

    fn between(then: Clocks, here: Clocks, own: Self) -> Self {
        Self {
            monotonic: nanos(then.monotonic) - nanos(here.monotonic) + own.monotonic,
            boottime: nanos(then.boottime) - nanos(here.boottime) + own.boottime,
        }
    }

    fn of(pid: &str) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/timens_offsets"))?;
        Self::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
    }

    fn parse(text: &str) -> Option<Self> {
        let of = |name: &str| {
            let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
            let (seconds, nanos): (i128, i128) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(seconds * NANOS + nanos)
        };
        Some(Self { monotonic: of("monotonic")?, boottime: of("boottime")? })
    }

    /// As the kernel takes them in `/proc/self/timens_offsets`: whole seconds, rounded down, and nanoseconds.
    pub fn for_kernel(self) -> String {
        let line =
            |name: &str, offset: i128| format!("{name} {} {}\n", offset.div_euclid(NANOS), offset.rem_euclid(NANOS));
        line("monotonic", self.monotonic) + &line("boottime", self.boottime)
    }
}

fn nanos(clock: Duration) -> i128 {
    // A duration has at most 2^64 seconds.
    clock.as_nanos().cast_signed()
}

fn from_nanos(nanos: i128) -> Duration {
    let nanos = nanos.max(0);
    Duration::new(u64::try_from(nanos / NANOS).unwrap_or(u64::MAX), u32::try_from(nanos % NANOS).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn clocks(monotonic: u64, boottime: u64) -> Clocks {
        Clocks { monotonic: Duration::from_millis(monotonic), boottime: Duration::from_millis(boottime) }
    }

    #[test]
    fn offsets_are_read_and_written_as_the_kernel_does() {
        let text = "monotonic      -101 750000000\nboottime          5         0\n";
        let offsets = Offsets::parse(text).unwrap();
        assert_eq!(offsets, Offsets { monotonic: -100_250_000_000, boottime: 5_000_000_000 });
        assert_eq!(offsets.for_kernel(), "monotonic -101 750000000\nboottime 5 0\n");
        assert_eq!(Offsets::parse("monotonic 5\n"), None);
        assert!(Offsets::of("self").is_ok());
    }

    #[test]
    fn a_continued_clock_goes_on_in_any_namespace() {
        let (then, here) = (clocks(5_000, 6_000), clocks(100_500, 100_750));
        for own in [Offsets::default(), Offsets { monotonic: -7, boottime: 1 << 40 }] {
            let new = Offsets::between(then, here, own);
            assert_eq!(here.moved(own, new), then);
        }
    }

    #[test]
    fn its_own_clocks_are_those_of_this_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        let before = Clocks::here().unwrap();
        let read = Clocks::of(me).unwrap();
        assert!(before.monotonic <= read.monotonic && read.monotonic <= Clocks::here().unwrap().monotonic);
    }
}
