//! The monotonic clock goes on, whichever machine the workload comes to; or nobody hangs in silence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};

const TWO_DAYS: u64 = 2 * 24 * 3600;

/// Far longer than it takes from a save to the next container's first tick, far less than two days.
const HOUR: i64 = 3_600_000;

fn of(job: &str, store: &Store) -> Container {
    Container::of(job).store(store).workload("clock.py", &[])
}

/// The numbers, the monotonic and the boot time clock of all ticks so far.
fn ticks(running: &Running) -> Vec<[i64; 3]> {
    let numbers = |line: &String| {
        let mut words = line.strip_prefix("tick ")?.split(' ').map(|word| word.parse().unwrap());
        Some([words.next()?, words.next()?, words.next()?])
    };
    running.stdout_lines().iter().filter_map(numbers).collect()
}

fn preempt(running: &Running) -> Vec<[i64; 3]> {
    running.wait_until("three ticks", || ticks(running).len() >= 3);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200, "{}", running.report());
    ticks(running)
}

#[test]
fn over_several_machines_with_the_capabilities_for_it() {
    let store = Store::local();
    let container = of("several", &store).add_capability("SYS_ADMIN").add_capability("SYS_TIME");
    let mut before: Option<[i64; 3]> = None;
    // Older, younger and older machines.
    for ahead in [TWO_DAYS, 0, 2 * TWO_DAYS, 300, TWO_DAYS] {
        let ticks = preempt(&container.clone().clocks_ahead(ahead).start());
        for now in before.iter().chain(&ticks).collect::<Vec<_>>().windows(2) {
            let passed = [0, 1, 2].map(|what| now[1][what] - now[0][what]);
            assert_eq!(passed[0], 1);
            assert!((1..HOUR).contains(&passed[1]), "the monotonic clock jumped by {} ms", passed[1]);
            assert!((1..HOUR).contains(&passed[2]), "the boot time clock jumped by {} ms", passed[2]);
        }
        before = ticks.last().copied();
    }
}

#[test]
fn a_machine_with_a_lower_clock_is_refused_without_them_and_left_to_another() {
    let store = Store::local();
    let container = of("lower", &store);
    preempt(&container.clone().clocks_ahead(TWO_DAYS).start());
    let younger = container.start();
    assert_eq!(younger.wait(), 202);
    let said = younger.stderr();
    assert!(said.contains("the monotonic clock of this machine is 1day 23h"), "{said}");
    assert!(said.contains("SYS_ADMIN and SYS_TIME"), "{said}");
    assert!(ticks(&younger).is_empty());
    // Nothing is lost by it.
    let older = preempt(&container.clocks_ahead(2 * TWO_DAYS).start());
    assert!(older[0][0] > 3);
}

#[test]
fn best_effort_restores_and_says_what_will_happen() {
    let store = Store::local();
    let container = of("effort", &store).options(&["--clock", "best-effort"]);
    preempt(&container.clone().clocks_ahead(TWO_DAYS).start());
    let younger = container.start();
    younger.wait_for_stderr_line("continued from generation 1-1");
    assert!(younger.stderr().contains("the workload would hang that long"), "{}", younger.stderr());
    // Whether it does depends on whether it was waiting at the moment of the save. It can be saved again.
    younger.signal(Signal::SIGTERM);
    assert_eq!(younger.wait(), 200);
}
