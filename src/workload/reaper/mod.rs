//! The reaper's program file: embedded in revenant, written where the kernel may execute it.
//!
//! CRIU maps the reaper's code from its file again, so a restore needs exactly the bytes of the
//! container that saved: a checkpoint carries them, and [`install`] takes any bytes.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// This build's reaper. For a running one read `/proc/PID/exe`.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reaper"));

/// The file's name in its folder.
const NAME: &str = "reaper";

/// Why the reaper's program could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReaperError {
    /// At this path.
    #[error("cannot write the reaper's program {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// At none of the usual places.
    #[error("no folder where revenant can write and execute a small program; tried {}", tried.join(", "))]
    NoPlace {
        /// Each place, and why not.
        tried: Vec<String>,
    },
}

impl Explain for ReaperError {
    fn explain(&self) -> Problem {
        Problem::new(
            Exit::Failure,
            self.to_string(),
            std::error::Error::source(self).map_or_else(
                || "the container's file system is read-only or mounted noexec".to_owned(),
                ToString::to_string,
            ),
            "mount a small writable volume without noexec at /run/revenant (in Kubernetes: an emptyDir)",
        )
    }
}

/// Writes `program` to `path` (mode 0755) unless it is there already, byte for byte.
///
/// Used before a start with [`PROGRAM`], and before a restore with the bytes that the checkpoint carries.
pub fn install(path: &Path, program: &[u8]) -> Result<(), ReaperError> {
    let fail = |source| ReaperError::Write { path: path.to_owned(), source };
    if is_installed(path, program) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    }
    // A new file, renamed into place: a program that is running cannot be written to (ETXTBSY).
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&fresh)
        .and_then(|mut file| {
            file.write_all(program).and_then(|()| file.set_permissions(PermissionsExt::from_mode(0o755)))
        })
        .and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        fail(error)
    })
}

/// Writes this build's reaper to the first of `folders` where it can be written and executed.
pub fn install_in(folders: &[PathBuf]) -> Result<PathBuf, ReaperError> {
    let mut tried = Vec::new();
    for folder in folders {
        match usable(folder).and_then(|()| {
            let path = folder.join(NAME);
            install(&path, PROGRAM).map(|()| path).map_err(|error| match error {
                ReaperError::Write { source, .. } => source,
                other @ ReaperError::NoPlace { .. } => io::Error::other(other),
            })
        }) {
            Ok(path) => return Ok(path),
            Err(error) => tried.push(format!("{} ({error})", folder.display())),
        }
    }
    Err(ReaperError::NoPlace { tried })
}

/// The folders to try, the best first: the same list in every container of a job.
pub fn folders() -> Vec<PathBuf> {
    let own = format!("revenant-{}", geteuid());
    vec![
        "/run/revenant".into(),
        "/opt/revenant/run".into(),
        Path::new("/tmp").join(&own),
        Path::new("/var/tmp").join(&own),
        Path::new("/dev/shm").join(&own),
    ]
}

fn is_installed(path: &Path, program: &[u8]) -> bool {
    let Ok(file) = fs::symlink_metadata(path) else { return false };
    file.is_file()
        && file.uid() == geteuid().as_raw()
        && file.permissions().mode() & 0o777 == 0o755
        && fs::read(path).is_ok_and(|bytes| bytes == program)
}

/// Makes the folder ours alone, and asks whether programs may run from it.
fn usable(folder: &Path) -> io::Result<()> {
    crate::workload::private_dir::create(folder)?;
    if statvfs(folder)?.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(io::Error::other("mounted noexec"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_small_static_program_without_writable_data() {
        assert!(PROGRAM.len() < 16 << 10, "{} bytes", PROGRAM.len());
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
    }

    #[test]
    fn replaces_other_bytes_even_while_they_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reaper");
        install(&path, PROGRAM).unwrap();
        let mut running = std::process::Command::new(&path).args(["/bin/sleep", "sleep", "0.3"]).spawn().unwrap();
        install(&path, b"another").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"another");
        assert!(running.wait().unwrap().success());
    }

    #[test]
    fn skips_folders_that_do_not_serve() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good");
        let path = install_in(&["/proc/revenant".into(), good.clone()]).unwrap();
        assert_eq!(path, good.join("reaper"));
        let error = install_in(&["/proc/revenant".into()]).unwrap_err().explain();
        assert!(error.what.contains("/proc/revenant"), "{error}");
    }
}
