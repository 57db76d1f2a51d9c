//! What the node's object says about its future: conditions, taints, cordon.
//!
//! Names: <https://kubernetes.io/docs/reference/labels-annotations-taints/>, the cluster autoscaler's
//! `ToBeDeletedByClusterAutoscaler`, Karpenter's `karpenter.sh/disrupted` (before v1: `karpenter.sh/disruption`), GKE's
//! `cloud.google.com/impending-node-termination`, the AWS node termination handler's `aws-node-termination-handler/…`.

use crate::trigger::{Heard, Source, Trigger, Urgency};
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;

/// Taints that say that the node goes, or that pods have to.
const TAINTS: [&str; 11] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/out-of-service",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/pid-pressure",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "cloud.google.com/impending-node-termination",
    "aws-node-termination-handler/",
];

/// Remembers what was so before.
#[derive(Debug, Default)]
pub struct Seen {
    before: Option<BTreeMap<String, (Urgency, String)>>,
}

impl Seen {
    /// What is new in this state of the node. What was so before the pod came is no news: it tolerates it.
    pub fn heard(&mut self, node: &Node) -> Vec<Heard> {
        let now = reasons(node);
        let before = self.before.replace(now.clone());
        let Some(before) = before else { return Vec::new() };
        let over = !before.is_empty() && now.is_empty();
        let new = now.into_iter().filter(|(key, _)| !before.contains_key(key));
        // One save answers all that has come at once: the most urgent speaks.
        let said = new.map(|(_, (urgency, reason))| (urgency, reason)).max();
        match said {
            Some((urgency, reason)) => {
                vec![Heard::Trigger(Trigger { source: Source::Node, urgency, reason, deadline: None })]
            }
            None if over => vec![Heard::Withdrawn { source: Source::Node }],
            None => Vec::new(),
        }
    }
}

/// Everything about this node that is a reason to save, by a name of its own.
fn reasons(node: &Node) -> BTreeMap<String, (Urgency, String)> {
    let mut found = BTreeMap::new();
    let spec = node.spec.as_ref();
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        found.insert("cordon".to_owned(), (Urgency::Now, "the node was cordoned".to_owned()));
    }
    for taint in spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default() {
        let known = TAINTS.iter().any(|name| taint.key == *name || name.ends_with('/') && taint.key.starts_with(name));
        if known || taint.effect == "NoExecute" {
            found.insert(
                format!("taint {}", taint.key),
                (Urgency::Now, format!("the node has got the taint {}", taint.key)),
            );
        }
    }
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    for condition in conditions {
        let message = condition.message.as_deref().unwrap_or_default();
        let said = match (condition.type_.as_str(), condition.status.as_str()) {
            ("MemoryPressure" | "DiskPressure" | "PIDPressure", "True") => {
                (Urgency::Pressing, format!("the node says {}", condition.type_))
            }
            // The kubelet's words at a graceful node shutdown: "node is shutting down".
            ("Ready", "False") if message.contains("shutting down") => {
                (Urgency::Now, "the node is shutting down".to_owned())
            }
            ("Ready", "False" | "Unknown") => (Urgency::Now, format!("the node is not ready ({message})")),
            _ => continue,
        };
        found.insert(format!("condition {}", condition.type_), said);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[allow(clippy::needless_pass_by_value)] // Written in place by each test.
    fn node(spec: Value, conditions: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn reason(said: &[Heard]) -> Option<(Urgency, String)> {
        match said {
            [Heard::Trigger(trigger)] => Some((trigger.urgency, trigger.reason.clone())),
            _ => None,
        }
    }

    #[test]
    fn only_news_is_news() {
        let mut seen = Seen::default();
        let old = json!([{"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]);
        assert_eq!(seen.heard(&node(json!({"taints": old}), json!([]))), []);
        let cordoned = node(json!({"taints": old, "unschedulable": true}), json!([]));
        assert_eq!(reason(&seen.heard(&cordoned)), Some((Urgency::Now, "the node was cordoned".to_owned())));
        assert_eq!(seen.heard(&cordoned), []);
        assert_eq!(seen.heard(&node(json!({}), json!([]))), [Heard::Withdrawn { source: Source::Node }]);
    }

    #[test]
    fn knows_taints_and_conditions_that_matter() {
        let news = |spec: Value, conditions: Value| {
            let mut seen = Seen::default();
            seen.heard(&node(json!({}), json!([])));
            reason(&seen.heard(&node(spec, conditions))).map(|(urgency, _)| urgency)
        };
        let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "effect": effect}]});
        assert_eq!(news(taint("karpenter.sh/disrupted", "NoSchedule"), json!([])), Some(Urgency::Now));
        assert_eq!(news(taint("aws-node-termination-handler/spot-itn", "NoSchedule"), json!([])), Some(Urgency::Now));
        assert_eq!(news(taint("example.com/drain", "NoExecute"), json!([])), Some(Urgency::Now));
        assert_eq!(news(taint("example.com/gpu", "NoSchedule"), json!([])), None);
        let condition =
            |kind: &str, status: &str, message: &str| json!([{"type": kind, "status": status, "message": message}]);
        assert_eq!(news(json!({}), condition("MemoryPressure", "True", "")), Some(Urgency::Pressing));
        assert_eq!(news(json!({}), condition("Ready", "False", "node is shutting down")), Some(Urgency::Now));
        assert_eq!(news(json!({}), condition("Ready", "True", "kubelet is posting ready status")), None);
    }
}
