//! What a restore would do with files, found out before anything is touched.

use super::catalogue::{CATALOGUE_LIMIT, CATALOGUE_NAME, Catalogue, Kind};
use super::content::FileSource;
use super::layer::Place;
use super::mapped::{Drift, MappedFile};
use super::path::RelPath;
use super::policy::FilePolicy;
use super::site::Site;
use super::volume::Step;
use super::volume_look::{changed_beside, created_after, look};
use crate::exit::Exit;
use crate::explain::Problem;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// What a restore will do with files. `Display` shows it to a person.
#[derive(Debug)]
pub struct Plan {
    pub(super) site: Site,
    pub(super) catalogue: Catalogue,
    pub(super) policy: FilePolicy,
    /// A step for each file of [`Catalogue::volumes`], in the same order.
    pub(super) steps: Vec<Step>,
    /// Files that appeared in the job's own directories after the checkpoint.
    pub(super) newer: Vec<RelPath>,
    /// Files beside the job's that have appeared or changed since then, and that may be another's.
    pub(super) beside: Vec<RelPath>,
    /// Programs, libraries and inputs that differ.
    pub(super) drifts: Vec<Drift>,
    /// Paths of the layer that cannot be written here, with the reason.
    pub(super) blocked: Vec<(RelPath, String)>,
}

/// Looks at this container and decides. Nothing is changed.
pub fn plan(source: &dyn FileSource, policy: &FilePolicy) -> Result<Plan, Problem> {
    let site = Site::here().map_err(|error| {
        Problem::new(
            Exit::RestoreRefused,
            format!("this container's mounts cannot be read: {error}"),
            "/proc is not mounted, or not this container's",
            "mount /proc in the container",
        )
    })?;
    plan_at(site, source, policy)
}

/// Like [`plan`], for any root directory.
pub fn plan_at(site: Site, source: &dyn FileSource, policy: &FilePolicy) -> Result<Plan, Problem> {
    let bytes = source
        .fetch_bytes(CATALOGUE_NAME, CATALOGUE_LIMIT)
        .map_err(|error| damaged(format!("the checkpoint's catalogue of files cannot be read: {error}")))?;
    let catalogue = Catalogue::from_json(&bytes)
        .map_err(|defect| damaged(format!("the checkpoint's catalogue of files cannot be used: {defect}")))?;
    let steps: Vec<Step> = catalogue.volumes.iter().map(|file| file.decide(&look(&site.root, file))).collect();
    let mut newer = created_after(&site, &catalogue, policy);
    let is_renamed =
        |path: &RelPath| steps.iter().any(|step| matches!(step, Step::RenameBack { from, .. } if from == path));
    newer.retain(|path| !is_renamed(path));
    let mut beside = changed_beside(&site, &catalogue, policy);
    beside.retain(|path| !is_renamed(path));
    let drifts = drifts(&site, &catalogue, policy);
    let blocked = blocked(&site, &catalogue);
    Ok(Plan { site, catalogue, policy: policy.clone(), steps, newer, beside, drifts, blocked })
}

fn damaged(what: String) -> Problem {
    Problem::new(
        Exit::Damaged,
        what,
        "the checkpoint is damaged, or was written by another version of revenant",
        "use an older generation: `revenant list` shows them",
    )
}

fn drifts(site: &Site, catalogue: &Catalogue, policy: &FilePolicy) -> Vec<Drift> {
    let recorded = catalogue.mapped.iter().filter(|file| !policy.leaves_out(&file.path));
    recorded.filter_map(|was| was.drift(MappedFile::observe(&site.root, &was.path, was.mapped).ok().as_ref())).collect()
}

/// Entries whose place belongs to something else in this container.
fn blocked(site: &Site, catalogue: &Catalogue) -> Vec<(RelPath, String)> {
    let mut blocked = Vec::new();
    for entry in &catalogue.entries {
        let place = site.mounts.place(&entry.path);
        let is_directory = entry.kind == Kind::Directory;
        if place != Place::Layer && !is_directory {
            let point = site.mounts.point_of(&entry.path);
            blocked.push((entry.path.clone(), format!("{point} is a mount of another kind in this container")));
        } else if !is_directory && site.mounts.any_within(&entry.path) {
            blocked.push((entry.path.clone(), "something is mounted there in this container".to_owned()));
        }
    }
    blocked
}

impl Plan {
    /// The checkpoint's catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// What a person should know of files that are left as they are; none if there are none.
    pub fn left_alone(&self) -> Option<String> {
        let first = self.beside.first()?;
        let directory = first.split().map_or_else(String::new, |(directory, _)| directory.to_string());
        let files = match self.beside.len() {
            1 => first.to_string(),
            count => format!("{count} files ({first} …)"),
        };
        Some(format!(
            "left as found: {files} appeared or changed after the checkpoint beside the job's own files, perhaps by another job. \
             If {directory} is this job's alone, --volume {directory}=record has such files moved aside"
        ))
    }

