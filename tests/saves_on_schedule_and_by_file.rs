//! Saves that nobody waits for: by the clock, by a touched file, by an annotation, by a signal of one's choice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store};
use std::fs;

fn counter(store: &Store, options: &[&str]) -> Container {
    Container::of("triggered").store(store).options(options).workload("counter.py", &[])
}

#[test]
fn every_so_often_and_never_two_at_once() {
    let store = Store::local();
    let running = counter(&store, &["--every", "2s"]).start();
    running.wait_for_stderr_line("saved generation 1-3");
    let said = running.stderr();
    // Each save has ended before the next began.
    let steps: Vec<&str> =
        said.lines().filter(|line| line.contains("saving (") || line.contains("saved gen")).collect();
    for pair in steps.windows(2) {
        assert!(pair[0].contains("saving (schedule)") != pair[1].contains("saving (schedule)"), "{said}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap();
    assert!(status["triggers"]["fired"]["schedule"].as_u64().unwrap() >= 3, "{status}");
    assert!(!status["triggers"]["next_scheduled"].is_null(), "{status}");
}

#[test]
fn a_touched_file_and_a_changed_annotation_save() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("annotations"), "revenant.dev/checkpoint=\"earlier\"\n").unwrap();
    let store = Store::local();
    let options = ["--trigger-file", "/podinfo/save", "--annotations", "/podinfo/annotations"];
    let running = counter(&store, &options).mount(folder.path(), "/podinfo").start();
    running.wait_for_line("tick 3 ");
    fs::write(folder.path().join("save"), "").unwrap();
    running.wait_for_stderr_line("saving (/podinfo/save was touched)");
    running.wait_for_stderr_line("saved generation 1-1");
    // As the kubelet does it: a new file takes the old one's place.
    fs::write(folder.path().join("new"), "revenant.dev/checkpoint=\"now\"\n").unwrap();
    fs::rename(folder.path().join("new"), folder.path().join("annotations")).unwrap();
    running.wait_for_stderr_line("saving (annotation revenant.dev/checkpoint: now)");
    running.wait_for_stderr_line("saved generation 1-2");
}

#[test]
fn a_stop_signal_of_ones_choice_means_sigterm() {
    let store = Store::local();
    let running = counter(&store, &["--stop-signal", "SIGINT"]).start();
    running.wait_for_line("tick 3 ");
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait(), 200);
    assert!(running.stderr().contains("saving (SIGINT)"), "{}", running.stderr());
}
