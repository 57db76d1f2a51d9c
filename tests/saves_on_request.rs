//! `revenant checkpoint`, run beside the workload, saves now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Store, Ticks};

fn counter(store: &Store) -> Container {
    Container::of("request").store(store).env("REVENANT_LEASE", "1s").workload("counter.py", &["--threads", "1"])
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

#[test]
fn returns_when_durable_and_the_workload_runs_on() {
    let store = Store::local();
    let first = counter(&store).start();
    first.wait_for_line("tick 3 ");
    let asked = first.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert!(asked.stdout.contains("saved generation 1-1"), "{}", asked.stdout);
    assert!(asked.stdout.contains("the workload runs again"), "{}", asked.stdout);
    let at_save = ticks(&first).last();
    first.wait_for_line(&format!("tick {} ", at_save + 5));
    let status = first.exec(&["revenant", "status"]);
    assert!(status.stdout.contains("1 durable, 0 failed"), "{}", status.stdout);
    // Durable is durable: not even a lost node takes it away.
    first.kill9();

    let next = counter(&store).start();
    next.wait_for_line(&format!("tick {} ", at_save + 8));
    ticks(&first).assert_continues(&ticks(&next), 3);
    ticks(&first).then(ticks(&next)).assert_true(&["--threads", "1"]);
}

#[test]
fn stop_ends_the_container_with_200_at_the_saved_tick() {
    let store = Store::local();
    let first = counter(&store).start();
    first.wait_for_line("tick 3 ");
    let asked = first.exec(&["revenant", "checkpoint", "--stop"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert_eq!(first.wait(), 200);
    let next = counter(&store).start();
    next.wait_for_line(&format!("tick {} ", ticks(&first).last() + 3));
    ticks(&first).then(ticks(&next)).assert_unbroken();
}

#[test]
fn json_says_each_event_as_one_object() {
    let store = Store::local();
    let first = counter(&store).start();
    first.wait_for_line("tick 2 ");
    let asked = first.exec(&["revenant", "checkpoint", "--json"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    let events: Vec<serde_json::Value> = asked.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!(last["answer"], "durable");
    assert_eq!(last["generation"], "1-1");
    assert!(last["image_bytes"].as_u64().unwrap() > 1 << 20, "{last}");
}

#[test]
fn a_second_request_joins_the_save_that_is_under_way() {
    let store = Store::local();
    // Slow enough that the second request comes in time on any machine: some 50 MiB to upload.
    let running = Container::of("join")
        .store(&store)
        .env("REVENANT_UPLOAD_LIMIT", "12MiB")
        .workload("counter.py", &["--mib", "96", "--interval", "0.2"])
        .start();
    running.wait_for_line("tick 2 ");
    let checkpoint = ["revenant", "checkpoint", "--json"];
    let first = running.exec_in_background(&checkpoint);
    // The first is under way when it has said something that is not its end.
    first.wait_for_line("\"answer\":\"progress\"");
    let second = running.exec(&checkpoint);
    let first = first.wait();
    assert_eq!((first.code, second.code), (0, 0), "{}{}", first.stderr, second.stderr);
    let last = |text: &str| text.lines().last().map(ToOwned::to_owned);
    assert_eq!(last(&first.stdout), last(&second.stdout));
    let status: serde_json::Value =
        serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap();
    assert_eq!(status["saves"], 1);
}

#[test]
fn without_an_entrypoint_it_says_where_it_looked() {
    let running = Container::of("none").entrypoint(&["sleep", "1000"]).start();
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 213);
    assert!(asked.stderr.contains("no running revenant answers"), "{}", asked.stderr);
    assert!(asked.stderr.contains("next:"), "{}", asked.stderr);
}