    /// Every reason not to restore, one line each; empty when files and memory will agree.
    pub fn obstacles(&self) -> Vec<String> {
        let volumes = self.catalogue.volumes.iter().zip(&self.steps).filter_map(|(file, step)| match step {
            Step::Refuse(obstacle) => Some(format!("{} {obstacle}, and the checkpoint has no copy of it", file.path)),
            _ => None,
        });
        let drifts = self.drifts.iter().map(ToString::to_string);
        let blocked = self.blocked.iter().map(|(path, why)| format!("{path}: {why}"));
        volumes.chain(drifts).chain(blocked).collect()
    }

    /// Why this must not be restored, if it must not.
    pub fn refusal(&self) -> Option<Problem> {
        let obstacles = self.obstacles();
        if obstacles.is_empty() || self.policy.accept {
            return None;
        }
        let only_drift = obstacles.len() == self.drifts.len();
        let count = obstacles.len();
        let files = if count == 1 { "1 file is".to_owned() } else { format!("{count} files are") };
        let (what, cause, next) = if only_drift {
            (
                format!("{files} not what the processes have in memory (image changed)"),
                "this container's image, or an input, differs from the checkpoint's",
                "use the image that the checkpoint was made with",
            )
        } else {
            (
                format!("{files} not as at the checkpoint and cannot be brought back"),
                "they were changed after the checkpoint, by this job or another",
                "bring them back from a backup, use another generation, or restore as it is with `--files accept`; \
                 `--volume PATH=copy` keeps copies from the next checkpoint on",
            )
        };
        let mut list = String::new();
        for obstacle in obstacles.iter().take(20) {
            list.push_str("\n    ");
            list.push_str(obstacle);
        }
        if count > 20 {
            list.push_str("\n    … and ");
            list.push_str(&(count - 20).to_string());
            list.push_str(" more");
        }
        Some(Problem::new(Exit::RestoreRefused, what, format!("{cause}:{list}"), next))
    }

    /// Bytes that the layer needs on each of its file systems, by mount point.
    pub(super) fn needed(&self) -> BTreeMap<RelPath, u64> {
        let mut needed = BTreeMap::new();
        let blocked: HashSet<&RelPath> = self.blocked.iter().map(|(path, _)| path).collect();
        for entry in self.catalogue.entries.iter().filter(|entry| !blocked.contains(&entry.path)) {
            if let Kind::File(data) = &entry.kind {
                // What an earlier attempt brought back is replaced.
                let there = self.site.root.status(&entry.path).map_or(0, |status| status.allocated);
                *needed.entry(self.site.mounts.point_of(&entry.path)).or_insert(0) +=
                    data.bytes().saturating_sub(there);
            }
        }
        needed
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let catalogue = &self.catalogue;
        let files = catalogue.entries.iter().filter(|entry| matches!(entry.kind, Kind::File(_))).count();
        let bytes: u64 = catalogue.contents.iter().map(|content| content.bytes).sum();
        writeln!(
            f,
            "container layer: {} paths to bring back ({files} files, {bytes} bytes in the store), {} to delete",
            catalogue.entries.len(),
            catalogue.deleted.len()
        )?;
        let kept = self.steps.iter().filter(|step| **step == Step::Keep).count();
        writeln!(f, "volumes: {kept} of {} files are as they were", self.steps.len())?;
        for (file, step) in catalogue.volumes.iter().zip(&self.steps) {
            let path = &file.path;
            match step {
                Step::Keep => {}
                Step::Truncate { from } => writeln!(f, "  {path}: cut from {from} back to {} bytes", file.size)?,
                Step::Restore => writeln!(f, "  {path}: bring back the copy, move what is there now aside")?,
                Step::RenameBack { from, .. } => writeln!(f, "  {path}: rename back from {from}")?,
                Step::Refuse(obstacle) => writeln!(f, "  {path}: {obstacle}; no copy")?,
            }
        }
        for path in &self.newer {
            writeln!(f, "  {path}: is newer than the checkpoint, move aside")?;
        }
        for path in &self.beside {
            writeln!(f, "  {path}: appeared or changed after the checkpoint, perhaps by another job; left as it is")?;
        }
        for drift in &self.drifts {
            writeln!(f, "image: {drift}")?;
        }
        for (path, why) in &self.blocked {
            writeln!(f, "blocked: {path}: {why}")?;
        }
        let obstacles = self.obstacles().len();
        match (obstacles, self.policy.accept) {
            (0, _) => write!(f, "verdict: files and memory will agree"),
            (_, true) => write!(f, "verdict: {obstacles} files will not agree; accepted"),
            (_, false) => write!(f, "verdict: restore is refused for {obstacles} files"),
        }
    }
}
