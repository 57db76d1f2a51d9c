//! Whether the store outlives the container.

use super::engine::Events;
use super::files::{Mounts, RelPath};
use crate::exit::Exit;
use crate::explain::Problem;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use std::path::Path;

/// Warns when a `file://` store lies in the container's own layer: its checkpoints die with it.
pub fn warn_if_ephemeral(store: &str, events: &Events) {
    if let Some(path) = store.strip_prefix("file://")
        && is_in_a_container()
        && is_in_its_own_layer(Path::new(path))
    {
        events.warn(Problem::new(
            Exit::StoreUnavailable,
            format!("the store {store} is part of this container: its checkpoints will be gone with the container"),
            "no volume is mounted there",
            format!("mount a volume at {path}, or name another store (--store, REVENANT_STORE)"),
        ));
    }
}

/// Containers have an overlay as their root; machines hardly ever do.
fn is_in_a_container() -> bool {
    statfs("/").is_ok_and(|root| root.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

fn is_in_its_own_layer(path: &Path) -> bool {
    let (Ok(mounts), Ok(path)) = (Mounts::here(), RelPath::from_absolute(path)) else { return false };
    mounts.point_of(&path).is_root()
}
