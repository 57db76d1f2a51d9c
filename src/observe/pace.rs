//! How fast a long save or restore goes, and how long it will still take: one line every few seconds.

use crate::checkpoint::protocol::Progress;
use crate::supervisor::words;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::Instant;

/// What takes less than this needs no line. A save of some seconds says enough when it is over.
const QUIET: Duration = Duration::from_secs(5);
/// From one line to the next.
const EVERY: Duration = Duration::from_secs(5);

/// Follows the phases of one save or restore.
#[derive(Debug)]
pub struct Pace {
    phase: String,
    begun: Instant,
    last_line: Option<Instant>,
    at_begin: u64,
}

impl Pace {
    /// A save or restore that begins now.
    pub fn new(now: Instant) -> Self {
        Self { phase: String::new(), begun: now, last_line: None, at_begin: 0 }
    }

    /// Takes a report; says a line when one is due.
    pub fn line(&mut self, progress: &Progress, now: Instant) -> Option<String> {
        if self.phase != progress.phase {
            self.phase.clone_from(&progress.phase);
            self.begun = now;
            self.last_line = None;
            self.at_begin = moved(progress);
        }
        let running = now.saturating_duration_since(self.begun);
        let due = self.last_line.map_or(running >= QUIET, |last| now.saturating_duration_since(last) >= EVERY);
        if !due {
            return None;
        }
        self.last_line = Some(now);
        Some(self.describe(progress, running))
    }

    fn describe(&self, progress: &Progress, running: Duration) -> String {
        let done = moved(progress);
        let rate = rate(done.saturating_sub(self.at_begin), running);
        let mut text = format!("{}: {}", doing(&progress.phase), words::bytes(done));
        if let Some(total) = progress.total_bytes.filter(|total| *total >= done && *total > 0) {
            let _ = write!(text, " of {} ({} %)", words::bytes(total), done.saturating_mul(100) / total);
        }
        let _ = write!(text, ", {} a second", words::bytes(rate));
        match progress.total_bytes.and_then(|total| left(total.saturating_sub(done), rate)) {
            Some(left) => text + &format!(", about {} left", words::duration(left)),
            None => text + &format!(", for {} now", words::duration(running)),
        }
    }
}

/// What counts in this phase.
fn moved(progress: &Progress) -> u64 {
    if progress.phase == "upload" { progress.store_bytes } else { progress.done_bytes }
}

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / ms
}

fn left(bytes: u64, rate: u64) -> Option<Duration> {
    (rate > 0).then(|| Duration::from_secs(bytes.div_ceil(rate)))
}

/// A phase in words.
fn doing(phase: &str) -> &str {
    match phase {
        "pre-copy" => "reading memory ahead",
        "dump" => "saving memory",
        "upload" => "storing",
        "restore" => "restoring",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phase: &str, done: u64, total: Option<u64>) -> Progress {
        Progress { phase: phase.into(), done_bytes: done, total_bytes: total, store_bytes: done / 2 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_restore_says_how_far_it_is_and_a_short_one_nothing() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        let mut said = Vec::new();
        for half_second in 0..24 {
            let now = begun + Duration::from_millis(500 * half_second);
            said.extend(pace.line(&report("restore", half_second << 30, Some(200 << 30)), now));
        }
        assert_eq!(
            said,
            [
                "restoring: 10.0 GiB of 200 GiB (5 %), 2.00 GiB a second, about 1 min 35 s left",
                "restoring: 20.0 GiB of 200 GiB (10 %), 2.00 GiB a second, about 1 min 30 s left"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_that_of_the_phase_and_no_total_is_no_guess() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        assert_eq!(pace.line(&report("dump", 0, None), begun), None);
        assert_eq!(pace.line(&report("upload", 8 << 20, None), begun + Duration::from_secs(60)), None);
        let line = pace.line(&report("upload", 108 << 20, None), begun + Duration::from_secs(70)).unwrap();
        assert_eq!(line, "storing: 54.0 MiB, 5.00 MiB a second, for 10 s now");
    }

    #[test]
    fn nothing_moved_is_no_division_by_zero() {
        assert_eq!(rate(0, Duration::ZERO), 0);
        assert_eq!(left(5, 0), None);
    }
}
