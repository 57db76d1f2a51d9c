//! What CRIU needs of the kernel.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload, has_variable, option, shows_revenant};
use k8s_openapi::api::core::v1::Container;

/// Any seccomp filter on CRIU makes a dump impossible.
pub fn seccomp(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let of_pod = workload.pod.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let look = |(place, container): (usize, &Container)| {
        let context = container.security_context.as_ref();
        if context.and_then(|context| context.privileged) == Some(true) {
            return None;
        }
        let profile = context.and_then(|context| context.seccomp_profile.as_ref()).or(of_pod);
        let field = workload.container_field(place, "securityContext.seccompProfile");
        let fix = "write `securityContext: {seccompProfile: {type: Unconfined}}` for this container";
        match profile.map(|profile| profile.type_.as_str()) {
            Some("Unconfined") => None,
            Some(other) => Some(workload.finding("seccomp-filter", Danger::Fatal, field).says(
                format!("the seccomp profile is {other}"),
                "CRIU cannot save a process under any filter: `suspending seccomp failed: Operation not permitted`",
                fix,
            )),
            None => Some(workload.finding("seccomp-unset", Danger::Costly, field).says(
                "no seccomp profile is named",
                "a cluster may set RuntimeDefault for all pods, and then nothing can be saved",
                fix,
            )),
        }
    };
    workload.ours().into_iter().filter_map(look).collect()
}

/// What the container may do: capabilities that it adds, and those of the runtime's defaults that it keeps.
fn has(container: &Container, name: &str, by_default: bool) -> bool {
    let context = container.security_context.as_ref();
    if context.and_then(|context| context.privileged) == Some(true) {
        return true;
    }
    let capabilities = context.and_then(|context| context.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| {
        let named = |one: &String| {
            let one = one.trim_start_matches("CAP_");
            one.eq_ignore_ascii_case(name) || one.eq_ignore_ascii_case("ALL")
        };
        list.is_some_and(|list| list.iter().any(named))
    };
    names(capabilities.and_then(|capabilities| capabilities.add.as_ref()))
        || by_default && !names(capabilities.and_then(|capabilities| capabilities.drop.as_ref()))
}

/// Without `CHECKPOINT_RESTORE` nothing can be saved.
pub fn capabilities(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let look = |(place, container): (usize, &Container)| {
        let needed = [("CHECKPOINT_RESTORE", false), ("SYS_PTRACE", false), ("SETPCAP", true)];
        let missing: Vec<&str> = needed
            .into_iter()
            .filter(|(name, by_default)| !has(container, name, *by_default))
            .map(|(name, _)| name)
            .collect();
        // SYS_PTRACE alone is only needed for workloads of other users.
        let danger = if missing.iter().any(|name| *name != "SYS_PTRACE") { Danger::Fatal } else { Danger::Costly };
        (!missing.is_empty()).then(|| {
            let field = workload.container_field(place, "securityContext.capabilities.add");
            workload.finding("capabilities-missing", danger, field).says(
                format!("the container lacks {}", missing.join(" and ")),
                "CRIU can then neither save nor restore all that the workload holds; revenant refuses to start without it",
                format!("write `capabilities: {{add: [{}]}}`", missing.join(", ")),
            )
        })
    };
    // Where nothing shows revenant, that is what has to be said first.
    workload.containers().filter(|(_, container)| shows_revenant(container)).filter_map(look).collect()
}

/// Nodes that were booted later have a lower clock, and are refused.
pub fn clock(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let look = |(place, container): (usize, &Container)| {
        let decided = has_variable(container, "REVENANT_CLOCK") || option(container, "--clock").is_some();
        let kept = has(container, "SYS_ADMIN", false) && has(container, "SYS_TIME", false);
        (!decided && !kept).then(|| {
            let field = workload.container_field(place, "securityContext.capabilities.add");
            workload.finding("clock-not-kept", Danger::Costly, field).says(
                "the monotonic clock cannot be kept from node to node",
                "a node that was booted later than the one before is refused (code 202): the job waits for another node",
                "add SYS_ADMIN and SYS_TIME, or, for programs that do not wait for times, set REVENANT_CLOCK to best-effort",
            )
        })
    };
    workload.containers().filter(|(_, container)| shows_revenant(container)).filter_map(look).collect()
}

/// More than is needed.
pub fn privileged(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let privileged = workload.ours().into_iter().filter(|(_, container)| {
        container.security_context.as_ref().and_then(|context| context.privileged) == Some(true)
    });
    privileged
        .map(|(place, _)| {
            let field = workload.container_field(place, "securityContext.privileged");
            workload.finding("privileged", Danger::Advice, field).says(
                "the container is privileged",
                "revenant never needs that, and many clusters refuse it",
                "remove it, and write `capabilities: {add: [CHECKPOINT_RESTORE, SYS_PTRACE]}`",
            )
        })
        .collect()
}
