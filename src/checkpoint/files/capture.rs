//! Taking the files of a frozen workload into a checkpoint.

use super::baseline::Baseline;
use super::catalogue::{CATALOGUE_NAME, CATALOGUE_VERSION, Catalogue, Data, Entry, Kind};
use super::content::FileSink;
use super::held::Held;
use super::layer::Place;
use super::mapped::MappedFile;
use super::pack::{Packed, Packer};
use super::path::{self, RelPath};
use super::policy::FilePolicy;
use super::scan::{Scan, scan};
use super::site::Site;
use super::status::{Status, Time};
use super::survey::{Survey, survey};
use super::volume::VolumeFile;
use super::warnings::Warnings;
use super::xattrs;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::tree::Process;
use rustix::fs::FileType;
use std::collections::{HashMap, HashSet};
use std::io;

/// What a capture took.
#[derive(Debug)]
pub struct Captured {
    /// Paths in the catalogue, on the layer and on volumes.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What could not be kept, and why. The checkpoint is usable without.
    pub warnings: Vec<Problem>,
}

/// Captures the side effects of a frozen tree. Its first process is the root of the tree.
pub fn capture(
    tree: &[Process],
    baseline: &Baseline,
    policy: &FilePolicy,
    sink: &dyn FileSink,
) -> Result<Captured, Problem> {
    let failed = |error: io::Error| unreadable("the workload's mounts", &error);
    let site = match tree.first() {
        Some(root) => Site::of(root.pid),
        None => Site::here(),
    };
    capture_at(&site.map_err(failed)?, &Held::by(tree), baseline, policy, sink)
}

/// Captures from any root directory, given what the processes hold.
pub fn capture_at(
    site: &Site,
    held: &Held,
    baseline: &Baseline,
    policy: &FilePolicy,
    sink: &dyn FileSink,
) -> Result<Captured, Problem> {
    let mut warnings = Warnings::default();
    let scan = scan(&site.root, &site.mounts, policy, baseline.since());
    report_scan(&scan, &mut warnings);
    for pid in &held.closed {
        let path = RelPath::root().join(b"proc").and_then(|p| p.join(pid.to_string().as_bytes()));
        warnings.add(
            "processes could not be looked into: files that they write on volumes may be missing",
            &path.unwrap_or_else(RelPath::root),
            "no permission to read its descriptors",
            "run revenant as the workload's user, or with CAP_SYS_PTRACE",
        );
    }
    let survey = survey(site, held, baseline.job_started(), policy, &mut warnings);
    let directories: Vec<RelPath> =
        scan.changed.iter().filter(|(_, s)| s.kind == FileType::Directory).map(|(path, _)| path.clone()).collect();
    let (mut deleted, unknown) = baseline.missing(&site.root, &site.mounts, &directories);
    deleted.retain(|path| !policy.leaves_out(path) && site.mounts.place(path) == Place::Layer);
    deleted.sort();
    // Only matters to a workload that deletes files of its image; the rest need not read of it each time.
    if !unknown.is_empty() {
        tracing::debug!(?unknown, "deletions in directories that changed before they were listed are not known");
    }
    let layer_files = first_names(&scan);
    respect_limit(&layer_files, &survey, policy.limit_bytes)?;

    let mut packer = Packer::new(&site.root, sink);
    let layer_data = packer.store(&layer_files).map_err(|error| not_stored(&error))?;
    let copies: Vec<(RelPath, Status)> = survey.copied().collect();
    let volume_data = packer.store(&copies).map_err(|error| not_stored(&error))?;

    let contents = packer.contents;
    let entries = entries(site, &scan, &layer_files, layer_data, &mut warnings);
    let volumes = volumes(survey, &copies, volume_data, &mut warnings);
    let mapped = mapped(site, held, policy, &entries, &volumes.0, &mut warnings);
    let catalogue = Catalogue {
        version: CATALOGUE_VERSION,
        job_started: baseline.job_started(),
        taken: Time::now(),
        contents,
        entries,
        deleted,
        volumes: volumes.0,
        own_directories: volumes.1,
        mapped,
    };
    let json = catalogue.to_json().map_err(|error| not_stored(&io::Error::other(error)))?;
    sink.store_bytes(CATALOGUE_NAME, &json).map_err(|error| not_stored(&error))?;
    Ok(Captured {
        files: (catalogue.entries.len() + catalogue.volumes.len()) as u64,
        bytes: catalogue.contents.iter().map(|content| content.bytes).sum(),
        warnings: warnings.into_problems(),
    })
}

fn report_scan(scan: &Scan, warnings: &mut Warnings) {
    for (path, why) in &scan.unreadable {
        warnings.add(
            "directories could not be read: changes in them are not kept",
            path,
            why,
            "run revenant as root, or `--ignore` them",
        );
    }
    if let Some(path) = &scan.cut_at {
        warnings.add(
            "directories were too many to look at: changes below the first are not kept",
            path,
            "the container's layer has millions of files",
            "put the workload's files on a volume, or `--ignore` what need not be kept",
        );
    }
}

/// The first name of each regular file, in order of paths.
fn first_names(scan: &Scan) -> Vec<(RelPath, Status)> {
    let mut seen = HashSet::new();
    scan.changed
        .iter()
        .filter(|(_, s)| s.kind == FileType::RegularFile && (s.links < 2 || seen.insert(s.identity)))
        .map(|(path, status)| (path.clone(), *status))
        .collect()
}

