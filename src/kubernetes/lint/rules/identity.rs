//! Whether the next pod knows that it is the same job.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload, has_variable, option, shows_revenant};
use k8s_openapi::api::core::v1::Container;

fn named(container: &Container) -> bool {
    has_variable(container, "REVENANT_JOB") || option(container, "--job").is_some()
}

/// Pods with random names, and no name for the job.
pub fn unstable(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    if matches!(workload.kind.as_str(), "StatefulSet" | "Pod" | "Job") {
        // Stable names, or one that revenant derives.
        return Vec::new();
    }
    let look = |(place, _): (usize, &Container)| {
        workload.finding("job-without-name", Danger::Fatal, workload.container_field(place, "env")).says(
            format!("pods of a {} have random names, and REVENANT_JOB is not set", workload.kind),
            "the next pod looks for checkpoints under another name, finds none and starts from nothing",
            "set REVENANT_JOB to a name of its own, or use a StatefulSet or a Job",
        )
    };
    let ours = workload.containers().filter(|(_, container)| shows_revenant(container) && !named(container));
    ours.map(look).collect()
}

/// Several pods under one name.
pub fn shared(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    if workload.replicas < 2 {
        return Vec::new();
    }
    let fixed = |container: &Container| {
        let written = container.env.iter().flatten().find(|variable| variable.name == "REVENANT_JOB");
        // `$(POD_NAME)` and the like differ from pod to pod.
        written.and_then(|variable| variable.value.as_ref()).is_some_and(|value| !value.contains("$("))
            || option(container, "--job").is_some_and(|value| !value.contains("$("))
    };
    let look = |(place, _): (usize, &Container)| {
        workload.finding("job-name-shared", Danger::Fatal, workload.container_field(place, "env")).says(
            format!("{} pods have the same REVENANT_JOB", workload.replicas),
            "one writer per job: all pods but one end with code 203, job in use",
            "run one pod, or make the name differ, for example `value: assembly-$(POD_NAME)` in a StatefulSet",
        )
    };
    workload.containers().filter(|(_, container)| fixed(container)).map(look).collect()
}
