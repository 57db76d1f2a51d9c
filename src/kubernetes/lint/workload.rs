//! What the manifests say, in the shape in which rules look at it.

use super::document::{Document, LintError};
use super::finding::{Danger, Finding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// All that was given.
#[derive(Debug, Default)]
pub struct Manifests {
    /// What runs pods.
    pub workloads: Vec<Workload>,
    /// What protects them from evictions.
    pub budgets: Vec<PodDisruptionBudget>,
}

/// Something that runs pods.
#[derive(Debug)]
pub struct Workload {
    /// The file.
    pub file: String,
    /// The line on which the document begins.
    pub line: usize,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Where the pod's specification lies in the document.
    pub pod_field: &'static str,
    /// Labels and annotations of its pods.
    pub metadata: ObjectMeta,
    /// The pod.
    pub pod: PodSpec,
    /// For `Job` and `CronJob`.
    pub job: Option<JobSpec>,
    /// How many pods at a time.
    pub replicas: i32,
}

impl Manifests {
    /// Reads what the rules need; other kinds are left out.
    pub fn of(documents: Vec<Document>) -> Result<Self, LintError> {
        let mut manifests = Self::default();
        for document in documents {
            if document.value.get("kind").is_some_and(|kind| kind == "PodDisruptionBudget") {
                manifests.budgets.push(typed(&document)?);
            } else if let Some(workload) = workload(&document)? {
                manifests.workloads.push(workload);
            }
        }
        if manifests.workloads.is_empty() { Err(LintError::NoWorkload) } else { Ok(manifests) }
    }
}

fn typed<T: DeserializeOwned>(document: &Document) -> Result<T, LintError> {
    let text = |path: &str| {
        document.value.pointer(path).and_then(serde_json::Value::as_str).unwrap_or("without a name").to_owned()
    };
    serde_json::from_value(document.value.clone()).map_err(|error| LintError::Refused {
        file: document.file.clone(),
        line: document.line,
        kind: text("/kind"),
        name: text("/metadata/name"),
        reason: error.to_string(),
    })
}

fn workload(document: &Document) -> Result<Option<Workload>, LintError> {
    const IN_TEMPLATE: &str = "spec.template.spec";
    let kind = document.value.get("kind").and_then(serde_json::Value::as_str).unwrap_or("").to_owned();
    let found = |metadata: ObjectMeta, template: PodTemplateSpec, job: Option<JobSpec>, replicas: i32, field| {
        Some(Workload {
            file: document.file.clone(),
            line: document.line,
            kind: kind.clone(),
            name: metadata.name.or(metadata.generate_name).unwrap_or_default(),
            pod_field: field,
            metadata: template.metadata.unwrap_or_default(),
            pod: template.spec.unwrap_or_default(),
            job,
            replicas,
        })
    };
    let many = |replicas: Option<i32>| replicas.unwrap_or(1);
    Ok(match kind.as_str() {
        "Pod" => {
            let pod: Pod = typed(document)?;
            let template = PodTemplateSpec { metadata: Some(pod.metadata.clone()), spec: pod.spec };
            found(pod.metadata, template, None, 1, "spec")
        }
        "Job" => {
            let job: Job = typed(document)?;
            let spec = job.spec.unwrap_or_default();
            let pods = if spec.completion_mode.as_deref() == Some("Indexed") { 1 } else { many(spec.parallelism) };
            found(job.metadata, spec.template.clone(), Some(spec), pods, IN_TEMPLATE)
        }
        "CronJob" => {
            let cron: CronJob = typed(document)?;
            let spec = cron.spec.and_then(|spec| spec.job_template.spec).unwrap_or_default();
            let pods = many(spec.parallelism);
            found(cron.metadata, spec.template.clone(), Some(spec), pods, "spec.jobTemplate.spec.template.spec")
        }
        "StatefulSet" => {
            let set: StatefulSet = typed(document)?;
            let spec = set.spec.unwrap_or_default();
            found(set.metadata, spec.template, None, many(spec.replicas), IN_TEMPLATE)
        }
        "Deployment" => {
            let deployment: Deployment = typed(document)?;
            let spec = deployment.spec.unwrap_or_default();
            found(deployment.metadata, spec.template, None, many(spec.replicas), IN_TEMPLATE)
        }
        "ReplicaSet" => {
            let set: ReplicaSet = typed(document)?;
            let spec = set.spec.unwrap_or_default();
            found(set.metadata, spec.template.unwrap_or_default(), None, many(spec.replicas), IN_TEMPLATE)
        }
        "DaemonSet" => {
            let set: DaemonSet = typed(document)?;
            found(set.metadata, set.spec.unwrap_or_default().template, None, 2, IN_TEMPLATE)
        }
        _ => None,
    })
}

impl Workload {
    /// Containers that run as long as the pod, with their place in the list.
    pub fn containers(&self) -> impl Iterator<Item = (usize, &Container)> {
        self.pod.containers.iter().enumerate()
    }

    /// Containers that run under revenant, as far as a manifest shows it; without any, the first is taken for it.
    pub fn ours(&self) -> Vec<(usize, &Container)> {
        let ours: Vec<_> = self.containers().filter(|(_, container)| shows_revenant(container)).collect();
        if ours.is_empty() { self.containers().take(1).collect() } else { ours }
    }

    /// A field of a container, as a path.
    pub fn container_field(&self, place: usize, field: &str) -> String {
        format!("{}.containers[{place}].{field}", self.pod_field)
    }

    /// A field of the pod, as a path.
    pub fn field(&self, field: &str) -> String {
        format!("{}.{field}", self.pod_field)
    }

    /// A finding about this workload.
    pub fn finding(&self, rule: &'static str, danger: Danger, field: String) -> Finding {
        Finding {
            rule,
            danger,
            file: self.file.clone(),
            line: self.line,
            workload: format!("{}/{}", self.kind, self.name),
            field,
            what: String::new(),
            why: String::new(),
            fix: String::new(),
        }
    }

    /// Labels of its pods.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.metadata.labels.clone().unwrap_or_default()
    }
}

