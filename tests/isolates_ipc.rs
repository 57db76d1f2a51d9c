//! `--isolate`: with an IPC namespace of its own a job keeps its System V shared memory, semaphores and messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};

fn job(name: &str, store: &Store) -> Container {
    Container::of(name)
        .store(store)
        .env("REVENANT_LEASE", "1s")
        .env("REVENANT_GRACE", "60s")
        .workload("system_v.py", &[])
}

fn steps(running: &Running) -> Vec<u64> {
    running.stdout_lines().iter().filter_map(|line| line.strip_prefix("step ")?.parse().ok()).collect()
}

/// Stops it after some steps, which must follow on each other over all containers.
fn lives_on(container: &Container, generations: usize) {
    let mut next = 1;
    for _ in 0..generations {
        let running = container.start();
        running.wait_until("steps", || steps(&running).len() >= 3 || running.exit().is_some());
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
        for step in steps(&running) {
            assert_eq!(step, next, "{}", running.report());
            next += 1;
        }
    }
}

#[test]
fn system_v_objects_and_a_daemon_live_through_ten_containers() {
    let store = Store::local();
    lives_on(&job("ten", &store).add_capability("SYS_ADMIN"), 10);
}

#[test]
fn as_another_user_and_with_the_clock_kept_too() {
    let store = Store::local();
    let container = job("other", &store).add_capability("SYS_ADMIN").add_capability("SYS_TIME");
    lives_on(&container.options(&["--user", "1000:1000", "--isolate", "ipc"]), 3);
}

#[test]
fn without_a_namespace_of_its_own_the_save_is_refused_and_says_what_to_do() {
    let store = Store::local();
    let running = job("shared", &store).add_capability("SYS_ADMIN").options(&["--isolate", "none"]).start();
    running.wait_for_line("step 2");
    let answer = running.exec(&["revenant", "checkpoint"]);
    assert_ne!(answer.code, 0, "{}", answer.stdout);
    assert!(answer.stderr.contains("--isolate ipc"), "{}", answer.stderr);
    running.kill9();
}

#[test]
fn a_container_that_may_not_make_one_says_so_before_and_after() {
    let store = Store::local();
    let running = job("refused", &store).options(&["--isolate", "ipc"]).start();
    assert_eq!(running.wait(), 207, "{}", running.report());
    assert!(running.stderr().contains("SYS_ADMIN"), "{}", running.report());

    let with = job("moved", &store).add_capability("SYS_ADMIN");
    let first = with.start();
    first.wait_for_line("step 2");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.report());
    let second = job("moved", &store).start();
    assert_eq!(second.wait(), 202, "{}", second.report());
    assert!(second.stderr().contains("SYS_ADMIN"), "{}", second.report());
    // Where it may be made, the job lives on, whatever is asked for.
    let third = with.options(&["--isolate", "none"]).start();
    third.wait_for_line("step ");
    third.kill9();
}
