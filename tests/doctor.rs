//! `revenant doctor` in containers with and without what it takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Store};
use serde_json::Value;
use std::time::Duration;

/// The trial alone waits up to some minutes for each of its steps.
const PATIENCE: Duration = Duration::from_secs(600);

/// The doctor as a container's only program, as in an init container: its exit code and its report.
fn doctor(container: Container, options: &[&str]) -> (i32, Value) {
    let running = container.entrypoint(&[&["revenant", "doctor", "--json"], options].concat()).start();
    let code = running.wait_for(PATIENCE);
    let report =
        serde_json::from_str(&running.stdout()).unwrap_or_else(|error| panic!("{error}: {}", running.stdout()));
    (code, report)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn a_good_container_passes_and_a_process_is_really_saved_and_restored() {
    let store = Store::local();
    let (code, report) = doctor(Container::of("doctor").store(&store), &[]);
    assert_eq!((code, &report["ok"]), (0, &Value::Bool(true)), "{report:#}");
    assert_eq!(report["profile"], "minimal");
    for name in ["capabilities", "seccomp", "CRIU", "kernel", "PID cursor", "folder", "store", "trial"] {
        assert_eq!(check(&report, name)["verdict"], "good", "{report:#}");
    }
    assert!(check(&report, "trial")["found"].as_str().unwrap().contains("continued"), "{report:#}");
    assert_eq!(check(&report, "clock")["verdict"], "limited", "{report:#}");
    assert!(check(&report, "clock")["remedy"].as_str().unwrap().contains("SYS_TIME"), "{report:#}");
    assert_eq!(store.files(), Vec::<std::path::PathBuf>::new(), "the doctor left something in the store");
}

#[test]
fn what_is_missing_is_named_with_its_code() {
    let store = Store::local();
    let (code, report) = doctor(Container::of("doctor").store(&store).drop_capability("CHECKPOINT_RESTORE"), &[]);
    assert_eq!((code, &report["profile"]), (207, &Value::Null), "{report:#}");
    assert!(check(&report, "capabilities")["remedy"].as_str().unwrap().contains("CHECKPOINT_RESTORE"), "{report:#}");
    assert_eq!(check(&report, "trial")["verdict"], "skipped");

    let (code, report) = doctor(Container::of("doctor").store(&store).seccomp_filter(), &[]);
    assert_eq!(code, 207);
    assert!(check(&report, "seccomp")["remedy"].as_str().unwrap().contains("Unconfined"), "{report:#}");

    let nowhere = Container::of("doctor").env("REVENANT_CRIU", "/no/criu").store(&store);
    let (code, report) = doctor(nowhere, &["--no-trial"]);
    assert_eq!((code, &check(&report, "CRIU")["verdict"]), (206, &"bad".into()), "{report:#}");
}

#[test]
fn a_store_that_cannot_be_reached_is_told_and_the_rest_is_tried_all_the_same() {
    // Nothing listens on the discard port.
    let container = Container::of("doctor")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("AWS_ACCESS_KEY_ID", "nobody")
        .env("AWS_SECRET_ACCESS_KEY", "nothing")
        .env("AWS_REGION", "us-east-1");
    let (code, report) = doctor(container, &["--store", "s3://nowhere/jobs"]);
    assert_eq!((code, &check(&report, "store")["verdict"]), (205, &"bad".into()), "{report:#}");
    assert_eq!(check(&report, "trial")["verdict"], "good", "{report:#}");
}

#[test]
fn beside_a_running_entrypoint_it_looks_and_does_no_harm() {
    let store = Store::local();
    let running = Container::of("patient").store(&store).workload("counter.py", &[]).start();
    running.wait_for_line("tick 2 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    let status: Value = serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap();
    let pid = status["root_pid"].to_string();
    let asked = running.exec(&["revenant", "doctor", "--pid", &pid]);
    assert_eq!(asked.code, 0, "{}{}", asked.stdout, asked.stderr);
    assert!(asked.stdout.contains("ok       workload"), "{}", asked.stdout);
    assert!(asked.stdout.contains("the entrypoint that runs here has saved 1 times"), "{}", asked.stdout);
    assert!(asked.stdout.contains("Workloads can be checkpointed here, with the minimal profile."), "{}", asked.stdout);
    // Still the same workload, and it can still be saved and continued.
    running.signal(harness::Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
    let last = harness::Ticks::of(&running.stdout_lines());
    let next = Container::of("patient").store(&store).workload("counter.py", &[]).start();
    next.wait_for_line(&format!("tick {} ", last.last() + 2));
    last.then(harness::Ticks::of(&next.stdout_lines())).assert_unbroken();
}
