//! Bringing files back before a restore. Each step leaves a path either as it was or as it shall
//! be, or is done again: after a crash in the middle the same plan leads to the same result.

use super::catalogue::{Data, Entry, Kind};
use super::content::FileSource;
use super::dress::{dress, dress_open};
use super::pack::unpack;
use super::path::{self, RelPath};
use super::plan::Plan;
use super::site::Site;
use super::volume::{Step, VolumeFile};
use super::volume_back;
use super::warnings::Warnings;
use crate::exit::Exit;
use crate::explain::Problem;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

/// What was brought back.
#[derive(Debug)]
pub struct Report {
    /// Paths of the container's layer.
    pub layer: u64,
    /// Paths that were deleted again.
    pub deleted: u64,
    /// Files on volumes that were changed.
    pub volumes: u64,
    /// Bytes of content written.
    pub bytes: u64,
    /// What could not be kept.
    pub warnings: Vec<Problem>,
}

/// What one image's data goes to.
#[derive(Clone, Copy)]
enum Target<'a> {
    Layer(&'a Entry, &'a Data),
    Volume(&'a VolumeFile, &'a Data),
}

impl<'a> Target<'a> {
    fn data(self) -> &'a Data {
        match self {
            Self::Layer(_, data) | Self::Volume(_, data) => data,
        }
    }
}

/// Does what the plan says. Refused plans are refused here, too.
pub fn bring_back(plan: &Plan, source: &dyn FileSource) -> Result<Report, Problem> {
    if let Some(refusal) = plan.refusal() {
        return Err(refusal);
    }
    check_space(plan)?;
    let mut warnings = Warnings::default();
    let blocked: HashSet<&RelPath> = plan.blocked.iter().map(|(path, _)| path).collect();
    let entries: Vec<&Entry> =
        plan.catalogue.entries.iter().filter(|entry| is_written(plan, entry, &blocked)).collect();
    let run = || -> Result<(u64, u64), (String, io::Error)> {
        let deleted = delete(plan, &mut warnings);
        make_directories(&plan.site, &entries)?;
        let aside = volume_back::aside_name(SystemTime::now());
        let volumes = volume_back::roll_back(plan, &aside, &mut warnings)
            .map_err(|error| ("the files on volumes".to_owned(), error))?;
        fill(plan, &entries, source, &mut warnings)?;
        make_others(&plan.site, &entries)?;
        // Directories last and deepest first: making what is in them changed their times.
        for entry in entries.iter().rev().filter(|entry| !matches!(entry.kind, Kind::File(_))) {
            dress(&plan.site.root, entry, &mut warnings);
        }
        Ok((deleted, volumes))
    };
    let (deleted, volumes) = run_and_explain(run)?;
    Ok(Report {
        layer: entries.len() as u64,
        deleted,
        volumes,
        bytes: targets(plan, &entries).iter().map(|target| target.data().bytes()).sum(),
        warnings: warnings.into_problems(),
    })
}

fn run_and_explain<T>(run: impl FnOnce() -> Result<T, (String, io::Error)>) -> Result<T, Problem> {
    run().map_err(|(what, error)| {
        let (cause, next) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ("the file system is full", "give the container more ephemeral storage, or a larger volume")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                ("the file system is read-only", "mount the same places writable as before")
            }
            io::ErrorKind::PermissionDenied => {
                ("this container's user may not write there", "run the container as the same user as before")
            }
            _ => (
                "the store could not give the content, or the file system refused it",
                "see the error; use an older generation if this one is damaged",
            ),
        };
        Problem::new(Exit::RestoreRefused, format!("{what} could not be brought back: {error}"), cause, next)
    })
}

/// Whether an entry is written here: not blocked, and not a directory of another file system.
fn is_written(plan: &Plan, entry: &Entry, blocked: &HashSet<&RelPath>) -> bool {
    let place = plan.site.mounts.place(&entry.path);
    !blocked.contains(&entry.path) && place == super::layer::Place::Layer && !plan.policy.leaves_out(&entry.path)
}

fn check_space(plan: &Plan) -> Result<(), Problem> {
    for (point, needed) in plan.needed() {
        let Ok(fd) = plan.site.root.directory(&point) else { continue };
        let Ok(space) = rustix::fs::fstatvfs(fd) else { continue };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < needed {
            return Err(Problem::new(
                Exit::RestoreRefused,
                format!("the workload's files need {needed} bytes on {point}, {free} are free"),
                "this container's layer is smaller than the last one's, or the node's disk is full",
                "give the container more ephemeral storage, or choose another node",
            ));
        }
    }
    Ok(())
}

fn delete(plan: &Plan, warnings: &mut Warnings) -> u64 {
    let mut deleted = 0;
    for path in &plan.catalogue.deleted {
        if plan.site.mounts.place(path) != super::layer::Place::Layer || plan.policy.leaves_out(path) {
            continue;
        }
        match plan.site.remove(path) {
            Ok(()) => deleted += 1,
            Err(error) => warnings.add(
                "files of the image could not be deleted again",
                path,
                error,
                "nothing, if the workload does not look",
            ),
        }
    }
    deleted
}

