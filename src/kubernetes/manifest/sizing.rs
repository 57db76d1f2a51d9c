//! Requests and limits as multiples of the expected use: the groups' own practice.

use super::answers::{Answers, Tier};

/// What is asked of the scheduler, and what the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Requested CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Requested memory, in MiB.
    pub memory_mib: u64,
    /// Memory limit, in MiB; none for long runs.
    pub memory_limit_mib: Option<u64>,
}

impl Resources {
    /// For an expected peak of memory, in MiB, and an expected use of CPU, in thousandths of a core. See [`resources`].
    pub fn of(tier: Tier, memory_mib: u64, cpu_milli: u64) -> Self {
        let times = |value: u64, tenths: u64| (value * tenths).div_ceil(10);
        match tier {
            Tier::Critical | Tier::Standard => {
                Self { cpu_milli: times(cpu_milli, 15), memory_mib: times(memory_mib, 15), memory_limit_mib: None }
            }
            Tier::Short => {
                Self { cpu_milli, memory_mib: times(memory_mib, 8), memory_limit_mib: Some(times(memory_mib, 12)) }
            }
        }
    }
}

/// Long runs: 1.5 times CPU and memory requested, no limits, so that a spike does not kill and eviction takes
/// others first. Short ones beside them: CPU as used, memory 0.8 requested and 1.2 allowed, so that they yield.
/// A CPU limit is never set: it would throttle saves too.
pub fn resources(answers: &Answers) -> Resources {
    Resources::of(answers.tier, answers.memory_mib, answers.cpu_milli)
}

/// As Kubernetes writes it.
pub fn cpu(milli: u64) -> String {
    if milli.is_multiple_of(1000) { format!("\"{}\"", milli / 1000) } else { format!("{milli}m") }
}

/// As Kubernetes writes it.
pub fn memory(mib: u64) -> String {
    if mib.is_multiple_of(1024) { format!("{}Gi", mib / 1024) } else { format!("{mib}Mi") }
}
