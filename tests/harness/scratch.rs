//! A private directory for each thing that a test makes, and the cleaning up after test runs that
//! were killed and could not clean up themselves.

use super::overlay;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "revenant-test-";

/// A directory that is removed with all that is in it when the value is dropped.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new empty directory, mode 0755, named after this process.
    pub fn new() -> Self {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's name, unique on this machine while it exists.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Where runc keeps its state of the container in this scratch directory.
pub fn runc_root(scratch: &Path) -> PathBuf {
    scratch.join("runc")
}

fn remove(path: &Path) {
    for container in std::fs::read_dir(runc_root(path)).into_iter().flatten().flatten() {
        let _ = Command::new("runc")
            .arg("--root")
            .arg(runc_root(path))
            .args(["delete", "--force"])
            .arg(container.file_name())
            .stderr(Stdio::null())
            .status();
    }
    overlay::unmount_below(path);
    let _ = std::fs::remove_dir_all(path);
}

/// Remove what test processes that no longer live have left.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok()) else {
            continue;
        };
        if kill(Pid::from_raw(owner), None) == Err(nix::errno::Errno::ESRCH) {
            remove(&entry.path());
        }
    }
}
