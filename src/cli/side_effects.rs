//! Options of `revenant run` about the files that travel with a checkpoint.

use super::tuning::size;
use crate::checkpoint::files::{FilePolicy, VolumeMode};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tracing::warn;

/// Files beside the memory.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub struct FileOptions {
    /// Files or directories that always travel with a checkpoint (may be repeated; comma-separated in the variable)
    #[arg(long = "keep", env = "REVENANT_KEEP", value_name = "PATH", value_delimiter = ',', value_parser = absolute)]
    keep: Vec<PathBuf>,
    /// Files or directories that never do
    #[arg(long = "ignore", env = "REVENANT_IGNORE", value_name = "PATH", value_delimiter = ',', value_parser = absolute)]
    ignore: Vec<PathBuf>,
    /// How a directory on a volume is treated: PATH=record or PATH=copy
    #[arg(long = "volume", env = "REVENANT_VOLUME", value_name = "PATH=MODE", value_delimiter = ',', value_parser = volume)]
    volumes: Vec<(PathBuf, VolumeMode)>,
    /// The most bytes of files in one checkpoint
    #[arg(long, env = "REVENANT_FILE_LIMIT", value_name = "SIZE", default_value = "16GiB", value_parser = size)]
    file_limit: u64,
    /// What to do when files and memory cannot be brought to the same moment
    #[arg(long, env = "REVENANT_FILES", value_enum, default_value = "refuse")]
    files: OnMismatch,
}

/// See [`FileOptions::files`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnMismatch {
    /// Do not restore, and list the files.
    Refuse,
    /// Restore all the same.
    Accept,
}

impl FileOptions {
    /// The policy, with revenant's own paths left out.
    pub fn policy(self, own: Vec<PathBuf>) -> FilePolicy {
        for (path, _) in self.volumes.iter().filter(|(path, _)| !path.exists()) {
            warn!("--volume {}: nothing is there yet; if nothing ever is, it is misspelled", path.display());
        }
        FilePolicy {
            keep: self.keep,
            ignore: self.ignore,
            own,
            limit_bytes: self.file_limit,
            volumes: self.volumes,
            accept: self.files == OnMismatch::Accept,
        }
    }
}

fn volume(text: &str) -> Result<(PathBuf, VolumeMode), String> {
    let refuse = || format!("{text:?} is not PATH=record or PATH=copy");
    let (path, mode) = text.rsplit_once('=').ok_or_else(refuse)?;
    let mode = match mode {
        "record" => VolumeMode::Record,
        "copy" => VolumeMode::Copy,
        _ => return Err(refuse()),
    };
    Ok((absolute(path)?, mode))
}

/// A path that means the same wherever revenant and the workload stand.
fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err(format!("{text:?} is not an absolute path")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_a_path_and_a_mode() {
        assert_eq!(volume("/data=copy"), Ok(("/data".into(), VolumeMode::Copy)));
        assert_eq!(volume("/a=b=record"), Ok(("/a=b".into(), VolumeMode::Record)));
        for bad in ["/data", "data=copy", "/data=maybe"] {
            assert!(volume(bad).is_err(), "{bad:?} was accepted");
        }
    }

    /// It would name nothing, in silence.
    #[test]
    fn a_relative_path_is_refused() {
        assert_eq!(absolute("/data/cache"), Ok("/data/cache".into()));
        assert_eq!(absolute("cache"), Err("\"cache\" is not an absolute path".to_owned()));
    }
}
