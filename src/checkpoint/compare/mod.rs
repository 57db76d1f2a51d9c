//! What changed between two generations: by process and mapping, and by file.
//!
//! *Before* and *after* are bytes of memory that the two generations hold (pages that were never
//! touched, or are those of a file on disk, are in neither). *New* is how much of the newer one is in
//! chunks that the older one has nowhere: what a save of the newer one against the older one has to
//! store, before compression. It counts whole chunks, so one changed page counts as its chunk.

mod extent;
mod files;
mod memory;
mod tree;

pub use files::FileChange;
pub use memory::{MappingChange, ProcessChange, SharedChange};

use super::files as side_effects;
use crate::criu::images::ImageError;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::read::{Opened, ReadError};
use extent::Known;
use tree::Tree;

/// No image that is read whole is longer: the pagemap of a process of some terabytes.
const IMAGE_LIMIT: u64 = 512 << 20;

/// What changed from an older generation to a newer one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    /// Bytes of memory in the older one.
    pub memory_before: u64,
    /// Bytes of memory in the newer one.
    pub memory_after: u64,
    /// Bytes of these that the older one has nowhere.
    pub memory_new: u64,
    /// Processes of either, by PID.
    pub processes: Vec<ProcessChange>,
    /// Memory that processes share, by its number.
    pub shared: Vec<SharedChange>,
    /// Files that differ, by path.
    pub files: Vec<FileChange>,
}

/// Why two generations cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// One has an image that CRIU did not write like this.
    #[error("the image {name} {source}")]
    Image {
        /// Which.
        name: String,
        /// In what respect.
        source: ImageError,
    },
    /// One has a file catalogue that cannot be read.
    #[error("its list of files cannot be used: {0}")]
    Catalogue(String),
}

impl Explain for CompareError {
    fn explain(&self) -> Problem {
        match self {
            Self::Read(error) => error.explain(),
            Self::Image { .. } | Self::Catalogue(_) => Problem::new(
                Exit::Failure,
                format!("the generations cannot be compared: {self}"),
                "one was saved by a revenant or CRIU of another version",
                "compare generations that this revenant can read; both are unharmed",
            ),
        }
    }
}

/// Compares two generations. Blocks: to be called outside of the runtime's own threads.
pub fn compare(older: &Opened, newer: &Opened) -> Result<Comparison, CompareError> {
    let known = Known::of(older)?;
    let before = Tree::read(older, None)?;
    let after = Tree::read(newer, Some(&known))?;
    let processes = memory::processes(&before, &after);
    let shared = memory::shared(&before, &after);
    Ok(Comparison {
        memory_before: before.bytes(),
        memory_after: after.bytes(),
        memory_new: after.new_bytes(),
        processes,
        shared,
        files: files::changes(older, newer)?,
    })
}

/// A whole small image; none if there is no such.
fn image<T>(
    opened: &Opened,
    name: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, ImageError>,
) -> Result<Option<T>, CompareError> {
    if opened.image(name).is_none() {
        return Ok(None);
    }
    let bytes = opened.read(name, IMAGE_LIMIT)?;
    parse(&bytes).map(Some).map_err(|source| CompareError::Image { name: name.to_owned(), source })
}
