//! A tool that can continue by itself is let to, when there is no checkpoint to continue from.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks};

const RESUME: [&str; 2] = ["--resume-command", "echo resuming in $PWD; exit 4"];

fn counter(store: &Store) -> Container {
    Container::of("native").store(store).env("REVENANT_LEASE", "1s").workload("counter.py", &[]).options(&RESUME)
}

#[test]
fn the_first_start_is_the_command_and_the_next_without_a_checkpoint_the_resume_command() {
    let store = Store::local();
    let first = counter(&store).start();
    first.wait_for_line("tick 3 ");
    first.kill9();
    let next = counter(&store).env("REVENANT_LEASE", "3s").directory("/var").start();
    assert_eq!(next.wait(), 4);
    // What a killed container did not give back is waited for, and that is said.
    assert!(next.stderr().contains("has not given it back"), "{}", next.stderr());
    assert_eq!(next.stdout(), "resuming in /var\n");
    assert!(next.stderr().contains("started before, but never saved"), "{}", next.stderr());
}

#[test]
fn a_checkpoint_comes_before_the_resume_command() {
    let store = Store::local();
    let first = counter(&store).start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    let ticks = Ticks::of(&first.stdout_lines());
    let next = counter(&store).start();
    next.wait_for_line(&format!("tick {} ", ticks.last() + 3));
    ticks.then(Ticks::of(&next.stdout_lines())).assert_unbroken();
}

#[test]
fn without_a_resume_command_the_fresh_start_is_said() {
    let store = Store::local();
    let container = Container::of("native").store(&store).env("REVENANT_LEASE", "1s").workload("counter.py", &[]);
    let first = container.start();
    first.wait_for_line("tick 3 ");
    first.kill9();
    let next = container.start();
    let said = next.wait_for_stderr_line("started before but never saved");
    assert!(said.contains("starting from nothing"), "{said}");
    next.wait_for_line("tick 1 ");
}
