//! What the kernel and the kubelet kill for.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn limit<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(name)
}

fn request<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    container.resources.as_ref()?.requests.as_ref()?.get(name)
}

/// One spike, and the kernel kills.
pub fn memory_limit(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let limited = workload.ours().into_iter().filter_map(|(place, one)| Some((place, limit(one, "memory")?)));
    limited
        .map(|(place, limit)| {
            let field = workload.container_field(place, "resources.limits.memory");
            workload.finding("memory-limit", Danger::Costly, field).says(
                format!("memory is limited to {}", limit.0),
                "an assembly's last phase may need more than all before: the kernel kills it without notice, and it dies \
                 at the same place after each restore",
                "for a long run set no limit but a request of 1.5 times the expected peak, so that eviction takes others \
                 first; for short jobs a limit of 1.2 times is right",
            )
        })
        .collect()
}

/// Without a request a pod is the first to be evicted.
pub fn memory_request(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let without = workload
        .ours()
        .into_iter()
        .filter(|(_, one)| request(one, "memory").is_none() && limit(one, "memory").is_none());
    without
        .map(|(place, _)| {
            let field = workload.container_field(place, "resources.requests.memory");
            workload.finding("memory-request", Danger::Fatal, field).says(
                "no memory is requested",
                "under memory pressure the kubelet evicts first what uses more than it requested, and that is this pod \
                 from its first byte on; hard evictions come without notice",
                "request 1.5 times the expected peak: `resources: {requests: {memory: …}}`",
            )
        })
        .collect()
}

/// Slowed down for nothing.
pub fn cpu_limit(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let limited = workload.ours().into_iter().filter_map(|(place, one)| Some((place, limit(one, "cpu")?)));
    limited
        .map(|(place, limit)| {
            let field = workload.container_field(place, "resources.limits.cpu");
            workload.finding("cpu-limit", Danger::Costly, field).says(
                format!("CPU is limited to {}", limit.0),
                "idle cores of the node stay idle, and a save under a limit is throttled while its deadline runs",
                "remove the limit and request 1.5 times the expected use",
            )
        })
        .collect()
}

/// Killed at once for a full disk.
pub fn ephemeral_storage(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, container) in workload.ours() {
        if let Some(limit) = limit(container, "ephemeral-storage") {
            let field = workload.container_field(place, "resources.limits.ephemeral-storage");
            findings.push(workload.finding("ephemeral-storage-limit", Danger::Costly, field).says(
                format!("ephemeral storage is limited to {}", limit.0),
                "a pod above it is killed at once, without SIGTERM; temporary files of assemblers are large",
                "put temporary files on a volume, and remove the limit or set it far above",
            ));
        }
    }
    for (number, volume) in workload.pod.volumes.iter().flatten().enumerate() {
        if let Some(limit) = volume.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref()) {
            let field = workload.field(&format!("volumes[{number}].emptyDir.sizeLimit"));
            findings.push(workload.finding("empty-dir-limit", Danger::Costly, field).says(
                format!("emptyDir {} is limited to {}", volume.name, limit.0),
                "a pod above it is killed at once, without SIGTERM",
                "use a claim, or make the limit several times what is expected",
            ));
        }
    }
    findings
}
