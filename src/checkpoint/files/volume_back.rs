//! Rolling files on volumes back to the checkpoint. Nothing is lost: what is cut off, replaced or
//! newer goes to a dated folder beside it. Every step can be repeated after a crash.

use super::path::RelPath;
use super::plan::Plan;
use super::site::Site;
use super::survey::ASIDE_PREFIX;
use super::volume::{Step, VolumeFile};
use super::warnings::Warnings;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timestamps, Uid};
use std::fs::File;
use std::io::{self, Seek};
use std::time::SystemTime;

/// A cut-off end longer than this is not kept: the job writes it again.
const LONGEST_TAIL: u64 = 64 << 20;

/// The folder for what is moved aside, for example `.revenant-aside-20250131T120000Z`.
pub(super) fn aside_name(now: SystemTime) -> Vec<u8> {
    let stamp = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
    [ASIDE_PREFIX, stamp.as_bytes()].concat()
}

/// Performs the steps that need no content; returns how many files were changed. Steps that
/// restore a copy only clear the place here.
pub fn roll_back(plan: &Plan, aside: &[u8], warnings: &mut Warnings) -> io::Result<u64> {
    let mut changed = 0;
    let site = &plan.site;
    // Newer files first: one of them may have the name of a file that comes back.
    for path in &plan.newer {
        move_aside(site, path, aside)?;
        changed += 1;
    }
    for (file, step) in plan.catalogue.volumes.iter().zip(&plan.steps) {
        match step {
            Step::Keep | Step::Refuse(_) => continue,
            Step::Truncate { .. } => cut(site, file, aside, warnings)?,
            Step::RenameBack { from, .. } => {
                rename(site, from, &file.path)?;
                cut(site, file, aside, warnings)?;
            }
            Step::Restore => {
                if site.root.status_if_any(&file.path)?.is_some() {
                    move_aside(site, &file.path, aside)?;
                }
            }
        }
        changed += 1;
    }
    Ok(changed)
}

/// Cuts a file back to its recorded size and time.
fn cut(site: &Site, file: &VolumeFile, aside: &[u8], warnings: &mut Warnings) -> io::Result<()> {
    let open = File::from(site.root.open_at(&file.path, OFlags::RDWR | OFlags::NONBLOCK, Mode::empty())?);
    let length = open.metadata()?.len();
    if length > file.size {
        if length - file.size <= LONGEST_TAIL {
            keep_tail(site, file, &open, aside)?;
        } else {
            let why = format!("{} bytes were cut off and not kept", length - file.size);
            warnings.add("files on volumes had long ends that the job will write again", &file.path, why, "nothing");
        }
        open.set_len(file.size)?;
    }
    finish(&open, file)
}

fn finish(open: &File, file: &VolumeFile) -> io::Result<()> {
    // The time of the checkpoint, so that a second restore, or a build tool, sees the same file.
    let time = file.modified.timespec();
    rustix::fs::futimens(open, &Timestamps { last_access: time, last_modification: time })?;
    open.sync_all()
}

fn keep_tail(site: &Site, file: &VolumeFile, open: &File, aside: &[u8]) -> io::Result<()> {
    let Some(kept) = aside_path(&file.path, aside, &format!(".from-byte-{}", file.size)) else { return Ok(()) };
    site.create_parents(&kept)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let mut tail = File::from(site.root.open_at(&kept, flags, Mode::from_raw_mode(0o600))?);
    let mut from = open;
    from.seek(io::SeekFrom::Start(file.size))?;
    io::copy(&mut from, &mut tail)?;
    tail.sync_all()
}

/// Makes a file for a copy from the checkpoint.
pub fn create(site: &Site, file: &VolumeFile) -> io::Result<File> {
    site.create_parents(&file.path)?;
    site.remove(&file.path)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    Ok(File::from(site.root.open_at(&file.path, flags, Mode::from_raw_mode(0o600))?))
}

/// Gives a copy its owner, mode and time.
pub fn dress(open: &File, file: &VolumeFile, warnings: &mut Warnings) -> io::Result<()> {
    if let Err(error) = rustix::fs::fchown(open, Some(Uid::from_raw(file.uid)), Some(Gid::from_raw(file.gid))) {
        warnings.add(
            "files on volumes could not be given their owner",
            &file.path,
            error,
            "run the container as the same user",
        );
    }
    rustix::fs::fchmod(open, Mode::from_raw_mode(file.mode))?;
    finish(open, file)
}

fn rename(site: &Site, from: &RelPath, to: &RelPath) -> io::Result<()> {
    let (from_parent, from_name) = site.root.parent(from)?;
    let (to_parent, to_name) = site.root.parent(to)?;
    rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name)?;
    sync(&to_parent)
}

fn sync(directory: &std::os::fd::OwnedFd) -> io::Result<()> {
    let readable =
        rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(readable)?)
}

/// Moves a file to the dated folder beside it, under a name that is free there.
fn move_aside(site: &Site, path: &RelPath, aside: &[u8]) -> io::Result<()> {
    for attempt in 0..1000 {
        let suffix = if attempt == 0 { String::new() } else { format!(".{attempt}") };
        let Some(to) = aside_path(path, aside, &suffix) else { break };
        site.create_parents(&to)?;
        let (from_parent, from_name) = site.root.parent(path)?;
        let (to_parent, to_name) = site.root.parent(&to)?;
        if rustix::fs::statat(&to_parent, &to_name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            continue;
        }
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name)?;
        return sync(&from_parent);
    }
    Err(io::Error::other("no free name in the folder for what is moved aside"))
}

/// `dir/name` → `dir/.revenant-aside-…/name` + suffix.
fn aside_path(path: &RelPath, aside: &[u8], suffix: &str) -> Option<RelPath> {
    let (directory, name) = path.split()?;
    let name = [std::os::unix::ffi::OsStrExt::as_bytes(name), suffix.as_bytes()].concat();
    directory.join(aside)?.join(&name)
}
