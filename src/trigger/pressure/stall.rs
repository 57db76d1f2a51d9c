//! Pressure stall information: how much time is lost for want of memory.
//!
//! Format and triggers: the kernel's Documentation/accounting/psi.rst. Where the file can be written, the kernel
//! itself rings as soon as stalls pass a bound, and nobody needs to look more often.
#![allow(unsafe_code)] // Watching a descriptor by its number.

use crate::workload::cgroup;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Rings when all processes together have lost 400 ms of 2 s. Without `CAP_SYS_RESOURCE` the kernel takes only
/// windows of whole multiples of 2 s.
const BOUND: &[u8] = b"full 400000 2000000\0";

/// The node's stalls.
pub const NODE: &str = "/proc/pressure/memory";

/// The part of the last ten seconds in which no process could go on; from 0 to 1.
pub fn full_of_ten_seconds(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let percent: f64 = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    Some(percent / 100.0)
}

/// The kernel's alarm, where it gives one.
#[derive(Debug)]
pub struct Alarm(io::Result<AsyncFd<File>>);

impl Default for Alarm {
    fn default() -> Self {
        Self(Err(io::ErrorKind::NotFound.into()))
    }
}

impl Alarm {
    /// For the group of this container. To be called inside the runtime.
    pub fn of_this_container() -> Self {
        cgroup::with_stalls().map_or_else(Self::default, |folder| Self(Self::on(&folder.join("memory.pressure"))))
    }

    /// For the whole node. Nobody needs a right for that, where the kernel is 6.4 or later and `/proc` is writable.
    pub fn of_the_node() -> Self {
        Self(Self::on(Path::new(NODE)))
    }

    /// Why the kernel gives none.
    pub fn refused(&self) -> Option<&io::Error> {
        self.0.as_ref().err()
    }

    /// On this file.
    fn on(file: &Path) -> io::Result<AsyncFd<File>> {
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file)?;
        file.write_all(BOUND)?;
        // SAFETY: the file owns its descriptor and keeps it open until it is dropped with the AsyncFd.
        unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.map_err(Into::into)
    }

    /// Returns when it rings; never where there is none. The kernel rings once in a window at the most.
    pub async fn rings(&mut self) {
        if let Ok(alarm) = &self.0 {
            match alarm.ready(Interest::PRIORITY).await {
                Ok(mut guard) => {
                    guard.clear_ready();
                    return;
                }
                // The group is gone.
                Err(error) => self.0 = Err(error),
            }
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_format() {
        let text =
            "some avg10=3.00 avg60=1.00 avg300=0.50 total=4711\nfull avg10=12.50 avg60=0.00 avg300=0.00 total=9\n";
        assert!((full_of_ten_seconds(text).unwrap() - 0.125).abs() < 1e-9);
        assert_eq!(full_of_ten_seconds("some avg10=1.00\n"), None);
    }
}