impl Finding {
    /// Says what, why and how to mend it.
    #[must_use]
    pub fn says(mut self, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        (self.what, self.why, self.fix) = (what.into(), why.into(), fix.into());
        self
    }
}

/// Whether a container runs revenant: by its command, its settings or its image's name.
pub fn shows_revenant(container: &Container) -> bool {
    let named = |text: &String| text.contains("revenant");
    container.command.iter().flatten().chain(container.args.iter().flatten()).any(named)
        || container.env.iter().flatten().any(|variable| variable.name.starts_with("REVENANT_"))
        || container.command.is_none() && container.image.iter().any(named)
}

/// The value of a variable that is written in the manifest.
pub fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let found = container.env.iter().flatten().find(|variable| variable.name == name)?;
    found.value.as_deref()
}

/// Whether a variable is set, here or from elsewhere.
pub fn has_variable(container: &Container, name: &str) -> bool {
    container.env.iter().flatten().any(|variable| variable.name == name)
}

/// The value of a long option in command and arguments: `--name value` or `--name=value`.
pub fn option<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let mut words = container.command.iter().flatten().chain(container.args.iter().flatten());
    while let Some(word) = words.next() {
        if word == "--" {
            return None;
        }
        if let Some(rest) = word.strip_prefix(name) {
            match rest.strip_prefix('=') {
                Some(value) => return Some(value),
                None if rest.is_empty() => return words.next().map(String::as_str),
                None => {}
            }
        }
    }
    None
}

/// Whether a selector picks pods with these labels. An empty one picks all of the namespace.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(&expression.key);
        let among = || value.is_some_and(|value| expression.values.iter().flatten().any(|one| one == value));
        match expression.operator.as_str() {
            "In" => among(),
            "NotIn" => !among(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    equal && expressions
}
