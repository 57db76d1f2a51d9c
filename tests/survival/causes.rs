//! The causes, each with what makes it happen.

use crate::harness::Signal;
use crate::making::*;
use crate::table::{Kind, Seen};
use serde_json::json;

/// One cause.
pub struct Cause {
    pub name: &'static str,
    pub kind: Kind,
    pub how: &'static str,
    pub run: fn() -> Seen,
}

const fn announced(name: &'static str, how: &'static str, run: fn() -> Seen) -> Cause {
    Cause { name, kind: Kind::Announced, how, run }
}

const fn warning(name: &'static str, how: &'static str, run: fn() -> Seen) -> Cause {
    Cause { name, kind: Kind::Warning, how, run }
}

const fn unannounced(name: &'static str, how: &'static str, run: fn() -> Seen) -> Cause {
    Cause { name, kind: Kind::Unannounced, how, run }
}

/// All of them, the slow ones first.
pub const CAUSES: &[Cause] = &[
    warning(
        "stalls for want of memory",
        "a workload that walks through a mapped file of 400 MiB with 192 MiB held, under a real limit of 384 MiB; PSI",
        stalls,
    ),
    announced("EC2 spot interruption", "metadata server: `spot/instance-action` for 20 s later", spot),
    announced("GCP preemption", "metadata server: `instance/preempted` is TRUE", preempted),
    announced("Azure scheduled event with a date", "metadata server: `Preempt` of this machine in 20 s", azure_dated),
    announced(
        "pod deleted, preStop hook takes its time",
        "API server: `deletionTimestamp` in 20 s, no SIGTERM",
        deleted,
    ),
    announced("API-initiated eviction", "API server: `DisruptionTarget`; SIGTERM 1 s after the save", evicted),
    announced("SIGTERM", "kill", || by_signal(Signal::SIGTERM, &[])),
    announced("SIGTERM in the middle of a save", "kill while a requested save uploads", sigterm_in_mid_save),
    announced("SIGINT as stop signal", "kill, with `--stop-signal SIGINT`", || {
        by_signal(Signal::SIGINT, &["--stop-signal", "SIGINT"])
    }),
    announced("request to save and stop", "`revenant checkpoint --stop` by exec", stopped_by_request),
    announced("HTTP request to save and stop", "`POST /checkpoint?stop=true` with the token", stopped_by_http),
    warning("EC2 rebalance recommendation", "metadata server: `events/recommendations/rebalance`", rebalance),
    warning("Azure scheduled event without a date", "metadata server: `Reboot` of this machine", azure),
    warning("GCP host maintenance", "metadata server: `TERMINATE_ON_HOST_MAINTENANCE`", maintained),
    warning("node cordoned", "API server: `spec.unschedulable`", || {
        by_node(|node| node["spec"] = json!({"unschedulable": true}), "cordoned")
    }),
    warning("node tainted by the autoscaler", "API server: taint `ToBeDeletedByClusterAutoscaler`", || {
        by_node(|node| taint(node, "ToBeDeletedByClusterAutoscaler", "NoSchedule"), "taint")
    }),
    warning("node taken away by Karpenter", "API server: taint `karpenter.sh/disrupted`", || {
        by_node(|node| taint(node, "karpenter.sh/disrupted", "NoSchedule"), "taint")
    }),
    warning("node out of service", "API server: taint `node.kubernetes.io/out-of-service`", || {
        by_node(|node| taint(node, "node.kubernetes.io/out-of-service", "NoExecute"), "taint")
    }),
    warning("node under pressure", "API server: condition `MemoryPressure`", || {
        by_node(|node| condition(node, "MemoryPressure", "True", "kubelet has insufficient memory available"), "says")
    }),
    warning("node shutting down", "API server: `Ready` is False, `node is shutting down`", || {
        by_node(|node| condition(node, "Ready", "False", "node is shutting down"), "shutting down")
    }),
    warning(
        "memory near the container's limit",
        "a workload that grows to 72 % of a real limit, threshold 70 %",
        memory,
    ),
    warning(
        "the kernel can free next to nothing",
        "the same as for stalls; version 1's `memory.pressure_level`",
        squeezed,
    ),
    warning(
        "memory of the node",
        "a workload that takes memory until the real node has 768 MiB less; `--eviction-memory` to match",
        memory_of_the_node,
    ),
    warning("disk full", "a workload that fills a real tmpfs of 64 MiB as spool", disk),
    warning("inodes used up", "a workload that makes 1900 files on a tmpfs for 2000", inodes),
    warning(
        "processes and threads near the limit",
        "a workload that begins 175 threads under a real limit of 200",
        pids,
    ),
    warning("SIGUSR1", "kill", || warned(&[], |running, _| running.signal(Signal::SIGUSR1))),
    warning("request to save", "`revenant checkpoint` by exec", || {
        warned(&[], |running, _| assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0))
    }),
    warning("HTTP request to save", "`POST /checkpoint` with the token", asked_by_http),
    warning("touched file", "`--trigger-file`", || {
        warned(&["--trigger-file", "/control/save"], |_, folder| {
            std::fs::write(folder.path().join("save"), "").unwrap()
        })
    }),
    warning("annotation", "downward API file: `revenant.dev/checkpoint` changes", || {
        let job = Job::new();
        let file = job.folder.path().join("annotations");
        // The kubelet writes it before the container starts.
        std::fs::write(&file, "a=\"b\"\n").unwrap();
        let first = job.counter(&["--annotations", "/control/annotations"]);
        std::fs::write(&file, "revenant.dev/checkpoint=\"now\"\n").unwrap();
        job.saved(&first)
    }),
    unannounced("SIGKILL of the container, lost node", "kill of PID 1 between two saves", || killed(false)),
    unannounced("SIGKILL in the middle of a save", "kill of PID 1 as a save begins", || killed(true)),
    unannounced("OOM kill of the workload", "a workload that grows beyond a real limit", oom_of_the_workload),
    unannounced(
        "OOM kill of the whole container",
        "a workload that grows beyond a real limit, PID 1 the kernel's first choice (`oom_score_adj` 1000)",
        oom_of_all,
    ),
];
