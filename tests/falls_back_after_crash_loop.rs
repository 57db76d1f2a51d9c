//! A checkpoint that leads into a crash, again and again, is passed over for an older one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};
use std::path::Path;

/// Counts until its volume holds a file that is poison to the memory it has by then.
const WORKLOAD: &str = "\
import os, time
sick, tick = False, 0
while True:
    tick += 1
    print('tick', tick, flush=True)
    sick = sick or os.path.exists('/data/infect')
    if sick and os.path.exists('/data/kill'):
        os._exit(3)
    time.sleep(0.05)
";

fn container(store: &Store, data: &Path) -> Container {
    Container::of("loop").store(store).mount(data, "/data").command(&["python3", "-c", WORKLOAD])
}

fn ticks(running: &Running) -> Vec<u64> {
    let lines = running.stdout_lines();
    lines.iter().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

fn preempt(running: &Running, after: u64) -> u64 {
    running.wait_for_line(&format!("tick {after}"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
    *ticks(running).last().unwrap()
}

#[test]
fn after_three_crashes_the_older_generation_is_restored() {
    let (store, data) = (Store::local(), Store::local());
    let data = data.directory().unwrap();
    let healthy = preempt(&container(&store, data).start(), 3);
    std::fs::write(data.join("infect"), "").unwrap();
    preempt(&container(&store, data).start(), healthy + 3);
    std::fs::write(data.join("kill"), "").unwrap();
    std::fs::remove_file(data.join("infect")).unwrap();
    for _ in 0..3 {
        let crashing = container(&store, data).start();
        assert_eq!(crashing.wait(), 3);
        assert!(crashing.stderr().contains("continued from generation 2-1"), "{}", crashing.stderr());
    }
    let last = container(&store, data).start();
    last.wait_for_stderr_line("continued from generation 1-1");
    last.wait_for_line(&format!("tick {}", healthy + 5));
    assert_eq!(ticks(&last)[0], healthy + 1);
    assert!(last.stderr().contains("generation 2-1 was not restored: the workload died"), "{}", last.stderr());
}

#[test]
fn a_crash_long_after_a_restore_is_the_workloads_own() {
    let (store, data) = (Store::local(), Store::local());
    let data = data.directory().unwrap();
    let container = container(&store, data).options(&["--crash-window", "0"]);
    std::fs::write(data.join("infect"), "").unwrap();
    preempt(&container.start(), 3);
    std::fs::write(data.join("kill"), "").unwrap();
    for _ in 0..4 {
        let crashing = container.start();
        assert_eq!(crashing.wait(), 3);
        assert!(crashing.stderr().contains("continued from generation 1-1"), "{}", crashing.stderr());
    }
}
