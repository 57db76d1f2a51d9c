//! A CRIU that lives but does nothing any more: a restore must come to an end all the same.
//!
//! Nothing is: it has taken no image, and neither it nor the processes that it makes have used the processor. (Large
//! images count as taken only when their last byte was; but reading them costs time.)

use crate::criu::run::Watched;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::tree;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(500);

/// Watches one CRIU.
#[derive(Debug)]
pub struct Stall {
    longest: Duration,
    /// The restore waits for PID 1, not for CRIU.
    pub excused: AtomicBool,
    /// CRIU was ended.
    pub ended_it: AtomicBool,
}

impl Stall {
    /// Ends a CRIU that stands still for `longest`; zero never does.
    pub fn new(longest: Duration) -> Self {
        Self { longest, excused: AtomicBool::new(false), ended_it: AtomicBool::new(false) }
    }

    /// Watches until CRIU has ended. `sent` counts the bytes that it has taken.
    pub fn watch(&self, criu: &Watched, sent: impl Fn() -> u64) {
        let done = || (sent(), processor_time(criu.pid()));
        let (mut last, mut since) = (done(), Instant::now());
        while !criu.ends_within(LOOK) {
            let now = done();
            if now != last || self.excused.load(Ordering::Relaxed) || self.longest.is_zero() {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() >= self.longest {
                self.ended_it.store(true, Ordering::Relaxed);
                criu.kill();
                return;
            }
        }
    }

    /// What happened, if CRIU was ended.
    pub fn problem(&self, images: &Path) -> Option<Problem> {
        self.ended_it.load(Ordering::Relaxed).then(|| {
            Problem::new(
                Exit::RestoreRefused,
                format!(
                    "CRIU stood still: for {} it took nothing of the checkpoint and did nothing",
                    humantime::format_duration(self.longest)
                ),
                "CRIU hangs, was stopped by somebody, or waits for something that this container does not have",
                format!(
                    "see {} for its log; if the node is only very slow, allow more time: --restore-stall",
                    images.display()
                ),
            )
        })
    }
}

/// Of a process and all that descends from it, in clock ticks.
fn processor_time(root: i32) -> u64 {
    tree::below(root).unwrap_or_default().iter().map(|process| process.used).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_children_use_counts() {
        let mut shell =
            std::process::Command::new("/bin/sh").args(["-c", "(while :; do :; done) & wait"]).spawn().unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let begun = Instant::now();
        while processor_time(pid) < 3 {
            assert!(begun.elapsed() < Duration::from_secs(60), "it uses none");
            std::thread::sleep(Duration::from_millis(20));
        }
        for process in tree::below(pid).unwrap().into_iter().rev() {
            crate::workload::kill::send(process.pid, nix::sys::signal::Signal::SIGKILL);
        }
        shell.wait().unwrap();
    }
}
