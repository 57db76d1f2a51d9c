//! Job, `CronJob` and `StatefulSet`.

use super::answers::{Answers, Kind};
use super::nodes::{Nodes, promoted_name};
use super::pod::template;
use super::storage::claim_template;
use super::yaml::{comment, indent, quoted};
use crate::exit::Exit;

pub fn workload(answers: &Answers) -> String {
    let name = &answers.name;
    let nodes = Nodes::at_first(answers);
    match answers.kind {
        Kind::StatefulSet => format!(
            "apiVersion: apps/v1\n\
             kind: StatefulSet\n\
             metadata:\n  name: {name}\n\
             spec:\n\
             \x20 replicas: 1\n\
             \x20 serviceName: {name}\n\
             \x20 selector: {{matchLabels: {{app.kubernetes.io/instance: {name}}}}}\n\
             \x20 template:\n{}{}",
            indent(&template(answers, nodes), 4),
            claim_template(answers),
        ),
        Kind::CronJob => format!(
            "apiVersion: batch/v1\n\
             kind: CronJob\n\
             metadata:\n  name: {name}\n\
             spec:\n\
             \x20 schedule: {}\n\
             \x20 # One at a time: a run that is not over goes on from its checkpoint.\n\
             \x20 concurrencyPolicy: Forbid\n\
             \x20 jobTemplate:\n    spec:\n{}",
            quoted(answers.schedule.as_deref().unwrap_or_default()),
            indent(&job_spec(answers, nodes), 6),
        ),
        _ => job(name, "", answers, nodes),
    }
}

/// The Job that continues on high-memory nodes once the first one has run out of memory.
pub fn promoted(answers: &Answers) -> String {
    if Nodes::at_first(answers) != Nodes::OrdinaryFirst {
        return String::new();
    }
    let name = promoted_name(answers);
    let about = comment(&format!(
        "The same job on high-memory nodes. It rests until {} has run out of memory there; then it continues from the\n\
         checkpoint, and is the one to wait for.",
        answers.name
    ));
    about + &job(&name, "  parallelism: 0\n", answers, Nodes::HighMemory)
}

fn job(name: &str, at_rest: &str, answers: &Answers, nodes: Nodes) -> String {
    format!(
        "apiVersion: batch/v1\n\
         kind: Job\n\
         metadata:\n  name: {name}\n\
         spec:\n{at_rest}{}",
        indent(&job_spec(answers, nodes), 2),
    )
}

fn job_spec(answers: &Answers, nodes: Nodes) -> String {
    let codes = |exits: &[Exit]| exits.iter().map(|exit| exit.code().to_string()).collect::<Vec<_>>().join(", ");
    let goes_on = codes(&[Exit::SavedAndStopped, Exit::StoppedUnsaved, Exit::Fenced, Exit::StoppedBeforeStart]);
    let hopeless = codes(&[Exit::Usage, Exit::Privileges, Exit::CriuUnusable, Exit::Key]);
    format!(
        "# Over months a node is lost more often than six times.\n\
         backoffLimit: 100\n\
         podFailurePolicy:\n\
         \x20 rules:\n\
         \x20   # Saved and stopped, or stopped with an earlier checkpoint: the next pod continues.\n\
         \x20   - {{action: Ignore, onExitCodes: {{operator: In, values: [{goes_on}]}}}}\n\
         \x20   # Preempted, drained, evicted, lost with its node.\n\
         \x20   - {{action: Ignore, onPodConditions: [{{type: DisruptionTarget}}]}}\n\
         \x20   # What another attempt cannot mend: settings, rights, CRIU, the key. A restore\n\
         \x20   # that is refused may succeed on another node.\n\
         \x20   - {{action: FailJob, onExitCodes: {{operator: In, values: [{hopeless}]}}}}\n\
         template:\n{}",
        indent(&template(answers, nodes), 2),
    )
}
