//! Which nodes a workload is for.

use super::answers::{Answers, Kind, Tier};
use super::yaml::quoted;

/// The nodes that a pod may use or would rather use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// High-memory nodes only.
    HighMemory,
    /// Rather others, and when memory runs out there, the Job for high-memory nodes continues.
    OrdinaryFirst,
    /// High-memory nodes where there is room.
    HighMemoryRather,
    /// Rather others, always.
    Ordinary,
}

impl Nodes {
    /// Where the workload starts. Only Jobs come in pairs: a second `StatefulSet` would have volumes of its own, and each
    /// run of a `CronJob` is a new Job.
    pub fn at_first(answers: &Answers) -> Self {
        match (answers.tier, answers.kind) {
            (Tier::Critical, _) => Self::HighMemory,
            (Tier::Standard, Kind::Job) => Self::OrdinaryFirst,
            (Tier::Standard, _) => Self::HighMemoryRather,
            (Tier::Short, _) => Self::Ordinary,
        }
    }

    /// `nodeAffinity`, as a field of `affinity`.
    pub fn affinity(self, answers: &Answers) -> String {
        let (name, value) = label(answers);
        let node = |operator| format!("matchExpressions: [{{key: {name}, operator: {operator}, values: [{value}]}}]");
        let rather = |why: &str, operator| {
            format!(
                "nodeAffinity:\n  # {why}\n  preferredDuringSchedulingIgnoredDuringExecution:\n    - weight: 100\n      preference:\n        {}\n",
                node(operator)
            )
        };
        match self {
            Self::HighMemory => format!(
                "nodeAffinity:\n  # Only high-memory nodes.\n  requiredDuringSchedulingIgnoredDuringExecution:\n    nodeSelectorTerms:\n      - {}\n",
                node("In")
            ),
            Self::OrdinaryFirst => {
                rather("Ordinary nodes first; after running out of memory, the Job below continues.", "NotIn")
            }
            Self::HighMemoryRather => {
                rather("High-memory nodes where there is room: after an eviction for memory it continues there.", "In")
            }
            Self::Ordinary => rather("Leave high-memory nodes to long runs.", "NotIn"),
        }
    }

    /// For nodes that are kept free for such workloads.
    pub fn tolerations(self, answers: &Answers) -> String {
        let (name, value) = label(answers);
        match self {
            Self::HighMemory => format!(
                "tolerations:\n  # If those nodes are kept free by a taint of the same name.\n  - {{key: {name}, operator: Equal, value: {value}, effect: NoSchedule}}\n"
            ),
            _ => String::new(),
        }
    }
}

fn label(answers: &Answers) -> (String, String) {
    let (name, value) = answers.high_memory_label.split_once('=').unwrap_or(("", ""));
    (quoted(name), quoted(value))
}

/// The Job that continues on high-memory nodes.
pub fn promoted_name(answers: &Answers) -> String {
    format!("{}-high-memory", answers.name)
}
