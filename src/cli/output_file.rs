//! A file that appears whole, durably, under its name, or not at all; or standard output.

use crate::exit::Exit;
use crate::explain::Problem;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, StdoutLock, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where something is written.
#[derive(Debug)]
pub enum OutputFile {
    /// Standard output.
    Stdout(StdoutLock<'static>),
    /// A file under a hidden name beside its own, locked, readable by its owner alone. One that a
    /// killed writer has left is written over.
    File {
        /// Where it will be.
        path: PathBuf,
        /// Where it is.
        partial: PathBuf,
        /// It.
        file: Flock<File>,
    },
}

impl OutputFile {
    /// Opens `path`, or standard output for `-`. An existing file is refused unless `replace`.
    pub fn create(path: &Path, replace: bool) -> Result<Self, Problem> {
        if path.as_os_str() == "-" {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(Problem::new(
                    Exit::Usage,
                    "the archive would be written to the terminal",
                    "--to - writes to standard output, and that is a terminal",
                    "send it into a pipe or a file, or give --to FILE",
                ));
            }
            return Ok(Self::Stdout(stdout.lock()));
        }
        let failed = |error: io::Error| unwritable(path, &error);
        let name = path.file_name().ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EISDIR)))?;
        if !replace && std::fs::symlink_metadata(path).is_ok() {
            return Err(Problem::new(
                Exit::Usage,
                format!("{} exists already", path.display()),
                "an export does not replace a file unless it is told to",
                "choose another name, or give --force",
            ));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".partial");
        let partial = path.with_file_name(hidden);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&partial)
            .map_err(failed)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => Problem::new(
                Exit::Failure,
                format!("{} is being written by another process", path.display()),
                "another export to this file is under way",
                "wait for it, or choose another name",
            ),
            errno => failed(errno.into()),
        })?;
        file.set_len(0).map_err(failed)?;
        Ok(Self::File { path: path.to_owned(), partial, file })
    }

    /// It, if it is a file: then places that were written can be written again.
    pub fn seekable(&mut self) -> Option<&mut File> {
        match self {
            Self::Stdout(_) => None,
            Self::File { file, .. } => Some(file),
        }
    }

    /// Makes it durable and gives it its name.
    pub fn finish(self) -> Result<(), Problem> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(|error| unwritable(Path::new("standard output"), &error)),
            Self::File { path, partial, file } => {
                let name = || {
                    file.sync_all()?;
                    crate::failpoint!("export.file.synced");
                    std::fs::rename(&partial, &path)?;
                    crate::failpoint!("export.file.named");
                    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
                };
                name().map_err(|error: io::Error| unwritable(&path, &error))
            }
        }
    }

    /// Removes what was written so far.
    pub fn discard(self) {
        if let Self::File { partial, .. } = self {
            let _ = std::fs::remove_file(partial);
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        Exit::Failure,
        format!("{} cannot be written: {error}", path.display()),
        "its directory is missing, not writable, or full",
        "make room or choose another place; nothing was left under that name",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let mut out = OutputFile::create(&path, false).unwrap();
        out.write_all(b"content").unwrap();
        assert!(!path.exists());
        assert!(OutputFile::create(&path, false).unwrap_err().what.contains("another process"));
        out.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_file_is_replaced_only_on_demand_and_only_by_a_whole_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        std::fs::write(&path, "old").unwrap();
        assert_eq!(OutputFile::create(&path, false).unwrap_err().exit, Exit::Usage.code());
        let mut out = OutputFile::create(&path, true).unwrap();
        out.write_all(b"half").unwrap();
        out.discard();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        // What a killed export has left is no part of the next one.
        std::fs::write(directory.path().join(".a.tar.partial"), "left behind by a killed export").unwrap();
        let mut out = OutputFile::create(&path, true).unwrap();
        out.write_all(b"new").unwrap();
        out.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }
}
