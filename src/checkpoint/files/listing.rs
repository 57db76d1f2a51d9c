//! The files that a catalogue speaks of, as a comparison of two needs them.

use super::catalogue::{Catalogue, Kind};
use super::status::Time;
use std::collections::BTreeMap;

/// A regular file at the moment of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Bytes, holes included.
    pub size: u64,
    /// Last change of the content.
    pub modified: Time,
    /// Whether it is on a volume, not in the container's own layer.
    pub on_volume: bool,
}

/// The regular files of a catalogue, by absolute path.
pub fn listing(catalogue: &Catalogue) -> BTreeMap<String, Listed> {
    let layer = catalogue.entries.iter().filter_map(|entry| match &entry.kind {
        Kind::File(data) => Some((&entry.path, Listed { size: data.size, modified: entry.modified, on_volume: false })),
        _ => None,
    });
    let volumes = catalogue
        .volumes
        .iter()
        .map(|file| (&file.path, Listed { size: file.size, modified: file.modified, on_volume: true }));
    layer.chain(volumes).map(|(path, listed)| (path.to_string(), listed)).collect()
}
