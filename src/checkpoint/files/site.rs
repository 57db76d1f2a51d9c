//! The file system that a capture reads or a restore writes.

use super::layer::Mounts;
use super::path::RelPath;
use super::rooted::Root;
use std::fs;
use std::io;
use std::path::Path;

/// A root directory and what is mounted below it.
#[derive(Debug)]
pub struct Site {
    /// The root.
    pub root: Root,
    /// Its mounts.
    pub mounts: Mounts,
}

impl Site {
    /// The container that the caller runs in.
    pub fn here() -> io::Result<Self> {
        Ok(Self { root: Root::open(Path::new("/"))?, mounts: Mounts::here()? })
    }

    /// What a process sees; it may have a mount namespace of its own.
    pub fn of(pid: i32) -> io::Result<Self> {
        let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
        if namespace(&pid.to_string()) == namespace("self") {
            return Self::here();
        }
        Ok(Self { root: Root::open(Path::new(&format!("/proc/{pid}/root")))?, mounts: Mounts::of(pid)? })
    }

    /// Creates the directories above a path that do not exist yet.
    pub fn create_parents(&self, path: &RelPath) -> io::Result<()> {
        let Some((parent, _)) = path.split() else { return Ok(()) };
        if self.root.status_if_any(&parent)?.is_some() {
            return Ok(());
        }
        self.create_parents(&parent)?;
        let (above, name) = self.root.parent(&parent)?;
        match rustix::fs::mkdirat(above, name, rustix::fs::Mode::from_raw_mode(0o755)) {
            Err(rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes whatever lies at a path, directories with all that is in them, unless something is
    /// mounted there. Nothing there is fine.
    pub fn remove(&self, path: &RelPath) -> io::Result<()> {
        let Some(status) = self.root.status_if_any(path)? else { return Ok(()) };
        if self.mounts.any_within(path) || path.is_root() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "something is mounted there"));
        }
        let is_directory = status.kind == rustix::fs::FileType::Directory;
        if is_directory {
            for (name, _) in self.root.entries(path)? {
                if let Some(below) = path.join(&name) {
                    self.remove(&below)?;
                }
            }
        }
        let (parent, name) = self.root.parent(path)?;
        let flags = if is_directory { rustix::fs::AtFlags::REMOVEDIR } else { rustix::fs::AtFlags::empty() };
        match rustix::fs::unlinkat(parent, name, flags) {
            Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
