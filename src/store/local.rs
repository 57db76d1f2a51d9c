//! A store in a directory, made to survive a crash of the machine.
//!
//! An object is written to a temporary file beside its place, synced, and then given its name in one
//! step: by `rename` (replace) or `link` (create, fails when there is one). The directory is synced
//! after each change, and so is the parent of each directory that was created. Files have mode 0600
//! and directories 0700: checkpoints hold every secret of the workload.
//!
//! `object_store`'s own `LocalFileSystem` was not used: it gives files the umask's mode, and follows
//! symbolic links that whoever can write to the volume may have laid.

use super::StoreError;
use super::backend::{Backend, Created, ObjectInfo};
use async_trait::async_trait;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Temporary files are hidden, so that no object's key can name one.
const TEMPORARY: &str = ".tmp-";

#[derive(Debug, Clone)]
pub(super) struct Local {
    root: PathBuf,
    name: String,
}

impl Local {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), name: format!("file://{}", root.display().to_string().trim_end_matches('/')) }
    }

    /// File calls block; they run on tokio's pool for such calls.
    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Self, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (this, key) = (self.clone(), key.to_owned());
        let failed = StoreError::Failed {
            store: self.name.clone(),
            key: key.clone(),
            reason: "the operation was interrupted".to_owned(),
        };
        tokio::task::spawn_blocking(move || work(&this, &key)).await.map_err(|_| failed)?
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn error(&self, key: &str, error: &io::Error) -> StoreError {
        let (store, key, reason) = (self.name.clone(), key.to_owned(), error.to_string());
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR) => StoreError::NotFound { store, key },
            Some(Errno::ENOSPC | Errno::EDQUOT) => StoreError::Full { store, key },
            Some(Errno::EACCES | Errno::EPERM | Errno::EROFS) => StoreError::NotWritable { store, key, reason },
            // What a network file system says while its server is away.
            Some(Errno::EAGAIN | Errno::ETIMEDOUT | Errno::EHOSTDOWN | Errno::EHOSTUNREACH | Errno::ENOTCONN) => {
                StoreError::Unreachable { store, reason, tried: Duration::ZERO }
            }
            _ => StoreError::Failed { store, key, reason },
        }
    }

    /// For writing: a missing directory is then a store that is not there, not a missing object.
    fn write_error(&self, key: &str, error: &io::Error) -> StoreError {
        match self.error(key, error) {
            StoreError::NotFound { store, key } => StoreError::NotWritable { store, key, reason: error.to_string() },
            other => other,
        }
    }

    /// Writes the content to a synced temporary file beside `path`.
    fn stage(&self, path: &Path, bytes: &[u8]) -> io::Result<Staged> {
        let directory = path.parent().unwrap_or(&self.root);
        make_directories(directory)?;
        let staged = Staged { path: directory.join(format!("{TEMPORARY}{}", hex::encode(rand::random::<[u8; 12]>()))) };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&staged.path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(staged)
    }

    fn open_object(path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }

    fn walk(directory: &Path, visit: &mut dyn FnMut(&Path, bool) -> io::Result<()>) -> io::Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if kind.is_dir() && !hidden {
                Self::walk(&entry.path(), visit)?;
            } else if kind.is_file() {
                visit(&entry.path(), hidden)?;
            }
        }
        Ok(())
    }
}

/// A temporary file; removed unless it got its name by `rename`.
struct Staged {
    path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates what is missing of `directory`, with mode 0700, durably.
fn make_directories(directory: &Path) -> io::Result<()> {
    match make_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(directory.parent().ok_or(error)?)?;
            // Once: nothing can be made in a mounted directory that was removed where it comes from.
            make_directory(directory)
        }
        result => result,
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => sync_directory(directory.parent().unwrap_or(Path::new("/"))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a staged file its name if the name is free.
fn name_new(staged: &Staged, path: &Path) -> io::Result<Created> {
    match std::fs::hard_link(&staged.path, path) {
        Ok(()) => return Ok(Created::New),
        // On NFS the answer may be lost and the call repeated: the link count tells (open(2), O_EXCL).
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let ours = std::fs::symlink_metadata(&staged.path)?.nlink() == 2;
            return Ok(if ours { Created::New } else { Created::AlreadyExists });
        }
        // Some FUSE and SMB file systems have no hard links.
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {}
            _ => return Err(error),
        },
    }
    match renameat2(AT_FDCWD, &staged.path, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(Created::New),
        Err(Errno::EEXIST) => Ok(Created::AlreadyExists),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => Err(io::Error::other(
            "this file system can neither link nor rename without replacing, so one writer per job cannot be ensured",
        )),
        Err(errno) => Err(errno.into()),
    }
}

