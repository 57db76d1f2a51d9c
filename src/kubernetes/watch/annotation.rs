//! The newest checkpoint as an annotation of the pod, so that `kubectl get pods` can show it, and a controller read it:
//!
//! `kubectl get pods -o custom-columns='NAME:.metadata.name,SAVED:.metadata.annotations.revenant\.dev/last-checkpoint'`
//!
//! A merge patch (RFC 7386) of the pod's own object. The right to patch pods is not to be had for one's own pod alone,
//! so it is optional: deploy/rbac.yaml.

use super::client::Cluster;
use crate::job::Generation;
use kube::api::{Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::SystemTime;

/// The annotation.
pub const NAME: &str = "revenant.dev/last-checkpoint";

/// A durable checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which.
    pub generation: Generation,
    /// When it was taken.
    pub at: SystemTime,
}

/// Annotates the pod. A failure is for the caller to judge.
pub async fn put(cluster: &Cluster, checkpoint: &Checkpoint) -> Result<(), kube::Error> {
    cluster.pods().patch(&cluster.pod, &PatchParams::default(), &Patch::Merge(patch(checkpoint))).await.map(drop)
}

/// `2-1 2026-03-01T10:00:30Z`: the generation as `revenant list` names it, and the moment.
fn patch(Checkpoint { generation, at }: &Checkpoint) -> Value {
    let value = format!("{generation} {}", humantime::format_rfc3339_seconds(*at));
    json!({"metadata": {"annotations": {NAME: value}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_nothing_but_its_own_annotation() {
        let at = humantime::parse_rfc3339("2026-03-01T10:00:30Z").unwrap();
        let checkpoint = Checkpoint { generation: "2-1".parse().unwrap(), at };
        let expected = r#"{"metadata":{"annotations":{"revenant.dev/last-checkpoint":"2-1 2026-03-01T10:00:30Z"}}}"#;
        assert_eq!(patch(&checkpoint).to_string(), expected);
    }
}