type Done<T> = Result<T, (String, io::Error)>;

fn at(path: &RelPath) -> impl Fn(io::Error) -> (String, io::Error) + '_ {
    move |error| (path.to_string(), error)
}

fn make_directories(site: &Site, entries: &[&Entry]) -> Done<()> {
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Directory) {
        make_directory(site, &entry.path).map_err(at(&entry.path))?;
    }
    Ok(())
}

fn make_directory(site: &Site, path: &RelPath) -> io::Result<()> {
    if let Some(status) = site.root.status_if_any(path)? {
        if status.kind == FileType::Directory {
            return Ok(());
        }
        site.remove(path)?;
    }
    site.create_parents(path)?;
    let (parent, name) = site.root.parent(path)?;
    Ok(rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?)
}

/// Files with content, by image and place in it.
fn targets<'a>(plan: &'a Plan, entries: &[&'a Entry]) -> Vec<Target<'a>> {
    let layer = entries.iter().filter_map(|entry| match &entry.kind {
        Kind::File(data) => Some(Target::Layer(entry, data)),
        _ => None,
    });
    let volumes = plan.catalogue.volumes.iter().zip(&plan.steps).filter_map(|(file, step)| match (step, &file.copy) {
        (Step::Restore, Some(copy)) => Some(Target::Volume(file, copy)),
        _ => None,
    });
    let mut targets: Vec<Target<'a>> = layer.chain(volumes).collect();
    targets.sort_by_key(|target| (target.data().extents.is_empty(), target.data().content, target.data().at));
    targets
}

fn fill(plan: &Plan, entries: &[&Entry], source: &dyn FileSource, warnings: &mut Warnings) -> Done<()> {
    let targets = targets(plan, entries);
    let name = |target: Target<'_>| match target {
        Target::Layer(entry, _) => entry.path.clone(),
        Target::Volume(file, _) => file.path.clone(),
    };
    let create = |index: usize| match targets[index] {
        Target::Layer(entry, _) => create_file(&plan.site, &entry.path),
        Target::Volume(file, _) => volume_back::create(&plan.site, file),
    };
    let mut finish = |index: usize, file: File| match targets[index] {
        Target::Layer(entry, _) => {
            dress_open(&file, entry, warnings);
            Ok(())
        }
        Target::Volume(record, _) => volume_back::dress(&file, record, warnings),
    };
    let numbered: Vec<(usize, &Data)> = targets.iter().map(|target| target.data()).enumerate().collect();
    for group in
        numbered.chunk_by(|(_, a), (_, b)| a.content == b.content && a.extents.is_empty() == b.extents.is_empty())
    {
        let Some((first, data)) = group.first() else { continue };
        if data.extents.is_empty() {
            // Empty files and files of nothing but a hole need no image.
            for (index, data) in group {
                let made = create(*index).and_then(|file| file.set_len(data.size).map(|()| file));
                made.and_then(|file| finish(*index, file)).map_err(at(&name(targets[*index])))?;
            }
            continue;
        }
        let content = usize::try_from(data.content).ok().and_then(|index| plan.catalogue.contents.get(index));
        let Some(content) = content else { continue };
        let about = || format!("{} (with {} more files)", name(targets[*first]), group.len() - 1);
        unpack(source, content, group, create, &mut finish).map_err(|error| (about(), error))?;
    }
    Ok(())
}

fn create_file(site: &Site, path: &RelPath) -> io::Result<File> {
    site.create_parents(path)?;
    // Removed, not overwritten: another name of the image's file must keep its content.
    site.remove(path)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    Ok(File::from(site.root.open_at(path, flags, Mode::from_raw_mode(0o600))?))
}

/// Second names, symbolic links, FIFOs and sockets.
fn make_others(site: &Site, entries: &[&Entry]) -> Done<()> {
    for entry in entries {
        make_other(site, entry).map_err(at(&entry.path))?;
    }
    Ok(())
}

fn make_other(site: &Site, entry: &Entry) -> io::Result<()> {
    if matches!(entry.kind, Kind::File(_) | Kind::Directory) {
        return Ok(());
    }
    site.create_parents(&entry.path)?;
    site.remove(&entry.path)?;
    let (parent, name) = site.root.parent(&entry.path)?;
    let mode = Mode::from_raw_mode(0o600);
    match &entry.kind {
        Kind::HardLink { to } => {
            let (from, old) = site.root.parent(to)?;
            rustix::fs::linkat(from, old, parent, name, AtFlags::empty())?;
        }
        Kind::Symlink { target } => {
            let target = path::unescape(target).unwrap_or_default();
            rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, name)?;
        }
        Kind::Fifo => rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)?,
        Kind::Socket => rustix::fs::mknodat(parent, name, FileType::Socket, mode, 0)?,
        Kind::File(_) | Kind::Directory => {}
    }
    Ok(())
}
