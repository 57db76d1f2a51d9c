//! One thing that cannot be carried, as a person reads it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What it does to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// No save can succeed while it is there.
    Prevents,
    /// CRIU would succeed, and the restored workload would be another one: no save is made, not even the last.
    Spoils,
    /// A save succeeds, and a restored workload will not have it as it was.
    Loses,
}

/// Something that a process holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// What it does to a checkpoint.
    pub effect: Effect,
    /// The process; none when it belongs to the container.
    pub pid: Option<i32>,
    /// The name of its program, at most 15 characters.
    pub program: String,
    /// The descriptor's number, if it is one.
    pub descriptor: Option<i32>,
    /// What is held: `an io_uring`, `the device /dev/nvidia0`.
    pub what: String,
    /// Why it cannot be carried.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Effect {
    /// All of them, the worst first.
    pub const ALL: [Self; 3] = [Self::Prevents, Self::Spoils, Self::Loses];

    /// Its name, as in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prevents => "prevents",
            Self::Spoils => "spoils",
            Self::Loses => "loses",
        }
    }

    /// Whether a save is refused for it.
    pub fn refuses(self) -> bool {
        matches!(self, Self::Prevents | Self::Spoils)
    }
}

impl Finding {
    /// The same thing, for telling it once: descriptors and processes come and go.
    pub fn key(&self) -> (Effect, &str, &str) {
        (self.effect, &self.program, &self.what)
    }
}

/// One sentence without the remedy.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.descriptor) {
            (Some(pid), Some(fd)) => write!(f, "process {pid} ({}), descriptor {fd}: {}", self.program, self.what)?,
            (Some(pid), None) => write!(f, "process {pid} ({}): {}", self.program, self.what)?,
            (None, _) => write!(f, "{}", self.what)?,
        }
        write!(f, "; {}", self.reason)
    }
}
