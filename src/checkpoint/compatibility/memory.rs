//! Whether what the workload had in memory fits into this container.

use super::Misfit;
use crate::supervisor::words;
use crate::workload::tree::Process;
use serde::{Deserialize, Serialize};
use std::fs;

/// What processes have in memory of their own, in bytes: anonymous pages, shared memory and swap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Of the largest process: this much is needed at least.
    pub largest: u64,
    /// Of all together. Pages that processes share (after a fork) count more than once: at most this much is needed.
    pub all: u64,
}

/// How much there is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// The container's limit, or all of the node's.
    pub limit: Option<u64>,
    /// Free on the node, or soon made free.
    pub available: Option<u64>,
}

impl Footprint {
    /// Of these processes.
    pub fn of(tree: &[Process]) -> Self {
        let own =
            |process: &Process| fs::read_to_string(format!("/proc/{}/status", process.pid)).map(|text| own(&text));
        let sizes: Vec<u64> = tree.iter().filter_map(|process| own(process).ok()).collect();
        Self { largest: sizes.iter().copied().max().unwrap_or(0), all: sizes.iter().sum() }
    }
}

fn own(status: &str) -> u64 {
    ["RssAnon:", "RssShmem:", "VmSwap:"].iter().filter_map(|name| kibibytes(status, name)).sum()
}

/// A line like `VmSwap:      12 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where a container sees its own limit: control groups version 2, then version 1.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

impl Memory {
    /// Of this container.
    pub fn here() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = kibibytes(&meminfo, "MemTotal:");
        let limit = LIMITS.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
        Self {
            // "max" is no number, and version 1 says 2^63 less a page for no limit.
            limit: [limit, total].into_iter().flatten().min(),
            available: kibibytes(&meminfo, "MemAvailable:"),
        }
    }
}

/// Too little is refused when it is certain, and told when it is likely.
pub fn check(need: Footprint, here: Memory) -> Option<Misfit> {
    let bytes = words::bytes;
    let remedy = |need| format!("give the container at least {} (resources.limits.memory)", bytes(need));
    let cause = "the container would be killed while the memory is filled";
    let limit = here.limit?;
    if need.largest > limit {
        let what =
            format!("the workload had {} in memory, this container may use {}", bytes(need.largest), bytes(limit));
        return Some(Misfit::new(true, what, cause, remedy(need.largest)));
    }
    if need.all > limit {
        let what = format!(
            "the workload's processes had up to {} in memory, this container may use {}",
            bytes(need.all),
            bytes(limit)
        );
        return Some(Misfit::new(false, what, cause, remedy(need.all)));
    }
    let available = here.available.filter(|available| need.largest > *available)?;
    Some(Misfit::new(
        false,
        format!("the workload had {} in memory, this node has {} left", bytes(need.largest), bytes(available)),
        "the node would have to take memory from others, or kill",
        "schedule the pod on a node with more free memory (resources.requests.memory)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_texts() {
        let status = "VmRSS:\t  9000 kB\nRssAnon:\t     100 kB\nRssFile:\t 7 kB\nRssShmem:\t 20 kB\nVmSwap:\t 3 kB\n";
        assert_eq!(own(status), 123 * 1024);
        assert!(Memory::here().limit.is_some_and(|limit| limit > 64 << 20));
    }

    #[test]
    fn what_is_certain_refuses_and_what_is_likely_warns() {
        let need = Footprint { largest: 4 << 30, all: 9 << 30 };
        let here = |limit: u64, available: u64| Memory { limit: Some(limit << 30), available: Some(available << 30) };
        let misfit = check(need, here(2, 1)).unwrap();
        assert!(misfit.refuses);
        assert_eq!(misfit.what, "the workload had 4.00 GiB in memory, this container may use 2.00 GiB");
        assert!(!check(need, here(8, 8)).unwrap().refuses);
        assert!(check(need, here(16, 3)).unwrap().what.contains("3.00 GiB left"));
        assert_eq!(check(need, here(16, 16)), None);
        assert_eq!(check(need, Memory::default()), None);
    }
}
