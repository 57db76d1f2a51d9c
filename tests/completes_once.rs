//! A job that has ended well is not run again, whatever starts its container.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store};

fn short(store: &Store) -> Container {
    Container::of("once").store(store).workload("counter.py", &["--ticks", "12"])
}

fn manifests(store: &Store) -> usize {
    store.files().iter().filter(|file| file.extension().is_some_and(|end| end == "manifest")).count()
}

fn preempted(container: &Container) {
    let running = container.start();
    running.wait_for_line("tick 3 ");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
}

#[test]
fn exit_0_completes_the_job_and_removes_its_checkpoints() {
    let store = Store::local();
    preempted(&short(&store));
    assert_eq!(manifests(&store), 1);
    let last = short(&store).start();
    assert_eq!(last.wait(), 0);
    assert!(last.stdout().contains("done 12"));
    assert_eq!(manifests(&store), 0);
    let packs: Vec<_> = store.files().into_iter().filter(|file| file.to_string_lossy().contains("/packs/")).collect();
    assert!(packs.is_empty(), "{packs:?}");

    let rescheduled = short(&store).start();
    assert_eq!(rescheduled.wait(), 0);
    assert_eq!(rescheduled.stdout(), "");
    assert!(rescheduled.stderr().contains("this job was completed"), "{}", rescheduled.stderr());
    assert!(rescheduled.stderr().contains("nothing to do"), "{}", rescheduled.stderr());
}

#[test]
fn on_complete_keep_leaves_the_checkpoints_and_still_runs_once() {
    let store = Store::local();
    let container = short(&store).options(&["--on-complete", "keep"]);
    preempted(&container);
    assert_eq!(container.start().wait(), 0);
    assert_eq!(manifests(&store), 1);
    let rescheduled = container.start();
    assert_eq!(rescheduled.wait(), 0);
    assert_eq!(rescheduled.stdout(), "");
}

#[test]
fn a_failure_is_no_completion() {
    let store = Store::local();
    let container = Container::of("once").store(&store).command(&["sh", "-c", "echo run; exit 7"]);
    for _ in 0..2 {
        let running = container.start();
        assert_eq!(running.wait(), 7);
        assert_eq!(running.stdout(), "run\n");
    }
}

#[test]
fn another_job_in_the_same_store_is_another_matter() {
    let store = Store::local();
    assert_eq!(short(&store).start().wait(), 0);
    let other = short(&store).env("REVENANT_JOB", "twice").start();
    assert_eq!(other.wait(), 0);
    assert!(other.stdout().contains("done 12"));
}
