//! A private directory for one dump or restore: CRIU's sockets, its log, its PID file.

use crate::exit::Exit;
use crate::explain::Problem;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Removed again when the work succeeded; after a failure it stays, for its log.
#[derive(Debug)]
pub struct ImagesDir(PathBuf);

impl ImagesDir {
    /// A new empty directory `name` (0700) in the runtime directory, replacing that of an earlier run.
    pub fn create(runtime_dir: &Path, name: &str) -> Result<Self, Problem> {
        let path = runtime_dir.join(name);
        let result = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => DirBuilder::new().mode(0o700).recursive(true).create(&path),
        };
        match result {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Problem::new(
                Exit::CriuUnusable,
                format!("cannot make a private directory at {}: {error}", path.display()),
                "CRIU needs a small writable directory for its socket and its log",
                "mount an emptyDir at /run/revenant, or set --runtime-dir to a writable directory",
            )),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The work succeeded: nobody needs its logs.
    pub fn remove(self) {
        // A leftover is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}
