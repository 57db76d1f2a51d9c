//! Mounts that hold files of the workload: without them nothing of it can be found again.

use super::Misfit;
use crate::checkpoint::files::{Held, Mounts, Place, RelPath};
use crate::workload::tree::Process;
use serde::{Deserialize, Serialize};
use std::fs;

/// A mount that the workload needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Where it is mounted.
    pub point: RelPath,
    /// One of the files or directories in use there.
    pub example: RelPath,
}

/// What is at a mount point here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Something is mounted.
    Mounted,
    /// A directory with something in it.
    Filled,
    /// Nothing.
    Empty,
}

/// The mounts that these processes need; the container's own layer is not one.
pub fn needed_by(tree: &[Process]) -> Vec<Need> {
    let Some(mounts) = tree.first().and_then(|root| Mounts::of(root.pid).ok()) else { return Vec::new() };
    let held = Held::by(tree);
    let mut needs: Vec<Need> = Vec::new();
    for path in held.files.keys().chain(held.directories.keys()) {
        let point = mounts.point_of(path);
        let own = mounts.place(path) == Place::Layer || mounts.is_kernels(path);
        if !own && !point.is_root() && !needs.iter().any(|need| need.point == point) {
            needs.push(Need { point, example: path.clone() });
        }
    }
    needs
}

/// How it is here, in the same order.
pub fn state_here(needs: &[Need]) -> Vec<State> {
    let mounts = Mounts::here().unwrap_or_default();
    let state = |need: &Need| {
        if mounts.is_point(&need.point) {
            return State::Mounted;
        }
        let filled = fs::read_dir(need.point.absolute()).is_ok_and(|mut entries| entries.next().is_some());
        // A file can be mounted, too.
        let file = fs::metadata(need.point.absolute()).is_ok_and(|status| status.is_file());
        if filled || file { State::Filled } else { State::Empty }
    };
    needs.iter().map(state).collect()
}

/// A volume that is missing refuses; one whose place is filled by something else is told.
pub fn check(needs: &[Need], here: &[State]) -> Vec<Misfit> {
    let misfit = |(need, state): (&Need, &State)| {
        let refuses = match state {
            State::Mounted => return None,
            State::Filled => false,
            State::Empty => true,
        };
        Some(Misfit::new(
            refuses,
            format!("nothing is mounted at {} in this container", need.point),
            &format!("the workload has files open on the volume that was there, for example {}", need.example),
            format!("mount the same volume at {} (volumeMounts)", need.point),
        ))
    };
    needs.iter().zip(here).filter_map(misfit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_volume_is_named_with_a_file_that_needs_it() {
        let path = |text: &str| RelPath::from_bytes(text.as_bytes()).unwrap();
        let needs = [
            Need { point: path("data"), example: path("data/reads.fq") },
            Need { point: path("db"), example: path("db/hash.k2d") },
            Need { point: path("ref"), example: path("ref/x") },
        ];
        let misfits = check(&needs, &[State::Empty, State::Mounted, State::Filled]);
        assert_eq!(misfits.len(), 2);
        assert_eq!(misfits[0].what, "nothing is mounted at /data in this container");
        assert!(misfits[0].cause.contains("/data/reads.fq"));
        assert_eq!((misfits[0].refuses, misfits[1].refuses), (true, false));
    }
}
