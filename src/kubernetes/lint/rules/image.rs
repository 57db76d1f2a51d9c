//! Images that change under a checkpoint.

use crate::kubernetes::lint::finding::{Danger, Finding};
use crate::kubernetes::lint::workload::{Manifests, Workload};

/// A tag that may mean another image tomorrow.
pub fn moving(workload: &Workload, _: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, container) in workload.ours() {
        let Some(image) = &container.image else { continue };
        if image.contains('@') {
            continue;
        }
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
        let danger = if matches!(tag, None | Some("latest")) { Danger::Costly } else { Danger::Advice };
        findings.push(workload.finding("moving-tag", danger, workload.container_field(place, "image")).says(
            format!("the image is named by tag ({})", tag.unwrap_or("latest")),
            "a process continues with the very programs and libraries that it has mapped: another image behind the tag, and \
             its checkpoints cannot be restored",
            "name the image by digest: `image@sha256:…`",
        ));
    }
    findings
}
