//! Telling PID 1, while something long goes on, how far it is.

use super::engine::Events;
use super::protocol::{Event, Progress};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_millis(500);

/// Does `work` while a thread reports what `measure` says.
pub fn while_telling<T>(events: &Events, measure: impl Fn() -> Progress + Sync, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reporter = scope.spawn(|| {
            loop {
                std::thread::park_timeout(EVERY);
                if done.load(Ordering::Acquire) {
                    return;
                }
                events.send(&Event::Progress(measure()));
            }
        });
        let result = work();
        done.store(true, Ordering::Release);
        reporter.thread().unpark();
        // How far it came in the end.
        events.send(&Event::Progress(measure()));
        result
    })
}
