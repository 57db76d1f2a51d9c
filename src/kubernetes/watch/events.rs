//! Events on the pod, so that `kubectl describe pod` tells its checkpoints.

use super::client::Cluster;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use serde::{Deserialize, Serialize};

/// The longest message that the API server takes, in bytes.
const LONGEST: usize = 1024;

/// What happened to the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    /// A checkpoint is durable.
    Checkpointed,
    /// It continued from one.
    Restored,
    /// A save failed.
    CheckpointFailed,
}

impl Happening {
    fn reason(self) -> &'static str {
        match self {
            Self::Checkpointed => "Checkpointed",
            Self::Restored => "Restored",
            Self::CheckpointFailed => "CheckpointFailed",
        }
    }
}

/// Puts an event on the pod. A failure is for the caller to tell once.
pub async fn post(
    cluster: &Cluster,
    uid: Option<&str>,
    happening: Happening,
    message: &str,
) -> Result<(), kube::Error> {
    let event = event(cluster.namespace(), &cluster.pod, uid, happening, message, Timestamp::now());
    cluster.events().create(&PostParams::default(), &event).await.map(drop)
}

fn event(namespace: &str, pod: &str, uid: Option<&str>, happening: Happening, message: &str, at: Timestamp) -> Event {
    let cut = (0..=LONGEST.min(message.len())).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    let kind = if happening == Happening::CheckpointFailed { "Warning" } else { "Normal" };
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{pod}.")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: uid.map(ToOwned::to_owned),
            ..ObjectReference::default()
        },
        reason: Some(happening.reason().to_owned()),
        message: Some(message[..cut].to_owned()),
        type_: Some(kind.to_owned()),
        source: Some(EventSource { component: Some("revenant".to_owned()), host: None }),
        first_timestamp: Some(Time(at)),
        last_timestamp: Some(Time(at)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_pods_and_never_too_long() {
        let long = "ä".repeat(2000);
        let event = event("jobs", "assembly-0", Some("u-1"), Happening::CheckpointFailed, &long, Timestamp::now());
        assert_eq!(event.involved_object.name.as_deref(), Some("assembly-0"));
        assert_eq!((event.reason.as_deref(), event.type_.as_deref()), (Some("CheckpointFailed"), Some("Warning")));
        assert!(event.message.unwrap().len() <= LONGEST);
    }
}
