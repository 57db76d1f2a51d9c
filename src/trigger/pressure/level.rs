//! How much of the last time the kernel called the container's memory critical (version 1's `memory.pressure_level`).
//!
//! It says so for a moment whenever a file is read that is larger than what is free, which harms nobody; a workload that
//! gets no further is told of second after second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many seconds are remembered, as PSI's `avg10` does.
const SECONDS: u32 = 10;

/// The last seconds.
#[derive(Debug)]
pub struct Seconds {
    begun: Instant,
    /// Which of them were critical, by their number since the beginning; the oldest first, each once.
    critical: VecDeque<u64>,
}

impl Seconds {
    /// None was.
    pub fn new(now: Instant) -> Self {
        Self { begun: now, critical: VecDeque::new() }
    }

    /// So often has the kernel said it since the last look. Returns the part of the last ten seconds in which it did.
    #[allow(clippy::cast_precision_loss)] // At most ten.
    pub fn told(&mut self, now: Instant, times: u64) -> f64 {
        let second = now.duration_since(self.begun).as_secs();
        if times > 0 && self.critical.back() != Some(&second) {
            self.critical.push_back(second);
        }
        while self.critical.front().is_some_and(|old| old + u64::from(SECONDS) <= second) {
            self.critical.pop_front();
        }
        self.critical.len() as f64 / f64::from(SECONDS)
    }

    /// How long is remembered.
    pub const fn span() -> Duration {
        Duration::from_secs(SECONDS as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_times_in_one_second_are_one_second_and_old_ones_are_forgotten() {
        let begun = Instant::now();
        let mut seconds = Seconds::new(begun);
        let mut at = |ms: u64, times| format!("{:.1}", seconds.told(begun + Duration::from_millis(ms), times));
        assert_eq!([at(0, 0), at(100, 900), at(400, 5), at(1100, 1), at(2000, 0)], ["0.0", "0.1", "0.1", "0.2", "0.2"]);
        assert_eq!([at(9900, 0), at(10_100, 0), at(11_100, 0)], ["0.2", "0.1", "0.0"]);
    }
}
