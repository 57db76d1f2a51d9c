//! The pod and its node, from a server that speaks as much of the API server's protocol as is asked for: objects,
//! watches, events, and refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod announcers;
mod harness;

use announcers::cluster::{Cluster, event, node, pod};
use harness::Signal;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

#[test]
fn a_cordoned_node_is_a_reason_to_save_and_the_pod_tells_of_its_checkpoints() {
    let cluster = Cluster::new(true);
    let first = cluster.start();
    first.wait_for_line("tick 3 ");
    cluster.wait_for_watches();
    let mut cordoned = node();
    cordoned["spec"] = json!({"unschedulable": true});
    cluster.node.push(event("MODIFIED", &cordoned));
    first.wait_for_stderr_line("saving (the node was cordoned)");
    first.wait_for_stderr_line("saved generation 1-1");
    cluster.wait_for_event("Checkpointed");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    let next = cluster.start();
    next.wait_for_stderr_line("continued from generation 1-2");
    cluster.wait_for_event("Restored");
}

#[test]
fn a_deleted_pod_with_a_long_pre_stop_hook_is_saved_before_its_time_is_over() {
    let cluster = Cluster::new(true);
    let first = cluster.start();
    first.wait_for_line("tick 3 ");
    cluster.wait_for_watches();
    let mut deleted = pod();
    let at = SystemTime::now() + Duration::from_secs(45);
    deleted["metadata"]["deletionTimestamp"] = json!(humantime::format_rfc3339_seconds(at).to_string());
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(45);
    deleted["status"]["conditions"] =
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
    cluster.pod.push(event("MODIFIED", &deleted));
    first.wait_for_stderr_line("saving (the pod is being deleted (PreemptionByScheduler))");
    first.wait_for_stderr_line("saved generation 1-1");
    // No SIGTERM comes: the hook takes all of the time.
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    assert!(first.stderr().contains("saved generation 1-2"), "{}", first.stderr());
}

#[test]
fn the_pods_own_grace_period_is_used() {
    let cluster = Cluster::new(true);
    let first = cluster.start();
    first.wait_for_line("tick 3 ");
    cluster.wait_for_watches();
    let status: Value = serde_json::from_str(&first.exec(&["revenant", "status", "--json"]).stdout).unwrap();
    assert_eq!(status["grace_ms"], 77_000, "{status}");
}

#[test]
fn without_rights_one_line_says_so_and_all_else_works() {
    let cluster = Cluster::new(false);
    let first = cluster.start();
    first.wait_for_line("tick 3 ");
    first.wait_for_stderr_line("the pod is not watched: the service account has no right to read it");
    assert_eq!(first.exec(&["revenant", "checkpoint"]).code, 0);
    first.wait_for_stderr_line("no events are put on the pod");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    assert_eq!(first.stderr().matches("is not watched").count(), 1, "{}", first.stderr());
}

/// Two saves by request.
fn saved_twice(cluster: &Cluster) -> harness::Running {
    let first = cluster.start();
    first.wait_for_line("tick 3 ");
    for saves in 1..=2 {
        assert_eq!(first.exec(&["revenant", "checkpoint"]).code, 0);
        first.wait_until("event of the save", || cluster.events("Checkpointed") == saves);
    }
    first
}

#[test]
fn where_it_is_allowed_the_pod_shows_its_newest_checkpoint() {
    let cluster = Cluster::which_lets_annotate();
    let first = saved_twice(&cluster);
    // Before each event.
    let patches = cluster.patches();
    assert_eq!(patches.len(), 2, "{patches:?}");
    for (patch, generation) in patches.iter().zip(["1-1", "1-2"]) {
        let annotations = patch["metadata"]["annotations"].as_object().unwrap();
        assert_eq!((patch.as_object().unwrap().len(), annotations.len()), (1, 1), "{patch}");
        let value = annotations["revenant.dev/last-checkpoint"].as_str().unwrap();
        let (named, at) = value.split_once(' ').unwrap();
        let at = humantime::parse_rfc3339(at).unwrap();
        assert_eq!(named, generation);
        assert!(at <= SystemTime::now() && at > SystemTime::now() - Duration::from_secs(600), "{value}");
    }
    first.kill9();
}

#[test]
fn where_it_is_not_allowed_it_is_tried_once_and_nothing_is_said() {
    let cluster = Cluster::new(true);
    let first = saved_twice(&cluster);
    assert_eq!(cluster.patches().len(), 1);
    assert!(!first.stderr().contains("annotat"), "{}", first.stderr());
    first.kill9();
}
