//! What a failed attempt to restore a newer generation left in the container's layer, before an
//! older generation is tried in the same container.

use super::baseline::Baseline;
use super::layer::Place;
use super::path::RelPath;
use super::plan::Plan;
use super::scan::scan;
use super::warnings::Warnings;
use crate::explain::Problem;
use rustix::fs::FileType;
use std::collections::HashSet;

/// Removes every path that is newer than this container's baseline and that this plan does not
/// bring back. Files of the image that the earlier attempt replaced or deleted are named: only a new
/// container has them again.
pub fn remove_leftovers(plan: &Plan, baseline: &Baseline) -> Vec<Problem> {
    let mut warnings = Warnings::default();
    let site = &plan.site;
    let wanted: HashSet<&RelPath> = plan.catalogue.entries.iter().map(|entry| &entry.path).collect();
    let scan = scan(&site.root, &site.mounts, &plan.policy, baseline.since());
    let changed: Vec<RelPath> = scan.changed.keys().cloned().collect();
    let (gone, _) = baseline.missing(&site.root, &site.mounts, &changed);
    let is_wanted_gone = |path: &RelPath| plan.catalogue.deleted.iter().any(|deleted| path.is_within(deleted));
    for path in gone.iter().filter(|path| !wanted.contains(path) && !is_wanted_gone(path)) {
        warn(&mut warnings, path, "the attempt deleted it");
    }
    // Deepest first, so that directories are empty when their turn comes.
    for (path, status) in scan.changed.iter().rev() {
        if wanted.contains(path) || site.mounts.place(path) != Place::Layer || site.mounts.is_point(path) {
            continue;
        }
        match baseline.had(path) {
            Some(false) => {
                if let Err(error) = site.remove(path) {
                    warn(&mut warnings, path, &error.to_string());
                }
            }
            Some(true) if status.kind != FileType::Directory => warn(&mut warnings, path, "the attempt replaced it"),
            // A directory of the image changes with what is in it. Where the names are not known,
            // only what lies in a directory that is known to be new may go.
            _ => {}
        }
    }
    warnings.into_problems()
}

fn warn(warnings: &mut Warnings, path: &RelPath, why: &str) {
    warnings.add(
        "files of the image are not as they were before an attempt to restore a newer generation",
        path,
        why,
        "if the workload depends on them, start a new container with the older generation",
    );
}
