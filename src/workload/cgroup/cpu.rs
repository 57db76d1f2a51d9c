//! The processor time of the container's group.
//!
//! Names of files and keys: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cpuacct.rst.

use super::{keyed, number};
use std::fs;
use std::time::Duration;

/// What the container has used since it began. None where its group is not to be seen.
pub fn used() -> Option<Duration> {
    let group = super::of("cpuacct")?;
    if group.unified {
        keyed(&fs::read_to_string(group.folder.join("cpu.stat")).ok()?, "usage_usec").map(Duration::from_micros)
    } else {
        number(&group.folder.join("cpuacct.usage")).map(Duration::from_nanos)
    }
}