fn respect_limit(layer: &[(RelPath, Status)], survey: &Survey, limit: u64) -> Result<(), Problem> {
    let mut files: Vec<(u64, RelPath)> = layer
        .iter()
        .cloned()
        .chain(survey.copied())
        .map(|(path, status)| (status.size.min(status.allocated), path))
        .collect();
    let total: u64 = files.iter().map(|(bytes, _)| bytes).sum();
    if total <= limit {
        return Ok(());
    }
    files.sort_by(|a, b| b.cmp(a));
    let largest: Vec<String> = files.iter().take(5).map(|(bytes, path)| format!("{path} ({})", mib(*bytes))).collect();
    Err(Problem::new(
        Exit::Failure,
        format!("the files to keep are {}, the limit is {}", mib(total), mib(limit)),
        format!("the workload wrote them in the container's own layer; largest: {}", largest.join(", ")),
        "put them on a volume, leave them out with `--ignore PATH`, or raise `--file-limit`",
    ))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn entries(
    site: &Site,
    scan: &Scan,
    files: &[(RelPath, Status)],
    packed: Vec<Packed>,
    warnings: &mut Warnings,
) -> Vec<Entry> {
    let mut data: HashMap<&RelPath, Packed> = files.iter().map(|(path, _)| path).zip(packed).collect();
    let mut first: HashMap<(u64, u64), RelPath> = HashMap::new();
    let mut entries = Vec::new();
    for (path, status) in &scan.changed {
        let kind = match status.kind {
            FileType::RegularFile => match data.remove(path) {
                Some(Ok(data)) => {
                    first.insert(status.identity, path.clone());
                    Ok(Kind::File(data))
                }
                Some(Err(error)) => Err(error),
                None => match first.get(&status.identity) {
                    Some(to) => Ok(Kind::HardLink { to: to.clone() }),
                    None => continue,
                },
            },
            FileType::Directory => Ok(Kind::Directory),
            FileType::Symlink => {
                site.root.link_target(path).map(|target| Kind::Symlink { target: path::escape(&target) })
            }
            FileType::Fifo => Ok(Kind::Fifo),
            FileType::Socket => Ok(Kind::Socket),
            _ => Err(io::Error::other("it is a device")),
        };
        match kind {
            Ok(kind) => entries.push(entry(site, path, status, kind)),
            Err(error) => warnings.add(
                "files could not be read and are not kept",
                path,
                error,
                "run revenant as the workload's user or as root, or `--ignore` them",
            ),
        }
    }
    entries
}

fn entry(site: &Site, path: &RelPath, status: &Status, kind: Kind) -> Entry {
    let xattrs = match &kind {
        Kind::File(_) => site.root.read(path).and_then(xattrs::read),
        Kind::Directory => site.root.directory(path).and_then(xattrs::read),
        _ => Ok(Vec::new()),
    };
    Entry {
        path: path.clone(),
        mode: status.mode,
        uid: status.uid,
        gid: status.gid,
        accessed: status.accessed,
        modified: status.modified,
        // A file that could be read a moment ago and cannot now has none that matter.
        xattrs: xattrs.unwrap_or_default(),
        kind,
    }
}

fn volumes(
    survey: Survey,
    copies: &[(RelPath, Status)],
    answers: Vec<Packed>,
    warnings: &mut Warnings,
) -> (Vec<VolumeFile>, Vec<RelPath>) {
    let mut data: HashMap<&RelPath, Data> = HashMap::new();
    for ((path, _), packed) in copies.iter().zip(answers) {
        match packed {
            Ok(packed) => drop(data.insert(path, packed)),
            Err(error) => warnings.add(
                "files on volumes could not be copied",
                path,
                error,
                "run revenant as the workload's user, or use `--volume PATH=record`",
            ),
        }
    }
    let own = survey.own_directories;
    let files = survey.files.into_values().map(|mut seen| {
        seen.file.copy = data.remove(&seen.file.path);
        seen.file
    });
    (files.collect(), own)
}

/// Everything held that travels neither with the layer nor with a volume.
fn mapped(
    site: &Site,
    held: &Held,
    policy: &FilePolicy,
    entries: &[Entry],
    volumes: &[VolumeFile],
    warnings: &mut Warnings,
) -> Vec<MappedFile> {
    let kept: HashSet<&RelPath> =
        entries.iter().map(|entry| &entry.path).chain(volumes.iter().map(|file| &file.path)).collect();
    let mut mapped = Vec::new();
    for (path, hold) in &held.files {
        if kept.contains(path) || policy.leaves_out(path) || site.mounts.is_kernels(path) {
            continue;
        }
        match MappedFile::observe(&site.root, path, hold.mapped) {
            Ok(file) => mapped.push(file),
            Err(error) => warnings.add(
                "files in use could not be looked at",
                path,
                error,
                "nothing; a restore cannot tell whether the next image has the same ones",
            ),
        }
    }
    mapped
}

fn unreadable(what: &str, error: &io::Error) -> Problem {
    Problem::new(
        Exit::Failure,
        format!("{what} cannot be read: {error}"),
        "the process has ended, or revenant may not look into it",
        "run revenant as the workload's user or as root",
    )
}

fn not_stored(error: &io::Error) -> Problem {
    Problem::new(
        Exit::StoreUnavailable,
        format!("the workload's files could not be stored: {error}"),
        "the store does not take data, or a file could not be read to its end",
        "see the messages about the store; the previous checkpoint stands",
    )
}
