//! A container that is told to stop before its workload runs again loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks};
use std::thread::sleep;
use std::time::Duration;

#[test]
fn sigterm_at_any_moment_of_the_beginning_keeps_the_checkpoint() {
    let store = Store::local();
    let memory = ["--mib", "48", "--children", "1"];
    let container = Container::of("early").store(&store).env("REVENANT_LEASE", "3s").workload("counter.py", &memory);
    let first = container.start();
    first.wait_for_line("tick 2 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    let mut ticks = Ticks::of(&first.stdout_lines());
    let mut before_the_start = 0;
    for delay in [0, 60, 150, 300, 500, 800] {
        let early = container.start();
        // Signals are handled before anything else is made.
        while !early.root().join("run/revenant/control.sock").exists() {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(delay));
        early.signal(Signal::SIGTERM);
        let now = match early.wait() {
            209 => {
                before_the_start += 1;
                assert!(early.stderr().contains("told to stop before the workload ran"), "{}", early.stderr());
                continue;
            }
            code => {
                assert_eq!(code, 200);
                Ticks::of(&early.stdout_lines())
            }
        };
        ticks = ticks.then(now);
    }
    assert!(before_the_start > 0, "no SIGTERM came early enough");
    let last = container.start();
    last.wait_for_line(&format!("tick {} ", ticks.last() + 2));
    let ticks = ticks.then(Ticks::of(&last.stdout_lines()));
    ticks.assert_unbroken();
    ticks.assert_true(&memory);
}

#[test]
fn a_claim_that_was_taken_without_a_word_is_given_back() {
    let store = Store::local();
    let container = Container::of("unheard").store(&store).workload("counter.py", &[]);
    // The engine dies after it took the job and before it could say so.
    let early = container.clone().env("REVENANT_FAILPOINT", "claim-taken").start();
    assert_eq!(early.wait(), 212, "{}", early.stderr());
    assert!(early.stderr().contains("the engine ended before its work was done"), "{}", early.stderr());
    // With the usual lease of a minute.
    let next = container.start();
    next.wait_for_line("tick 2 ");
    assert!(!next.stderr().contains("has not given it back"), "{}", next.stderr());
}
