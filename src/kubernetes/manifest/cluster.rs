//! What stands around the workload: priority, rights, protection from evictions.

use super::answers::{Answers, Tier};
use super::nodes::{Nodes, promoted_name};
use super::yaml::comment;

/// The class of a tier; clusters share it between jobs.
pub fn priority_class_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Critical => "long-job-critical",
        Tier::Standard => "long-job",
        Tier::Short => "short-job",
    }
}

pub fn priority_class(answers: &Answers) -> String {
    let (value, preempts, why) = match answers.tier {
        Tier::Critical => (1_000_000, "PreemptLowerPriority", "Months of work: others make room."),
        Tier::Standard => (100_000, "PreemptLowerPriority", "Short jobs make room for it, critical ones do not."),
        Tier::Short => (1_000, "Never", "Waits for room instead of taking it, and yields to long runs."),
    };
    format!(
        "{}apiVersion: scheduling.k8s.io/v1\n\
         kind: PriorityClass\n\
         metadata:\n  name: {}\n\
         value: {value}\n\
         preemptionPolicy: {preempts}\n",
        comment(why),
        priority_class_name(answers.tier),
    )
}

/// revenant works without any of these rights; with them it learns of evictions before SIGTERM, and
/// writes its saves and restores into the pod's events.
pub fn service_account(answers: &Answers) -> String {
    let name = &answers.name;
    let promotes = match Nodes::at_first(answers) {
        Nodes::OrdinaryFirst => format!(
            "  # How the job's earlier pods have ended; putting this Job to rest and waking the one for high-memory nodes.\n\
             \x20 - {{apiGroups: [\"\"], resources: [pods], verbs: [list]}}\n\
             \x20 - {{apiGroups: [batch], resources: [jobs], resourceNames: [{name}, {}], verbs: [patch]}}\n",
            promoted_name(answers)
        ),
        _ => String::new(),
    };
    format!(
        "# The least that revenant can use. All of it is optional: without, SIGTERM is its first notice.\n\
         apiVersion: v1\n\
         kind: ServiceAccount\n\
         metadata:\n  name: {name}\n\
         ---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: Role\n\
         metadata:\n  name: {name}\n\
         rules:\n\
         \x20 # Its own pod's deletion and disruption notices.\n\
         \x20 - {{apiGroups: [\"\"], resources: [pods], verbs: [get, watch]}}\n\
         \x20 # Checkpointed, Restored, CheckpointFailed, as `kubectl describe pod` shows them.\n\
         \x20 - {{apiGroups: [\"\"], resources: [events], verbs: [create]}}\n\
         {promotes}\
         ---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: RoleBinding\n\
         metadata:\n  name: {name}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}\n\
         subjects:\n\
         \x20 - {{kind: ServiceAccount, name: {name}}}\n\
         # To hear of the node's pressure, taints and cordon too, bind deploy/rbac.yaml's cluster role revenant-node.\n"
    )
}

pub fn disruption_budget(answers: &Answers) -> String {
    if answers.tier == Tier::Short {
        // It is meant to yield.
        return String::new();
    }
    format!(
        "# No voluntary eviction: a drain waits until somebody decides. Deleting the pod still works, and loses nothing.\n\
         apiVersion: policy/v1\n\
         kind: PodDisruptionBudget\n\
         metadata:\n  name: {name}\n\
         spec:\n\
         \x20 maxUnavailable: 0\n\
         \x20 selector:\n    matchLabels: {{app.kubernetes.io/instance: {name}}}\n",
        name = answers.name
    )
}
