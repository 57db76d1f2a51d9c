//! A save before a known end: it tries less hard where time is short, and is given up while the workload can still be told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store, Ticks};

/// Some 15 MiB to upload, and after a quarter of a minute, in which it has written to most of them, the same again.
const MEMORY: [&str; 4] = ["--mib", "24", "--on-term", "9"];

fn counter(store: &Store, upload_limit: &str, grace: &str) -> Container {
    let container = Container::of("late").store(store).env("REVENANT_LEASE", "1s").options(&["--grace", grace]);
    container.env("REVENANT_UPLOAD_LIMIT", upload_limit).workload("counter.py", &MEMORY)
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

#[test]
fn a_save_that_is_likely_to_be_late_tries_less_hard() {
    let store = Store::local();
    let first = counter(&store, "1MiB", "25s").start();
    first.wait_for_line("tick 3 ");
    // It takes more than half of the grace period, which is how long the next one is expected to take.
    let asked = first.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.report());
    assert!(first.stderr().contains("time is short: fast compression, nothing is read ahead"), "{}", first.report());
}

#[test]
fn one_that_cannot_be_in_time_leaves_the_workload_its_sigterm_and_the_checkpoint_before_it() {
    let store = Store::local();
    let first = counter(&store, "1GiB", "10m").start();
    first.wait_for_line("tick 3 ");
    let asked = first.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    first.kill9();

    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("termination-log");
    std::fs::write(&log, "").unwrap();
    let second = counter(&store, "4KiB", "20s").mount(&log, "/dev/termination-log").start();
    second.wait_for_line(&format!("tick {} ", ticks(&first).last() + 1));
    second.signal(Signal::SIGTERM);
    // Before the grace period is over: SIGKILL would be 137.
    assert_eq!(second.wait(), 201, "{}", second.report());
    assert!(second.stdout().ends_with("terminated\n"), "the workload was not told: {}", second.report());
    assert!(
        second.stderr().contains("a second, ") && second.stderr().contains("; it must be durable in "),
        "{}",
        second.report()
    );
    let message = std::fs::read_to_string(&log).unwrap();
    assert!(message.starts_with("not saved, an earlier checkpoint stands (exit code 201)"), "{message}");
    assert!(message.contains("generation 1-1, saved "), "{message}");

    let third = counter(&store, "1GiB", "10m").start();
    third.wait_for_line(&format!("tick {} ", ticks(&second).last() + 2));
    assert_eq!(ticks(&third).first(), ticks(&second).first(), "it continues from the same checkpoint");
    third.kill9();
}
