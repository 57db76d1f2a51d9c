//! A workload that is preempted again and again continues exactly, as if nobody had disturbed it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store, Ticks};

/// Processes, threads, pipes and a bash pipeline, all in one hash.
const TREE: [&str; 5] = ["--threads", "2", "--children", "2", "--pipeline"];

/// Let it tick, then preempt it as Kubernetes does. Returns what it printed.
fn preempt_at(running: &Running, tick: u64) -> Ticks {
    running.wait_for_line(&format!("tick {tick} "));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
    Ticks::of(&running.stdout_lines())
}

#[test]
fn a_process_tree_continues_exactly_through_ten_preemptions() {
    let store = Store::local();
    let container = Container::of("tree").store(&store).workload("counter.py", &TREE);
    let mut ticks = Ticks::default();
    for round in 1..=10 {
        let running = container.start();
        let before = ticks.last();
        ticks = ticks.then(preempt_at(&running, before + 3));
        assert!(running.stderr().contains(&format!("saved generation {round}-1")));
        assert_eq!(running.stderr().contains("continued from generation"), round > 1);
    }
    assert!(ticks.last() >= 30);
    ticks.assert_unbroken();
    ticks.assert_true(&TREE);
}

#[test]
fn the_files_that_a_workload_writes_continue_too() {
    let store = Store::local();
    let own = ["--file", "/root/ticks"];
    let container = Container::of("files").store(&store).workload("counter.py", &own);
    preempt_at(&container.start(), 5);
    let next = container.start();
    next.wait_for_line("tick ");
    preempt_at(&next, Ticks::of(&next.stdout_lines()).last() + 5);
    let written = std::fs::read_to_string(next.root().join("root/ticks")).unwrap();
    let lines: Vec<_> = written.lines().map(ToOwned::to_owned).collect();
    let ticks = Ticks::of(&lines);
    assert!(ticks.last() >= 10);
    ticks.assert_unbroken();
    ticks.assert_true(&[]);
}

#[test]
fn the_end_of_a_continued_workload_is_the_containers() {
    let store = Store::local();
    let limit = ["--ticks", "30", "--exit", "6"];
    let container = Container::of("end").store(&store).workload("counter.py", &limit);
    let before = preempt_at(&container.start(), 3);
    let last = container.start();
    assert_eq!(last.wait(), 6);
    let ticks = before.then(Ticks::of(&last.stdout_lines()));
    assert_eq!(ticks.last(), 30);
    ticks.assert_unbroken();
}
