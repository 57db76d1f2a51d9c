//! Probes that kill what is only busy.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload};

/// A liveness probe that a restore, or a long freeze, does not survive.
pub fn liveness(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, container) in workload.ours() {
        let Some(probe) = &container.liveness_probe else { continue };
        if container.startup_probe.is_none() {
            let field = workload.container_field(place, "startupProbe");
            findings.push(workload.finding("liveness-without-startup", Danger::Fatal, field).says(
                "there is a liveness probe and no startup probe",
                "a restore of a large checkpoint takes minutes; the probe fails meanwhile, the container is killed, and \
                 the next restore meets the same end",
                "add `startupProbe: {exec: {command: [/opt/revenant/bin/revenant, status, --probe, startup]}, \
                 periodSeconds: 10, failureThreshold: 360}`",
            ));
        }
        let patience = probe.period_seconds.unwrap_or(10) * probe.failure_threshold.unwrap_or(3);
        let by_command = probe.exec.as_ref().and_then(|exec| exec.command.as_ref());
        let asks_us = by_command.is_some_and(|words| words.iter().any(|word| word.contains("revenant")))
            || probe.http_get.as_ref().is_some_and(|get| get.path.as_deref() == Some("/livez"));
        if !asks_us && patience < 300 {
            let field = workload.container_field(place, "livenessProbe");
            findings.push(workload.finding("liveness-impatient", Danger::Costly, field).says(
                format!("the liveness probe asks the workload itself, and kills after {patience} s without an answer"),
                "a workload is frozen while it is saved, and a busy one answers late",
                "ask revenant instead: `exec: {command: [/opt/revenant/bin/revenant, status, --probe, live]}`",
            ));
        }
    }
    findings
}
