//! Checkpoints in an object store carry a workload on as those in a directory do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks};

#[test]
fn a_workload_continues_from_a_bucket_through_two_preemptions() {
    let store = Store::seaweed();
    let tree = ["--threads", "1", "--children", "1"];
    let container = Container::of("bucket").store(&store).workload("counter.py", &tree);
    let mut ticks = Ticks::default();
    for _ in 0..3 {
        let running = container.start();
        running.wait_for_line(&format!("tick {} ", ticks.last() + 4));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200);
        ticks = ticks.then(Ticks::of(&running.stdout_lines()));
    }
    ticks.assert_unbroken();
    ticks.assert_true(&tree);
}
