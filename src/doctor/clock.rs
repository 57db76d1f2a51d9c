//! Will `CLOCK_MONOTONIC` go on where it stood, on another node too?

use super::Check;
use crate::criu::probe::Probe;
use std::path::Path;

/// Shown with `CONFIG_TIME_NS` only; see `time_namespaces(7)`.
const OFFSETS: &str = "/proc/self/timens_offsets";

pub(super) fn check(probe: &Probe) -> Check {
    let namespaces = Path::new(OFFSETS).exists();
    if namespaces && probe.missing_for_clock.is_empty() {
        return Check::good("clock", "CLOCK_MONOTONIC can be kept across nodes");
    }
    let names: Vec<_> = probe.missing_for_clock.iter().map(|capability| capability.name()).collect();
    let meaning = "a workload that continues on a node that was started later sees CLOCK_MONOTONIC go back, and its timed \
                   waits last too long";
    if namespaces {
        let remedy = format!("securityContext.capabilities.add: [{}]", names.join(", "));
        Check::limited("clock", format!("{} missing", names.join(", ")), meaning, remedy)
    } else {
        Check::limited("clock", "the kernel has no time namespaces", meaning, "use a node with CONFIG_TIME_NS")
    }
}
