//! Files reached from a root directory, never leaving it and never through a symbolic link:
//! openat2(2) with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS` (Linux 5.6; CRIU needs a newer one).

use super::path::RelPath;
use super::status::Status;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Instant;

/// The root directory of the workload's file system, or of a test's.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

const NO_ESCAPE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl Root {
    /// Opens the directory that everything is relative to.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// A path below the root, opened with these flags.
    pub fn open_at(&self, path: &RelPath, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat2(&self.fd, path.as_path(), flags | OFlags::CLOEXEC, mode, NO_ESCAPE)?)
    }

    /// A directory, to read it.
    pub fn directory(&self, path: &RelPath) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// The directory that holds a path, and its name there. The root's own is itself and `.`.
    pub fn parent(&self, path: &RelPath) -> io::Result<(OwnedFd, OsString)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match path.split() {
            Some((parent, name)) => Ok((self.open_at(&parent, flags, Mode::empty())?, name.to_owned())),
            None => Ok((self.open_at(path, flags, Mode::empty())?, ".".into())),
        }
    }

    /// What lies there.
    pub fn status(&self, path: &RelPath) -> io::Result<Status> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// What lies there, if anything does.
    pub fn status_if_any(&self, path: &RelPath) -> io::Result<Option<Status>> {
        match self.status(path) {
            Ok(status) => Ok(Some(status)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A regular file for reading. Its access time is left alone where that is allowed.
    pub fn read(&self, path: &RelPath) -> io::Result<File> {
        // NONBLOCK: should the file have become a FIFO, opening must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = match self.open_at(path, flags | OFlags::NOATIME, Mode::empty()) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => self.open_at(path, flags, Mode::empty())?,
            other => other?,
        };
        if Status::from(rustix::fs::fstat(&fd)?).kind != rustix::fs::FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(fd))
    }

    /// The target of a symbolic link.
    pub fn link_target(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes())
    }

    /// Every name in a directory with its status, in no order. Names that vanish meanwhile are left out.
    pub fn entries(&self, path: &RelPath) -> io::Result<Entries> {
        Ok(self.entries_until(path, None)?.0)
    }

    /// The same, and whether that is all of them: a large directory of a slow volume takes minutes.
    pub fn entries_until(&self, path: &RelPath, end: Option<Instant>) -> io::Result<(Entries, bool)> {
        let fd = self.directory(path)?;
        let mut found = Vec::new();
        for name in names(&fd)? {
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok((found, false));
            }
            if let Ok(stat) = rustix::fs::statat(&fd, OsString::from_vec(name.clone()), AtFlags::SYMLINK_NOFOLLOW) {
                found.push((name, stat.into()));
            }
        }
        Ok((found, true))
    }
}

/// Names of a directory, each with its status.
pub type Entries = Vec<(Vec<u8>, Status)>;

/// Every name in an open directory, without `.` and `..`.
pub fn names(directory: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn never_follows_a_link_and_never_leaves() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("root/real")).unwrap();
        std::fs::write(temp.path().join("secret"), "s").unwrap();
        std::fs::write(temp.path().join("root/real/file"), "f").unwrap();
        symlink("..", temp.path().join("root/up")).unwrap();
        symlink("real", temp.path().join("root/alias")).unwrap();
        symlink("real/file", temp.path().join("root/name")).unwrap();
        let root = Root::open(&temp.path().join("root")).unwrap();
        let path = |text: &str| RelPath::from_bytes(text.as_bytes()).unwrap();
        assert!(root.read(&path("real/file")).is_ok());
        for bad in ["up/secret", "alias/file", "name"] {
            assert!(root.read(&path(bad)).is_err(), "{bad} was opened");
        }
        assert_eq!(root.link_target(&path("name")).unwrap(), b"real/file");
        assert_eq!(root.entries(&path("real")).unwrap().len(), 1);
        assert_eq!(root.entries_until(&path("real"), Some(Instant::now())).unwrap(), (Vec::new(), false));
        let later = Instant::now() + std::time::Duration::from_secs(3600);
        assert!(root.entries_until(&path("real"), Some(later)).unwrap().1);
        assert!(root.status_if_any(&path("real/none")).unwrap().is_none());
    }

    #[test]
    fn a_fifo_in_a_files_place_does_not_hang() {
        let temp = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&temp.path().join("f"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let root = Root::open(temp.path()).unwrap();
        assert!(root.read(&RelPath::from_bytes(b"f").unwrap()).is_err());
    }
}
