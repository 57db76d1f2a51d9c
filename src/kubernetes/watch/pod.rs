//! What the pod's own object says about its end.
//!
//! Fields: `metadata.deletionTimestamp` (the moment when the grace period ends), `status.conditions` of type
//! `DisruptionTarget` (<https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>),
//! `spec.terminationGracePeriodSeconds`, `status.containerStatuses[].lastState.terminated.reason`.

use crate::trigger::{Heard, Source, Trigger, Urgency};
use k8s_openapi::api::core::v1::Pod;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// Remembers what was told.
#[derive(Debug)]
pub struct Seen {
    node: Option<oneshot::Sender<String>>,
    grace: Option<i64>,
    killed_at: Option<SystemTime>,
    disrupted: bool,
    told_last: bool,
}

impl Seen {
    /// Nothing yet. The node's name goes to `node`.
    pub fn new(node: oneshot::Sender<String>) -> Self {
        Self { node: Some(node), grace: None, killed_at: None, disrupted: false, told_last: false }
    }

    /// What is new in this state of the pod.
    pub fn heard(&mut self, pod: &Pod) -> Vec<Heard> {
        let mut said = Vec::new();
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        if let (Some(name), Some(node)) = (spec.and_then(|spec| spec.node_name.clone()), self.node.take()) {
            // Nobody waits for it when it was known before.
            let _ = node.send(name);
        }
        let grace = spec.and_then(|spec| spec.termination_grace_period_seconds);
        if let Some(seconds) = grace.filter(|_| self.grace != grace) {
            self.grace = grace;
            said.push(Heard::Grace { period: Duration::from_secs(seconds.try_into().unwrap_or(0)) });
        }
        if !std::mem::replace(&mut self.told_last, true) && was_out_of_memory(pod) {
            let message = "Kubernetes says that the container before this one was killed for want of memory (OOMKilled); \
                           raise the pod's memory limit";
            said.push(Heard::Note { message: message.to_owned() });
        }
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let disruption =
            conditions.iter().find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
        let why = disruption.and_then(|condition| condition.reason.as_deref());
        let deleted = pod
            .metadata
            .deletion_timestamp
            .as_ref()
            .and_then(|time| humantime::parse_rfc3339_weak(&time.0.to_string()).ok());
        if deleted.is_some() && self.killed_at != deleted {
            self.killed_at = deleted;
            said.extend(deleted.map(|at| Heard::KilledAt { at }));
            let reason = why.map_or_else(
                || "the pod is being deleted".to_owned(),
                |why| format!("the pod is being deleted ({why})"),
            );
            said.push(trigger(reason, deleted));
            self.disrupted = true;
        } else if disruption.is_some() && !std::mem::replace(&mut self.disrupted, true) {
            said.push(trigger(format!("the pod is about to be deleted ({})", why.unwrap_or("DisruptionTarget")), None));
        }
        said
    }
}

fn trigger(reason: String, deadline: Option<SystemTime>) -> Heard {
    Heard::Trigger(Trigger { source: Source::Pod, urgency: Urgency::Now, reason, deadline })
}

fn was_out_of_memory(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ended = statuses.iter().filter_map(|status| status.last_state.as_ref()?.terminated.as_ref()?.reason.as_deref());
    ended.into_iter().any(|reason| reason == "OOMKilled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tells_each_thing_once() {
        let (named, mut node) = oneshot::channel();
        let mut seen = Seen::new(named);
        let mut pod = json!({
            "metadata": {"name": "p", "resourceVersion": "1"},
            "spec": {"containers": [], "nodeName": "node-7", "terminationGracePeriodSeconds": 120},
            "status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
        });
        let mut look = |pod: &serde_json::Value| seen.heard(&serde_json::from_value(pod.clone()).unwrap());
        let said = look(&pod);
        assert_eq!(said[0], Heard::Grace { period: Duration::from_secs(120) });
        assert!(matches!(&said[1], Heard::Note { message } if message.contains("OOMKilled")));
        assert_eq!((said.len(), node.try_recv().as_deref()), (2, Ok("node-7")));
        assert_eq!(look(&pod), []);

        pod["status"]["conditions"] =
            json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
        let said = look(&pod);
        assert!(
            matches!(&said[..], [Heard::Trigger(trigger)] if trigger.reason.contains("PreemptionByScheduler") && trigger.deadline.is_none())
        );

        pod["metadata"]["deletionTimestamp"] = json!("2026-03-01T10:00:30Z");
        let said = look(&pod);
        let at = humantime::parse_rfc3339("2026-03-01T10:00:30Z").unwrap();
        assert_eq!(said[0], Heard::KilledAt { at });
        assert!(matches!(&said[1], Heard::Trigger(trigger) if trigger.deadline == Some(at)));
        assert_eq!(look(&pod), []);
    }
}
