//! Being told by a control group of version 1, instead of looking: `cgroup.event_control`.
//!
//! The protocol (Documentation/admin-guide/cgroup-v1/memory.rst, sections 9 and 11): write `EVENTFD FD ARGUMENT` there,
//! where FD is the open file that the event is about, and the kernel adds to the eventfd each time. It forgets the
//! registration when the eventfd is closed. Containers mostly have their control groups mounted read-only: then
//! registering fails, and one has to look.
#![allow(unsafe_code)] // Watching a descriptor by its number.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which pressure the kernel tells of. What harms is in the name of each, as the kernel calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// It frees less than half of what it looks at.
    Medium,
    /// It frees next to nothing of it.
    Critical,
}

/// Counts what the kernel tells.
#[derive(Debug)]
pub struct Bell(EventFd);

impl Bell {
    /// Rings whenever the group's use of memory, with its file cache, passes this many bytes, up or down.
    pub fn at_use(group: &Path, bytes: u64) -> io::Result<Self> {
        Self::register(group, "memory.usage_in_bytes", &bytes.to_string())
    }

    /// Rings for as long as there is this pressure or more, in the group or below it.
    pub fn at_pressure(group: &Path, pressure: Pressure) -> io::Result<Self> {
        let level = match pressure {
            Pressure::Medium => "medium,hierarchy",
            Pressure::Critical => "critical,hierarchy",
        };
        Self::register(group, "memory.pressure_level", level)
    }

    fn register(group: &Path, file: &str, argument: &str) -> io::Result<Self> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let about = File::open(group.join(file))?;
        let mut control = File::options().write(true).open(group.join("cgroup.event_control"))?;
        // In one write.
        let line = format!("{} {} {argument}", bell.as_fd().as_raw_fd(), about.as_raw_fd());
        control.write_all(line.as_bytes())?;
        Ok(Self(bell))
    }

    /// How often it has rung since the last time that this was asked.
    pub fn take(&self) -> u64 {
        // An error is EAGAIN: it has not rung.
        self.0.read().unwrap_or(0)
    }

    /// Returns once it has rung and was not yet taken. It is only listened to meanwhile: the kernel may ring a thousand
    /// times a second, and none of that wakes anybody who does not wait.
    pub async fn rings(&self) {
        // SAFETY: the descriptor is borrowed from `self`, which outlives the registration.
        let waiting = unsafe { AsyncFd::register_with_interest(self.0.as_fd(), Interest::READABLE) };
        if let Ok(waiting) = waiting
            && waiting.readable().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn counts_and_rings_until_it_is_taken() {
        let bell = Bell(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap());
        assert_eq!(bell.take(), 0);
        assert!(tokio::time::timeout(Duration::from_millis(20), bell.rings()).await.is_err());
        bell.0.write(3).unwrap();
        bell.rings().await;
        bell.rings().await;
        assert_eq!((bell.take(), bell.take()), (3, 0));
        assert!(tokio::time::timeout(Duration::from_millis(20), bell.rings()).await.is_err());
    }

    #[test]
    fn a_folder_that_is_no_group_is_an_error_and_not_a_silent_bell() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("memory.usage_in_bytes"), "1").unwrap();
        assert!(Bell::at_use(folder.path(), 1).is_err());
    }
}
