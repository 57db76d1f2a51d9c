//! Owner, attributes, mode and times of a file that was just made.

use super::catalogue::{Entry, Kind};
use super::rooted::Root;
use super::warnings::Warnings;
use super::xattrs;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timestamps, Uid};
use std::io;
use std::os::fd::AsFd;

const OTHER_OWNER: &str = "files could not be given their owner";
const NO_XATTR: &str = "files could not be given an extended attribute";
const NO_MODE: &str = "files could not be given their mode or times";

/// Dresses a regular file or a directory through its descriptor. What is not allowed is a warning:
/// a workload that does not run as root cannot own other users' files.
pub fn dress_open(fd: impl AsFd, entry: &Entry, warnings: &mut Warnings) {
    // The owner first: changing it clears set-ID bits and file capabilities.
    let now = rustix::fs::fstat(&fd).map(|stat| (stat.st_uid, stat.st_gid));
    if now != Ok((entry.uid, entry.gid))
        && let Err(error) = rustix::fs::fchown(&fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
    {
        warn_owner(entry, error, warnings);
    }
    // Then attributes, while the mode still lets the owner write.
    if let Err((name, error)) = xattrs::write(&fd, &entry.xattrs) {
        warnings.add(
            NO_XATTR,
            &entry.path,
            format!("{name}: {error}"),
            "give the container the capability, or live without",
        );
    }
    let mode = rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode));
    let times = rustix::fs::futimens(&fd, &times(entry));
    if let Err(error) = mode.and(times) {
        warn_mode(entry, error.into(), warnings);
    }
}

/// Dresses anything by its path.
pub fn dress(root: &Root, entry: &Entry, warnings: &mut Warnings) {
    match entry.kind {
        Kind::HardLink { .. } => {}
        Kind::File(_) | Kind::Directory => {
            match root.open_at(&entry.path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
                Ok(fd) => dress_open(fd, entry, warnings),
                Err(error) => warn_mode(entry, error, warnings),
            }
        }
        Kind::Symlink { .. } | Kind::Fifo | Kind::Socket => {
            if let Err(error) = dress_special(root, entry, warnings) {
                warn_mode(entry, error, warnings);
            }
        }
    }
}

fn dress_special(root: &Root, entry: &Entry, warnings: &mut Warnings) -> io::Result<()> {
    let (parent, name) = root.parent(&entry.path)?;
    let now = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (now.st_uid, now.st_gid) != (entry.uid, entry.gid) {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        if let Err(error) = rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            warn_owner(entry, error, warnings);
        }
    }
    // A link has no mode of its own. A FIFO or socket was just made here and is no link.
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        rustix::fs::chmodat(&parent, &name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(&parent, &name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps { last_access: entry.accessed.timespec(), last_modification: entry.modified.timespec() }
}

fn warn_owner(entry: &Entry, error: rustix::io::Errno, warnings: &mut Warnings) {
    let owner = format!("{}:{}: {error}", entry.uid, entry.gid);
    warnings.add(OTHER_OWNER, &entry.path, owner, "run the container as root, or let the workload own its files");
}

fn warn_mode(entry: &Entry, error: io::Error, warnings: &mut Warnings) {
    warnings.add(NO_MODE, &entry.path, error, "run the container as the same user as before");
}
