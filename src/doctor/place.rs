//! Room to work: a private folder that programs may run from, memory, disk.

use super::Check;
use crate::explain::Explain;
use crate::supervisor::words;
use crate::workload::cgroup::memory::Memory;
use crate::workload::reaper;
use nix::sys::statvfs::statvfs;
use std::path::Path;

/// What a save takes besides the workload's own memory (docs/benchmarks.md).
const MEMORY_OF_A_SAVE: u64 = 256 << 20;
/// CRIU's logs and small files.
const SPACE: u64 = 64 << 20;

pub(super) fn checks() -> Vec<Check> {
    vec![folder(), memory()]
}

fn folder() -> Check {
    match reaper::install_in(&reaper::folders()) {
        Err(error) => Check::bad("folder", &error.explain()),
        Ok(path) => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let free = free_bytes(folder).unwrap_or(u64::MAX);
            let found = format!("{}, {} free", folder.display(), words::bytes(free));
            if free < SPACE {
                Check::limited(
                    "folder",
                    found,
                    "there may be no room for CRIU's logs and small files, and a save may fail",
                    "mount a volume at /run/revenant (in Kubernetes: an emptyDir)",
                )
            } else {
                Check::good("folder", found)
            }
        }
    }
}

fn memory() -> Check {
    let Some(used) = Memory::here().and_then(|memory| memory.look()) else {
        return Check::good("memory", "no limit is known");
    };
    match used.headroom() {
        None => Check::good("memory", "no limit"),
        Some(left) if left < MEMORY_OF_A_SAVE => Check::limited(
            "memory",
            format!("{} left below the container's limit", words::bytes(left)),
            format!("a save takes up to {} besides the workload's own memory", words::bytes(MEMORY_OF_A_SAVE)),
            "raise resources.limits.memory by that much",
        ),
        Some(left) => Check::good("memory", format!("{} left below the container's limit", words::bytes(left))),
    }
}

/// Free for this user.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let found = statvfs(path).ok()?;
    Some(found.blocks_available().saturating_mul(found.fragment_size()))
}
