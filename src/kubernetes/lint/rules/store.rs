//! Whether checkpoints outlive the pod.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload, option, shows_revenant, variable};
use k8s_openapi::api::core::v1::{Container, Volume};

/// Where the image's default store lies.
const DEFAULT: &str = "file:///checkpoints";

/// Variables whose value is a secret.
const SECRET: [&str; 6] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "REVENANT_KEY",
    "REVENANT_PASSPHRASE",
];

/// The store is a directory that goes with the pod, or with the node.
pub fn ephemeral(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let look = |(place, container): (usize, &Container)| {
        let store = option(container, "--store").or_else(|| variable(container, "REVENANT_STORE")).unwrap_or(DEFAULT);
        let directory = store.strip_prefix("file://")?;
        let finding = |rule, danger| workload.finding(rule, danger, workload.container_field(place, "volumeMounts"));
        let fix = format!(
            "mount a PersistentVolumeClaim at {directory}, or use an object store: `REVENANT_STORE: s3://bucket/prefix`"
        );
        let mount = container
            .volume_mounts
            .iter()
            .flatten()
            .filter(|mount| {
                directory == mount.mount_path
                    || directory.starts_with(&format!("{}/", mount.mount_path.trim_end_matches('/')))
            })
            .max_by_key(|mount| mount.mount_path.len());
        let Some(mount) = mount else {
            return Some(finding("store-in-the-container", Danger::Fatal).says(
                format!("checkpoints go to {directory}, where nothing is mounted"),
                "they lie in the container's own layer and are gone with it",
                fix,
            ));
        };
        let volume = workload.pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        match volume.map(kind) {
            Some("emptyDir") => Some(finding("store-in-the-pod", Danger::Fatal).says(
                format!("checkpoints go to {directory}, which is an emptyDir"),
                "it is removed with the pod: an eviction takes the checkpoints along",
                fix,
            )),
            Some("hostPath") => Some(finding("store-on-the-node", Danger::Costly).says(
                format!("checkpoints go to {directory}, which is a directory of the node"),
                "a pod that continues on another node does not find them, and a lost node takes them along",
                fix,
            )),
            _ => None,
        }
    };
    workload.containers().filter(|(_, container)| shows_revenant(container)).filter_map(look).collect()
}

fn kind(volume: &Volume) -> &'static str {
    if volume.empty_dir.is_some() {
        "emptyDir"
    } else if volume.host_path.is_some() {
        "hostPath"
    } else {
        "other"
    }
}

/// Secrets in plain sight.
pub fn secrets(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, container) in workload.containers() {
        for (number, one) in container.env.iter().flatten().enumerate() {
            if SECRET.contains(&one.name.as_str()) && one.value.as_ref().is_some_and(|value| !value.is_empty()) {
                let field = workload.container_field(place, &format!("env[{number}].value"));
                findings.push(workload.finding("secret-in-manifest", Danger::Costly, field).says(
                    format!("{} is written in the manifest", one.name),
                    "whoever may read the pod may read every checkpoint, and a checkpoint holds all secrets of the workload",
                    "take it from a Secret: `valueFrom: {secretKeyRef: {…}}`",
                ));
            }
        }
    }
    findings
}