#[async_trait]
impl Backend for Local {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.blocking(key, move |this, key| {
            let path = this.path(key);
            let put = || {
                let staged = this.stage(&path, &bytes)?;
                let created = name_new(&staged, &path)?;
                drop(staged);
                sync_directory(path.parent().unwrap_or(&this.root))?;
                Ok(created)
            };
            put().map_err(|error| this.write_error(key, &error))
        })
        .await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.blocking(key, move |this, key| {
            let path = this.path(key);
            let put = || {
                let staged = this.stage(&path, &bytes)?;
                std::fs::rename(&staged.path, &path)?;
                sync_directory(path.parent().unwrap_or(&this.root))
            };
            put().map_err(|error| this.write_error(key, &error))
        })
        .await
    }

    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        self.blocking(key, move |this, key| {
            let read = || -> io::Result<Result<Bytes, StoreError>> {
                let file = Self::open_object(&this.path(key))?;
                let size = file.metadata()?.len();
                if size > max_len {
                    return Ok(Err(StoreError::TooLarge { key: key.to_owned(), size, limit: max_len }));
                }
                let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
                file.take(max_len).read_to_end(&mut bytes)?;
                Ok(Ok(bytes.into()))
            };
            read().map_err(|error| this.error(key, &error))?
        })
        .await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.blocking(key, move |this, key| {
            let read = || -> io::Result<Result<Bytes, StoreError>> {
                let mut file = Self::open_object(&this.path(key))?;
                let size = file.seek(SeekFrom::End(0))?;
                let wanted = range.end - range.start;
                if range.end > size {
                    let got = size.saturating_sub(range.start);
                    return Ok(Err(StoreError::ShortRead { key: key.to_owned(), offset: range.start, wanted, got }));
                }
                let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(Ok(bytes.into()))
            };
            read().map_err(|error| this.error(key, &error))?
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.blocking(key, move |this, key| match std::fs::symlink_metadata(this.path(key)) {
            Ok(metadata) if metadata.is_file() => Ok(Some(info(key.to_owned(), &metadata))),
            Ok(_) => Ok(None),
            Err(error) => match this.error(key, &error) {
                StoreError::NotFound { .. } => Ok(None),
                other => Err(other),
            },
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.blocking(prefix, move |this, prefix| {
            let mut found = Vec::new();
            let mut visit = |path: &Path, hidden: bool| {
                let key = path.strip_prefix(&this.root).ok().and_then(Path::to_str);
                if let (Some(key), false) = (key, hidden) {
                    match std::fs::symlink_metadata(path) {
                        Ok(metadata) => found.push(info(key.to_owned(), &metadata)),
                        // Deleted since the directory was read.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            };
            Self::walk(&this.path(prefix), &mut visit).map_err(|error| this.error(prefix, &error))?;
            Ok(found)
        })
        .await
    }

    /// Empty directories are named too: a file system does not forget them.
    async fn directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.blocking(prefix, move |this, prefix| {
            let read = || -> io::Result<Vec<String>> {
                let mut names = Vec::new();
                for entry in std::fs::read_dir(this.path(prefix))? {
                    let entry = entry?;
                    let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'));
                    names.extend(name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())));
                }
                Ok(names)
            };
            match read().map_err(|error| this.error(prefix, &error)) {
                Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
                other => other,
            }
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.blocking(key, move |this, key| {
            let path = this.path(key);
            let remove = || match std::fs::remove_file(&path) {
                Ok(()) => sync_directory(path.parent().unwrap_or(&this.root)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            remove().map_err(|error| this.write_error(key, &error))
        })
        .await
    }

    async fn sweep(&self, prefix: &str, age: Duration) -> Result<(), StoreError> {
        self.blocking(prefix, move |this, prefix| {
            let now = SystemTime::now();
            let mut visit = |path: &Path, _hidden: bool| {
                let temporary =
                    path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()));
                let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
                let old = metadata.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|since| since > age));
                if temporary && old {
                    let _ = std::fs::remove_file(path);
                }
                Ok(())
            };
            Self::walk(&this.path(prefix), &mut visit).map_err(|error| this.error(prefix, &error))
        })
        .await
    }
}

fn info(key: String, metadata: &std::fs::Metadata) -> ObjectInfo {
    ObjectInfo { key, size: metadata.len(), modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    /// As a bind mount whose source was removed: it is there, and takes nothing.
    #[test]
    fn a_removed_directory_is_an_error_and_no_endless_search() {
        let folder = tempfile::tempdir().unwrap();
        let open = File::open(folder.path()).unwrap();
        drop(folder);
        let path = format!("/proc/self/fd/{}/job/packs", open.as_raw_fd());
        assert_eq!(make_directories(Path::new(&path)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
