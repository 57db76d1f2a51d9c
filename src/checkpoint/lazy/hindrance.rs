//! Why a lazy restore is not possible here.

use super::images::{self, MOST};
use super::plan::Plan;
use super::uffd;
use crate::repository::read::Opened;
use crate::supervisor::words;
use std::fs;

/// A limit of the container's memory, where it has one.
const LIMIT: &str = "/sys/fs/cgroup/memory.max";

/// The reason, in words, or none.
pub fn hindrance(opened: &Opened, plan: &Plan) -> Option<String> {
    if let Err(error) = uffd::available() {
        return Some(format!("the container may not use userfaultfd ({error}); it takes the capability SYS_PTRACE"));
    }
    let staged = images::size(opened, plan);
    if staged > MOST {
        return Some(format!(
            "{} of the checkpoint cannot come later, more than the {} that are put into the runtime directory",
            words::bytes(staged),
            words::bytes(MOST)
        ));
    }
    // Forked processes share memory until one of them writes to it. Pages that come one by one are not shared.
    let room = room();
    (plan.lazy_bytes > room).then(|| {
        format!(
            "its processes share memory: {} in all when each has its own, and there is room for {}",
            words::bytes(plan.lazy_bytes),
            words::bytes(room)
        )
    })
}

/// Bytes that the workload may come to use.
fn room() -> u64 {
    let limit = fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)).unwrap_or(u64::MAX);
    limit.min(free)
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
