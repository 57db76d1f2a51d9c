//! With `--log-format json` every line on stderr is one object that says of which job it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store};
use serde_json::Value;

#[test]
fn each_event_is_one_object_with_job_pod_and_generation() {
    let store = Store::local();
    let job = Container::of("told")
        .store(&store)
        .env("REVENANT_POD_NAME", "told-7")
        .env("REVENANT_POD_NAMESPACE", "assemblies")
        .options(&["--log-format", "json", "--log-level", "debug"])
        .workload("counter.py", &[]);
    let first = job.start();
    first.wait_for_line("tick 2 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    let second = job.start();
    second.wait_for_line("tick");
    let text = first.stderr();
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let of = |message: &str, events: &[Value]| -> Value {
        let found = events.iter().find(|event| event["message"].as_str().unwrap().contains(message));
        found.cloned().unwrap_or_else(|| panic!("nothing about {message:?} in {text}"))
    };
    let saved = of("saved generation", &events);
    assert_eq!((&saved["level"], &saved["job"], &saved["pod"]), (&"info".into(), &"told".into(), &"told-7".into()));
    assert_eq!((&saved["namespace"], &saved["generation"]), (&"assemblies".into(), &"1-1".into()));
    assert!(saved["image_bytes"].as_u64().unwrap() > 1 << 20, "numbers must stay numbers: {saved}");
    // What comes after it knows the generation too.
    assert_eq!(of("the workload is saved and stopped", &events)["generation"], "1-1");
    // The engine, a process of its own, speaks in the same way.
    let jobs: Vec<_> = events.iter().filter(|event| event["job"] != "told").collect();
    assert!(jobs.len() < events.len() / 2, "{jobs:?}");
    second.wait_for_stderr_line("continued from generation 1-1");
}
