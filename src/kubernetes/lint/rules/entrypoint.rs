//! Whether revenant is PID 1 at all.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload, has_variable, shows_revenant};

/// `command` replaces the image's ENTRYPOINT, and with it revenant.
pub fn replaced(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let replaced = workload.containers().filter(|(_, container)| {
        let command = container.command.as_ref().filter(|command| !command.is_empty());
        let means_us = has_variable(container, "REVENANT_STORE")
            || has_variable(container, "REVENANT_JOB")
            || container.image.as_ref().is_some_and(|image| image.contains("revenant"));
        means_us && command.is_some_and(|command| !command.iter().any(|word| word.contains("revenant")))
    });
    replaced
        .map(|(place, container)| {
            let first = container.command.iter().flatten().next().cloned().unwrap_or_default();
            workload.finding("entrypoint-replaced", Danger::Fatal, workload.container_field(place, "command")).says(
                format!("`command: [{first}, …]` replaces the image's ENTRYPOINT, so revenant does not run"),
                "nothing is ever saved: the first eviction costs all work",
                "move these words to `args:`, or write `command: [/opt/revenant/bin/revenant, run, --]` and the rest as `args:`",
            )
        })
        .collect()
}

/// Nothing in the manifest shows that anything here is saved.
pub fn unseen(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    if workload.containers().any(|(_, container)| shows_revenant(container)) {
        return Vec::new();
    }
    let finding = workload.finding("no-checkpoints", Danger::Fatal, workload.field("containers"));
    vec![finding.says(
        "no container of this pod shows that it runs under revenant",
        "a pod is mortal: whatever runs for weeks in it starts again from nothing after an eviction",
        "give the image revenant as its ENTRYPOINT and the container `REVENANT_STORE` and `REVENANT_JOB`; if the image \
         has it already, the two variables say so here too",
    )]
}
