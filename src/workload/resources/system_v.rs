//! System V objects of this IPC namespace: no process holds them, and a new container does not have them.

use std::fs;

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SystemV {
    /// Semaphore sets.
    pub semaphores: usize,
    /// Message queues.
    pub queues: usize,
}

impl SystemV {
    /// Reads `/proc/sysvipc`.
    pub fn read() -> Self {
        let count = |name: &str| {
            fs::read_to_string(format!("/proc/sysvipc/{name}")).map_or(0, |text| text.lines().skip(1).count())
        };
        Self { semaphores: count("sem"), queues: count("msg") }
    }
}
