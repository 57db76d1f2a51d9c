//! Side effects: the files that belong to the state of a workload.
//!
//! Files of the container's own layer travel with the checkpoint. Files on volumes are recorded
//! and rolled back. Programs and libraries are compared. See `docs/files.md`.
//!
//! A container takes a [`Baseline`] when it starts. A save calls [`capture()`] while the tree is
//! frozen. The next container calls [`plan()`] and [`bring_back()`] before CRIU restores.

mod baseline;
mod bring_back;
mod capture;
mod catalogue;
mod content;
mod digest;
mod dress;
mod extents;
mod held;
mod layer;
mod leftovers;
mod listing;
mod mapped;
mod pack;
mod path;
mod plan;
mod policy;
mod rooted;
mod scan;
mod site;
mod status;
mod survey;
mod volume;
mod volume_back;
mod volume_look;
mod warnings;
mod xattrs;

pub use baseline::{Baseline, When};
pub use bring_back::{Report, bring_back};
pub use capture::{Captured, capture, capture_at};
pub use catalogue::{CATALOGUE_LIMIT, CATALOGUE_NAME, Catalogue, Kind};
pub use content::{FileSink, FileSource};
pub use held::{Held, Hold};
pub use layer::{Mounts, Place};
pub use leftovers::remove_leftovers;
pub use listing::{Listed, listing};
pub use path::RelPath;
pub use plan::{Plan, plan, plan_at};
pub use policy::{FilePolicy, VolumeMode};
pub use rooted::Root;
pub use site::Site;
pub use volume::{Obstacle, Step};

use std::io;
use std::time::Duration;

/// The baseline of this container: the moment now, and the names in the image as far as `budget`
/// goes. Take it before a restore brings files back or a fresh workload starts.
pub fn baseline(budget: Duration) -> io::Result<Baseline> {
    let site = Site::here()?;
    let mut baseline = Baseline::now(&site.root);
    baseline.list(&site, When::BeforeTheWorkload, budget);
    Ok(baseline)
}

#[cfg(test)]
mod tests;
