//! May a workload run before its memory has arrived?

use super::Check;
use crate::checkpoint::lazy;

pub(super) fn check() -> Check {
    match lazy::available() {
        Ok(()) => Check::good("lazy restore", "userfaultfd, with all events of a memory that changes"),
        Err(error) => Check::limited(
            "lazy restore",
            format!("no userfaultfd that tells of fork, mremap, munmap and madvise: {error}"),
            "all memory is restored before the workload runs, however much it is",
            "securityContext.capabilities.add: [SYS_PTRACE]",
        ),
    }
}
