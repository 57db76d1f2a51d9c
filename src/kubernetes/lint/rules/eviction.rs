//! Who is chosen when room is needed.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload, selects};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Preempted by everything.
pub fn priority(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    if workload.pod.priority_class_name.is_some() {
        return Vec::new();
    }
    let finding = workload.finding("no-priority", Danger::Costly, workload.field("priorityClassName"));
    vec![finding.says(
        "the pod has no priority class",
        "any pod with a priority may take its place when the cluster is full",
        "make a PriorityClass for long jobs and name it here; `revenant manifest` writes one",
    )]
}

/// Drained like anything else.
pub fn budget(workload: &Workload, manifests: &Manifests) -> Vec<Finding> {
    let labels = workload.labels();
    let protects = |budget: &k8s_openapi::api::policy::v1::PodDisruptionBudget| {
        let Some(spec) = &budget.spec else { return false };
        let none_may_go = spec.max_unavailable == Some(IntOrString::Int(0))
            || spec.max_unavailable == Some(IntOrString::String("0%".into()))
            || spec.min_available == Some(IntOrString::String("100%".into()))
            || spec.min_available.as_ref().is_some_and(|least| *least == IntOrString::Int(workload.replicas.max(1)));
        none_may_go && spec.selector.as_ref().is_some_and(|selector| selects(selector, &labels))
    };
    if manifests.budgets.iter().any(protects) {
        return Vec::new();
    }
    let finding = workload.finding("no-disruption-budget", Danger::Costly, "metadata.labels".into());
    vec![finding.says(
        "no PodDisruptionBudget in these files protects the pod",
        "`kubectl drain` and autoscalers evict it whenever it suits them",
        "add a PodDisruptionBudget with `maxUnavailable: 0` that selects its labels",
    )]
}

/// Moved to save money.
pub fn autoscaler(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    const KEEP: [(&str, &str); 2] =
        [("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"), ("karpenter.sh/do-not-disrupt", "true")];
    let annotations = workload.metadata.annotations.clone().unwrap_or_default();
    let missing: Vec<String> = KEEP
        .iter()
        .filter(|(name, value)| annotations.get(*name).map(String::as_str) != Some(value))
        .map(|(name, value)| format!("`{name}: \"{value}\"`"))
        .collect();
    if missing.len() < KEEP.len() {
        return Vec::new();
    }
    let finding = workload.finding("autoscaler", Danger::Advice, "metadata.annotations".into());
    vec![finding.says(
        "nothing tells an autoscaler to leave the pod where it is",
        "scaling down moves it, which costs a save and a restore each time",
        format!("annotate the pod template with {}", missing.join(" and ")),
    )]
}
