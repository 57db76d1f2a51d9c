//! Files that came, went, grew, shrank or were written.

use super::CompareError;
use super::side_effects::{CATALOGUE_LIMIT, CATALOGUE_NAME, Catalogue, Listed, listing};
use crate::repository::read::Opened;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A file that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path in the container.
    pub path: String,
    /// Whether it is on a volume, not in the container's own layer.
    pub on_volume: bool,
    /// Bytes before; none if it was not there.
    pub before: Option<u64>,
    /// Bytes after; none if it is gone.
    pub after: Option<u64>,
}

pub(super) fn changes(older: &Opened, newer: &Opened) -> Result<Vec<FileChange>, CompareError> {
    Ok(differ(&files(older)?, &files(newer)?))
}

fn files(opened: &Opened) -> Result<BTreeMap<String, Listed>, CompareError> {
    if opened.image(CATALOGUE_NAME).is_none() {
        return Ok(BTreeMap::new());
    }
    let bytes = opened.read(CATALOGUE_NAME, CATALOGUE_LIMIT)?;
    let catalogue = Catalogue::from_json(&bytes).map_err(|defect| CompareError::Catalogue(defect.to_string()))?;
    Ok(listing(&catalogue))
}

fn differ(before: &BTreeMap<String, Listed>, after: &BTreeMap<String, Listed>) -> Vec<FileChange> {
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = |path: &&String| {
        let facts = |listed: Option<&Listed>| listed.map(|listed| (listed.size, listed.modified));
        facts(before.get(*path)) != facts(after.get(*path))
    };
    let change = |path: &String| FileChange {
        path: path.clone(),
        on_volume: after.get(path).or(before.get(path)).is_some_and(|listed| listed.on_volume),
        before: before.get(path).map(|listed| listed.size),
        after: after.get(path).map(|listed| listed.size),
    };
    paths.into_iter().filter(changed).map(change).collect()
}
