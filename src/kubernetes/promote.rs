//! A job that has run out of memory moves to larger nodes.
//!
//! A pod's template cannot be changed once its Job exists. So there are two Jobs of one lineage of checkpoints, as
//! `revenant manifest --tier standard` writes them: one for ordinary nodes, and one for high-memory nodes at rest
//! (`parallelism: 0`). Before each pod of the first one begins, an init container looks how the earlier ones have ended;
//! if memory was the reason, it wakes the second and puts the first to rest. What Kubernetes calls the reason is all that
//! counts, so it makes no difference who was killed: the command, the whole container, or the pod by its node.
//!
//! The second is woken first: should the rest fail, the next pod tries again, and claims keep one writer.

use super::watch::client::Cluster;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

/// A pod that has ended for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RanOut {
    /// Its name.
    pub pod: String,
    /// How, as Kubernetes says it.
    pub how: String,
}

/// What became of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// No pod of it has run out of memory: it begins here.
    Here,
    /// The other Job continues it.
    Moved {
        /// The Job that now rests.
        from: String,
        /// Why.
        because: RanOut,
    },
}

/// Wakes the Job `to` if a pod of this pod's Job has run out of memory; `container` is the one that counts.
pub async fn promote(cluster: &Cluster, to: &str, container: &str) -> Result<Placed, String> {
    let own: Pod = read(&cluster.pods().get(&cluster.pod).await.map_err(|error| error.to_string())?)?;
    let Some(job) = job_of(&own) else {
        return Err(format!("the pod {} is not a Job's", cluster.pod));
    };
    let of_job = ListParams::default().labels(&format!("job-name={job}"));
    let found = cluster.pods().list(&of_job).await.map_err(|error| error.to_string())?;
    let pods = found.items.iter().map(read).collect::<Result<Vec<Pod>, _>>()?;
    let Some(because) = pods.iter().find_map(|pod| ran_out(pod, container)) else {
        return Ok(Placed::Here);
    };
    for (name, parallelism) in [(to, 1), (job.as_str(), 0)] {
        let patch = Patch::Merge(json!({"spec": {"parallelism": parallelism}}));
        let patched = cluster.jobs().patch(name, &PatchParams::default(), &patch).await;
        patched.map_err(|error| format!("Job {name}: {error}"))?;
    }
    Ok(Placed::Moved { from: job, because })
}

/// As JSON and from there, as `watch` does: see there.
fn read(object: &kube::api::DynamicObject) -> Result<Pod, String> {
    serde_json::to_value(object).and_then(serde_json::from_value).map_err(|error| error.to_string())
}

fn job_of(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.kind == "Job").map(|owner| owner.name.clone())
}

/// The kubelet's words: reason `Evicted`, `The node was low on resource: memory. …`; reason `OOMKilled`.
fn ran_out(pod: &Pod, container: &str) -> Option<RanOut> {
    let status = pod.status.as_ref()?;
    let message = status.message.as_deref().unwrap_or_default();
    let evicted = status.reason.as_deref() == Some("Evicted") && message.contains("resource: memory");
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let killed = containers.iter().filter(|status| status.name == container).any(out_of_memory);
    let how = if evicted {
        format!("evicted ({})", message.trim())
    } else if killed {
        "OOMKilled".to_owned()
    } else {
        return None;
    };
    Some(RanOut { pod: pod.metadata.name.clone().unwrap_or_default(), how })
}

fn out_of_memory(status: &ContainerStatus) -> bool {
    let ends = [&status.state, &status.last_state].into_iter().flatten().filter_map(|state| state.terminated.as_ref());
    ends.into_iter().any(|end| end.reason.as_deref() == Some("OOMKilled"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[allow(clippy::needless_pass_by_value)] // Written in place by each test.
    fn pod(status: Value) -> Pod {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "soil-7", "uid": "u-1"});
        serde_json::from_value(json!({"metadata": {"name": "soil-7-x", "ownerReferences": [owner]}, "status": status}))
            .unwrap()
    }

    fn ended(name: &str, reason: &str) -> Value {
        json!({"containerStatuses": [{"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "reason": reason}}}]})
    }

    #[test]
    fn memory_is_a_reason_and_nothing_else_is() {
        let how = |status| ran_out(&pod(status), "job").map(|found| found.how);
        assert_eq!(how(ended("job", "OOMKilled")).as_deref(), Some("OOMKilled"));
        assert_eq!(how(ended("job", "Error")), None);
        assert_eq!(how(ended("side-car", "OOMKilled")), None);
        let evicted = |what: &str| json!({"phase": "Failed", "reason": "Evicted", "message": format!("The node was low on resource: {what}. ")});
        assert_eq!(how(evicted("memory")).as_deref(), Some("evicted (The node was low on resource: memory.)"));
        assert_eq!(how(evicted("ephemeral-storage")), None);
        assert_eq!(how(json!({"phase": "Running"})), None);
    }

    #[test]
    fn a_pod_knows_its_job() {
        assert_eq!(job_of(&pod(json!({}))).as_deref(), Some("soil-7"));
        assert_eq!(job_of(&Pod::default()), None);
    }
}
