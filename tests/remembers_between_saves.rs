//! What one save has read, the next one of the same container recognizes: PID 1 holds it, and no other container sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Store, Ticks};

const WORKLOAD: [&str; 4] = ["--mib", "48", "--children", "1"];

fn counter(store: &Store) -> Container {
    let container = Container::of("remembers").store(store).env("REVENANT_LEASE", "1s");
    container.env("REVENANT_LOG_LEVEL", "debug").workload("counter.py", &WORKLOAD)
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

/// How often a save was told what an earlier one had read, and took it.
fn times_told(running: &Running) -> usize {
    let lines = running.stderr();
    lines
        .lines()
        .filter(|line| line.contains("an earlier save has read is known") && line.contains("told=true"))
        .count()
}

fn save(running: &Running) {
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
}

#[test]
fn the_next_save_of_a_container_is_told_and_another_containers_is_not() {
    let store = Store::local();
    let first = counter(&store).start();
    first.wait_for_line("tick 3 ");
    for told in 0..3 {
        save(&first);
        assert_eq!(times_told(&first), told, "{}", first.stderr());
    }
    let saved = ticks(&first).last();
    first.wait_for_line(&format!("tick {} ", saved + 3));
    first.kill9();

    // What was recognized is what there was: every page is checked.
    let second = counter(&store).start();
    second.wait_for_stderr_line("continued from generation 1-3");
    second.wait_for_line(&format!("tick {} ", saved + 6));
    save(&second);
    assert_eq!(times_told(&second), 0, "{}", second.stderr());
    save(&second);
    assert_eq!(times_told(&second), 1, "{}", second.stderr());
    second.kill9();
    let third = counter(&store).start();
    third.wait_for_stderr_line("continued from generation 2-2");
    third.wait_for_line(&format!("tick {} ", ticks(&second).last() + 3));
    ticks(&first).then(ticks(&second)).then(ticks(&third)).assert_true(&WORKLOAD);
}
