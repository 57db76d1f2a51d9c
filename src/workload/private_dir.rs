//! Folders that belong to this user alone, so that nobody else plants or reads what is in them.

use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Creates the folder (0700), or makes sure that an existing one is a real folder of ours that
/// others cannot write to or look into.
pub fn create(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() {
        return Err(io::Error::other("not a folder"));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!("belongs to another user (uid {})", found.uid())));
    }
    if found.permissions().mode() & 0o077 != 0 {
        if fs::read_dir(folder)?.next().is_some() {
            return Err(io::Error::other("others may look into it, and it is not empty: it serves something else"));
        }
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_an_open_folder_and_refuses_a_link() {
        let base = tempfile::tempdir().unwrap();
        let open = base.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        create(&open).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().permissions().mode() & 0o777, 0o700);
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(create(&link).is_err());
    }
}
