//! Extended attributes of files and directories: those that belong to the file, not to the
//! machine. `SELinux` labels are the runtime's choice for each container; overlayfs and integrity
//! attributes belong to the file system.

use super::catalogue::Xattr;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use std::io;
use std::os::fd::AsFd;

/// Attributes that stay where they are.
const NOT_CARRIED: &[&str] =
    &["security.selinux", "security.ima", "security.evm", "security.apparmor", "trusted.overlay.", "system.nfs4_acl"];

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of Linux.
const LONGEST: usize = 65536;

/// The attributes of an open file, by name. File systems without any have none.
pub fn read(fd: impl AsFd) -> io::Result<Vec<Xattr>> {
    let mut buffer = vec![0u8; LONGEST];
    let length = match flistxattr(&fd, &mut buffer[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    let names = String::from_utf8_lossy(&buffer[..length]).into_owned();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        if NOT_CARRIED.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // Listed but not readable without privileges, or gone meanwhile: it cannot travel.
        if let Ok(length) = fgetxattr(&fd, name, &mut buffer[..]) {
            found.push(Xattr { name: name.to_owned(), value: buffer[..length].to_vec() });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Sets attributes; the name of the first that could not be set, with the reason.
pub fn write(fd: impl AsFd, xattrs: &[Xattr]) -> Result<(), (String, io::Error)> {
    let mut first = Ok(());
    for xattr in xattrs {
        if let Err(error) = fsetxattr(&fd, xattr.name.as_str(), &xattr.value, XattrFlags::empty())
            && first.is_ok()
        {
            first = Err((xattr.name.clone(), error.into()));
        }
    }
    first
}
