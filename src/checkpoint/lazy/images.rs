//! The directory that CRIU restores from: every image, but of the pages only those that it reads itself.
//!
//! `--stream` and `--lazy-pages` exclude each other in CRIU. The images of pages are sparse files: their holes are
//! what comes later.

use super::Plan;
use crate::checkpoint::outlet::{FILES_IMAGE, FILES_IMAGE_LIMIT};
use crate::criu::images;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::read::{Opened, ReadError};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes that are copied at a time.
const STEP: usize = 1 << 20;

/// Images of ours, which CRIU never asks for.
const OURS: &str = "revenant-";

/// Why the images could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The repository could not give one.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The runtime directory did not take one.
    #[error("cannot write the images of the lazy restore: {0}")]
    Write(#[from] io::Error),
}

impl Explain for StageError {
    fn explain(&self) -> Problem {
        match self {
            Self::Read(error) => error.explain(),
            Self::Write(_) => Problem::new(
                Exit::CriuUnusable,
                self.to_string(),
                "the runtime directory is full or read-only",
                "mount an emptyDir of some hundred MiB at /run/revenant, or choose --restore eager",
            ),
        }
    }
}

/// The most that is written into the directory, in bytes: it may lie in memory.
pub const MOST: u64 = 256 << 20;

/// How much would be written.
pub fn size(opened: &Opened, plan: &Plan) -> u64 {
    let rest = opened.images().filter(|(name, _)| !name.starts_with(OURS) && !plan.eager.contains_key(*name));
    plan.eager_bytes + rest.map(|(_, length)| length).sum::<u64>()
}

/// Writes them.
pub fn stage(opened: &Opened, plan: &Plan, directory: &Path) -> Result<(), StageError> {
    for (name, length) in opened.images().filter(|(name, _)| !name.starts_with(OURS)) {
        if name == FILES_IMAGE {
            let mut bytes = opened.read(name, FILES_IMAGE_LIMIT)?;
            images::ring_overdue(&mut bytes);
            create(&directory.join(name))?.write_all(&bytes)?;
        } else {
            let file = create(&directory.join(name))?;
            let whole = std::iter::once(0..length);
            let ranges = plan.eager.get(name);
            file.set_len(length)?;
            for range in ranges.into_iter().flatten().cloned().chain(whole.filter(|_| ranges.is_none())) {
                copy(opened, name, range, &file)?;
            }
        }
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn copy(opened: &Opened, name: &str, range: std::ops::Range<u64>, file: &File) -> Result<(), StageError> {
    let mut at = range.start;
    let mut buffer = Vec::new();
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(STEP);
        buffer.resize(length, 0);
        let read = opened.read_at(name, at, &mut buffer)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        file.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}
