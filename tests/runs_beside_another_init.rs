//! revenant need not be PID 1: it saves and restores under another init, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks};

/// A small init: hands SIGTERM on and ends as its child does.
const INIT: &str = "\
revenant run -- python3 /workloads/counter.py --children 1 & child=$!
trap 'kill -TERM $child' TERM
wait $child; code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
exit $code";

#[test]
fn under_a_shell_that_is_pid_1() {
    let store = Store::local();
    let container = Container::of("beside").store(&store).entrypoint(&["/bin/bash", "-c", INIT]);
    let mut ticks = Ticks::default();
    for _ in 0..3 {
        let running = container.start();
        running.wait_for_line(&format!("tick {} ", ticks.last() + 3));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200);
        ticks = ticks.then(Ticks::of(&running.stdout_lines()));
    }
    ticks.assert_unbroken();
    ticks.assert_true(&["--children", "1"]);
}

/// As in a pod with a shared process namespace: PID 1 is a pause process, the entrypoint one of many.
#[test]
fn beside_a_pause_process() {
    let store = Store::local();
    let pod = Container::of("shared").store(&store).entrypoint(&["sleep", "1000"]);
    let ticks = Ticks::beside(&pod, &[], 2);
    ticks.assert_unbroken();
}

#[test]
fn orphans_come_to_the_entrypoint_and_go_with_it() {
    let store = Store::local();
    let script = "revenant run -- sh -c '(sleep 1000 &) ; exit 5'; echo ended $?; sleep 1000";
    let pod = Container::of("orphans").store(&store).entrypoint(&["/bin/sh", "-c", script]).start();
    assert_eq!(pod.wait_for_line("ended"), "ended 5");
    let left = pod.exec(&["sh", "-c", "grep -c '' /proc/[0-9]*/comm | wc -l; cat /proc/[0-9]*/comm"]);
    let sleeping = left.stdout.lines().filter(|name| *name == "sleep").count();
    assert_eq!(sleeping, 1, "{}", left.stdout);
}
