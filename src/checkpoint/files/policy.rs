//! What the user says about files.

use super::path::RelPath;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How the files of a volume are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeMode {
    /// Files written by the workload are recorded; those up to 4 MiB are copied as well.
    #[default]
    Auto,
    /// Recorded only.
    Record,
    /// Recorded, and everything that the workload wrote is copied into the checkpoint.
    Copy,
}

/// What travels, what is left out, and how far a restore may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilePolicy {
    /// Always carried, changed or not (`--keep`).
    pub keep: Vec<PathBuf>,
    /// Never carried, never looked at (`--ignore`).
    pub ignore: Vec<PathBuf>,
    /// revenant's own: its runtime directory, the reaper, a `file://` store. Left out like `ignore`.
    pub own: Vec<PathBuf>,
    /// The most bytes of file content in one checkpoint.
    pub limit_bytes: u64,
    /// Modes of volumes or of directories on them; the longest path wins. A path named here is the
    /// job's alone: files that appear in it after the checkpoint are moved aside at restore.
    pub volumes: Vec<(PathBuf, VolumeMode)>,
    /// Restore even where files and memory will not agree (`--files accept`).
    pub accept: bool,
}

impl Default for FilePolicy {
    fn default() -> Self {
        Self {
            keep: Vec::new(),
            ignore: Vec::new(),
            own: Vec::new(),
            limit_bytes: 16 << 30,
            volumes: Vec::new(),
            accept: false,
        }
    }
}

/// Where images carry revenant and CRIU.
const BUNDLE: &str = "/opt/revenant";

impl FilePolicy {
    /// Whether a path is left out.
    pub fn leaves_out(&self, path: &RelPath) -> bool {
        let bundle = PathBuf::from(BUNDLE);
        let paths = self.ignore.iter().chain(&self.own).chain(std::iter::once(&bundle));
        paths.filter_map(|above| RelPath::from_absolute(above).ok()).any(|above| path.is_within(&above))
    }

    /// Whether a directory is left out with all that is below it: nothing in it is kept.
    pub fn is_of_no_interest(&self, directory: &RelPath) -> bool {
        self.leaves_out(directory) && !self.kept().any(|kept| kept.is_within(directory) || directory.is_within(&kept))
    }

    /// What is kept in any case.
    pub fn kept(&self) -> impl Iterator<Item = RelPath> {
        self.keep.iter().filter_map(|path| RelPath::from_absolute(path).ok())
    }

    /// The mode for a path on a volume, and the named directory that it comes from.
    pub fn volume(&self, path: &RelPath) -> (VolumeMode, Option<RelPath>) {
        if self.kept().any(|kept| path.is_within(&kept)) {
            return (VolumeMode::Copy, None);
        }
        self.named_volumes()
            .filter(|(above, _)| path.is_within(above))
            .max_by_key(|(above, _)| above.depth())
            .map_or((VolumeMode::Auto, None), |(above, mode)| (mode, Some(above)))
    }

    /// The directories that the user named, with their modes.
    pub fn named_volumes(&self) -> impl Iterator<Item = (RelPath, VolumeMode)> {
        self.volumes.iter().filter_map(|(path, mode)| Some((RelPath::from_absolute(path).ok()?, *mode)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_named_path_decides() {
        let policy = FilePolicy {
            keep: vec!["/data/state".into()],
            ignore: vec!["/tmp/cache".into()],
            own: vec!["/run/revenant".into()],
            volumes: vec![("/data".into(), VolumeMode::Record), ("/data/index".into(), VolumeMode::Copy)],
            ..FilePolicy::default()
        };
        let path = |text: &str| RelPath::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(policy.volume(&path("data/x")), (VolumeMode::Record, Some(path("data"))));
        assert_eq!(policy.volume(&path("data/index/x")), (VolumeMode::Copy, Some(path("data/index"))));
        assert_eq!(policy.volume(&path("data/state/x")), (VolumeMode::Copy, None));
        assert_eq!(policy.volume(&path("other/x")), (VolumeMode::Auto, None));
        for own in ["tmp/cache/a", "run/revenant", "opt/revenant/criu"] {
            assert!(policy.leaves_out(&path(own)), "{own}");
        }
        assert!(!policy.leaves_out(&path("run/revenant-not")));
        let policy = FilePolicy { ignore: vec!["/".into()], keep: vec!["/data/state".into()], ..FilePolicy::default() };
        for (directory, none) in [("usr", true), ("data", false), ("data/state/x", false), ("data/other", true)] {
            assert_eq!(policy.is_of_no_interest(&path(directory)), none, "{directory}");
        }
        assert!(!policy.is_of_no_interest(&RelPath::root()), "what is kept is below it");
    }
}
