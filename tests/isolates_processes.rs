//! `--isolate pid,ipc,mount`: a job with process IDs, System V objects and a `/proc` of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};

/// What plain CRIU needs.
fn able(name: &str, store: &Store) -> Container {
    ["SYS_ADMIN", "SYS_TIME", "NET_ADMIN"].iter().fold(job(name, store), |job, name| job.add_capability(name))
}

fn job(name: &str, store: &Store) -> Container {
    Container::of(name)
        .store(store)
        .own_network()
        .env("REVENANT_LEASE", "1s")
        .env("REVENANT_GRACE", "60s")
        .options(&["--isolate", "pid,ipc,mount"])
}

/// The numbers of the lines `WORD N …`.
fn numbers(running: &Running, word: &str) -> Vec<u64> {
    let number = |line: &String| line.strip_prefix(word)?.split_whitespace().next()?.parse().ok();
    running.stdout_lines().iter().filter_map(number).collect()
}

/// Stops it after some lines, in so many containers; their numbers must follow on each other. Returns the last.
fn lives_on(container: &Container, generations: usize, word: &str, mut last: u64) -> u64 {
    for _ in 0..generations {
        let running = container.start();
        running.wait_until("lines", || numbers(&running, word).len() >= 3 || running.exit().is_some());
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
        for number in numbers(&running, word) {
            assert_eq!(number, last + 1, "{}", running.report());
            last = number;
        }
    }
    last
}

#[test]
fn lives_through_ten_containers_with_a_daemon_and_system_v_objects() {
    let store = Store::local();
    lives_on(&able("ten", &store).workload("system_v.py", &[]), 10, "step ", 0);
}

#[test]
fn keeps_its_ids_where_every_one_of_them_is_taken_in_the_container() {
    let store = Store::local();
    let container = able("ids", &store).workload("own_ids.py", &[]);
    let last = lives_on(&container, 2, "tick ", 0);
    // Processes with the IDs that the job calls its own live beside it.
    let crowd = "for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; exec revenant run --isolate none -- /bin/false";
    let running = able("ids", &store).entrypoint(&["/bin/bash", "-c", crowd]).start();
    running.wait_until("lines", || numbers(&running, "tick ").len() >= 3 || running.exit().is_some());
    assert_eq!(numbers(&running, "tick ").first(), Some(&(last + 1)), "{}", running.report());
    assert!(running.stdout_lines().iter().all(|line| line.ends_with("pid 2")), "{}", running.report());
    running.kill9();
}

#[test]
fn processes_and_threads_come_and_go_and_a_kill_costs_what_came_after_the_last_save() {
    let store = Store::local();
    let container = able("spawner", &store).workload("spawner.py", &[]);
    let last = lives_on(&container, 3, "tick ", 0);
    let running = container.start();
    running.wait_for_line(&format!("tick {}", last + 2));
    let saved = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    let seen = numbers(&running, "tick ").last().copied().unwrap();
    running.wait_for_line(&format!("tick {}", seen + 5));
    running.kill9();
    let running = container.start();
    running.wait_for_line("tick ");
    let first = numbers(&running, "tick ")[0];
    assert!((last + 3..=seen + 2).contains(&first), "{first} after {seen}; {}", running.report());
    running.kill9();
}

#[test]
fn with_a_terminal_and_without_one() {
    let store = Store::local();
    let pipes = able("terminal", &store).workload("own_ids.py", &[]);
    let mut last = 0;
    for container in [pipes.clone().tty(), pipes.clone(), pipes.tty()] {
        last = lives_on(&container, 1, "tick ", last);
    }
}

#[test]
fn ends_as_its_command_does() {
    let store = Store::local();
    for (script, code) in [("exit 7", 7), ("kill -SEGV $$", 139), ("(sleep 1000 &) ; exit 3", 3)] {
        let running = able(&format!("ends-{code}"), &store).command(&["/bin/bash", "-c", script]).start();
        assert_eq!(running.wait(), code, "{}", running.report());
    }
}

#[test]
fn where_it_cannot_be_had_it_is_refused_at_the_start_and_at_a_restore() {
    let store = Store::local();
    let running = job("lacking", &store).workload("own_ids.py", &[]).start();
    assert_eq!(running.wait(), 207, "{}", running.report());
    assert!(running.stderr().contains("SYS_ADMIN, NET_ADMIN, SYS_TIME"), "{}", running.report());
    let running = able("user", &store).options(&["--user", "1000"]).workload("own_ids.py", &[]).start();
    assert_eq!(running.wait(), 207, "{}", running.report());

    let with = able("moved", &store).workload("own_ids.py", &[]);
    let last = lives_on(&with, 1, "tick ", 0);
    let plain = Container::of("moved").store(&store).own_network().env("REVENANT_LEASE", "1s");
    let plain = plain.workload("own_ids.py", &[]).add_capability("SYS_ADMIN");
    let running = plain.start();
    assert_eq!(running.wait(), 202, "{}", running.report());
    assert!(running.stderr().contains("lacks NET_ADMIN, SYS_TIME"), "{}", running.report());
    // Where it can be had the job lives on, whatever is asked for.
    let able = plain.add_capability("SYS_TIME").add_capability("NET_ADMIN").options(&["--isolate", "none"]);
    lives_on(&able, 1, "tick ", last);
}
