//! How the pod is told to end, and what its controller makes of the end.

use crate::exit::Exit;
use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload, option, shows_revenant, variable};
use k8s_openapi::api::batch::v1::PodFailurePolicy;

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;

/// The codes after which the job goes on in the next pod: saved, stopped before it began, stopped with an older checkpoint.
const GOES_ON: [Exit; 4] = [Exit::SavedAndStopped, Exit::StoppedUnsaved, Exit::Fenced, Exit::StoppedBeforeStart];

/// revenant believes that it has more time than it has.
pub fn grace(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let given = workload.pod.termination_grace_period_seconds;
    let seconds = given.unwrap_or(DEFAULT_GRACE);
    let field = workload.field("terminationGracePeriodSeconds");
    let mut findings = Vec::new();
    for (_, container) in workload.containers().filter(|(_, container)| shows_revenant(container)) {
        let told = option(container, "--grace").or_else(|| variable(container, "REVENANT_GRACE"));
        let told = told.and_then(|text| humantime::parse_duration(text).ok()).map(|time| time.as_secs());
        if let Some(told) = told.filter(|told| i64::try_from(*told).unwrap_or(i64::MAX) > seconds) {
            findings.push(workload.finding("grace-mismatch", Danger::Fatal, field.clone()).says(
                format!("revenant is told that it has {told} s (REVENANT_GRACE), the pod gives it {seconds} s"),
                "the container is killed in the middle of its last save",
                format!("write `terminationGracePeriodSeconds: {told}`"),
            ));
        }
    }
    if findings.is_empty() && given.is_none() {
        findings.push(workload.finding("grace-short", Danger::Costly, field).says(
            "terminationGracePeriodSeconds is not set, so it is 30",
            "a large workload is not saved in 30 s; what is not saved is lost back to the last periodic save",
            "set it, and REVENANT_GRACE, to twice what a save takes (`revenant status` shows it), for example 300",
        ));
    }
    findings
}

/// A hook that uses the time for the save up.
pub fn pre_stop(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let hooked = workload
        .ours()
        .into_iter()
        .filter(|(_, container)| container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some()));
    hooked
        .map(|(place, _)| {
            let field = workload.container_field(place, "lifecycle.preStop");
            workload.finding("pre-stop", Danger::Costly, field).says(
                "there is a preStop hook",
                "its time counts against the grace period, and SIGTERM comes only after it: the save has less time",
                "remove it, or do its work in `--before-save`",
            )
        })
        .collect()
}

/// A clock that kills the job however far it is.
pub fn deadline(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |field: String, seconds: i64| {
        findings.push(workload.finding("active-deadline", Danger::Fatal, field).says(
            format!("activeDeadlineSeconds ends the job after {} h", seconds / 3600),
            "it counts all pods and all waiting together, and a job that is over it fails for good",
            "remove it; a job that hangs is better found by its output",
        ));
    };
    if let Some(seconds) = workload.job.as_ref().and_then(|job| job.active_deadline_seconds) {
        found("spec.activeDeadlineSeconds".into(), seconds);
    }
    if let Some(seconds) = workload.pod.active_deadline_seconds {
        found(workload.field("activeDeadlineSeconds"), seconds);
    }
    findings
}

/// Whether the policy ignores this code.
fn ignores(policy: Option<&PodFailurePolicy>, code: u8) -> bool {
    policy.is_some_and(|policy| {
        policy.rules.iter().filter(|rule| rule.action == "Ignore").any(|rule| {
            rule.on_exit_codes
                .as_ref()
                .is_some_and(|codes| codes.operator == "In" && codes.values.contains(&i32::from(code)))
        })
    })
}

/// Preemptions counted as failures.
pub fn policy(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let Some(job) = workload.job.as_ref().filter(|_| workload.ours().iter().any(|(_, one)| shows_revenant(one))) else {
        return Vec::new();
    };
    let policy = job.pod_failure_policy.as_ref();
    let missing: Vec<String> = GOES_ON
        .iter()
        .map(|exit| exit.code())
        .filter(|code| !ignores(policy, *code))
        .map(|code| code.to_string())
        .collect();
    let on_disruption =
        policy.is_some_and(|policy| {
            policy.rules.iter().filter(|rule| rule.action == "Ignore").any(|rule| {
                rule.on_pod_conditions.iter().flatten().any(|condition| condition.type_ == "DisruptionTarget")
            })
        });
    let mut wanted = Vec::new();
    if !missing.is_empty() {
        wanted.push(format!("`{{action: Ignore, onExitCodes: {{operator: In, values: [{}]}}}}`", missing.join(", ")));
    }
    if !on_disruption {
        wanted.push("`{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}`".to_owned());
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let finding = workload.finding("failure-policy", Danger::Fatal, "spec.podFailurePolicy".into());
    vec![finding.says(
        "preemptions count as failures of the job",
        format!(
            "a container that was saved and stopped ends with {}; after backoffLimit (default 6) such ends the Job has \
             failed for good, and its pods are not started again",
            Exit::SavedAndStopped.code()
        ),
        format!("add to podFailurePolicy.rules (it needs `restartPolicy: Never`): {}", wanted.join(" and ")),
    )]
}

/// Too few attempts for a job of months.
pub fn retries(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let Some(job) = &workload.job else { return Vec::new() };
    let limit = job.backoff_limit.unwrap_or(6);
    if limit >= 6 && job.backoff_limit.is_some() {
        return Vec::new();
    }
    let what = match job.backoff_limit {
        Some(limit) => format!("backoffLimit is {limit}"),
        None => "backoffLimit is not set, so it is 6".to_owned(),
    };
    let danger = if limit == 0 { Danger::Fatal } else { Danger::Costly };
    vec![workload.finding("backoff-limit", danger, "spec.backoffLimit".into()).says(
        what,
        "over months a lost node or an OOM kill happens more often than that, and then the Job has failed for good",
        "write `backoffLimit: 100`; what must end the job at once belongs in podFailurePolicy with `action: FailJob`",
    )]
}

/// A pod that nobody starts again.
pub fn restart(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    if workload.kind != "Pod" {
        return Vec::new();
    }
    let finding = workload.finding("bare-pod", Danger::Fatal, "kind".into());
    vec![finding.says(
        "it is a bare Pod",
        "an evicted or deleted pod is not made again: the checkpoint waits for somebody to notice",
        "use a Job (for work that ends) or a StatefulSet with one replica; `revenant manifest` writes one",
    )]
}
