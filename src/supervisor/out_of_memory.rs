//! What is known of the memory that the workload was killed for want of: what it had, and by how much that was too
//! little. The kernel does not tell what was asked for; see [`Basis`] for what it is estimated from.

use super::words;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// One OOM kill of the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// When it was noticed.
    pub at: SystemTime,
    /// The lowest memory limit, in bytes.
    pub limit: Option<u64>,
    /// The most that the container has used, in bytes: at a memory limit, never more than that.
    pub peak: Option<u64>,
    /// The most that it has used with swap, in bytes, where that is counted.
    pub peak_with_swap: Option<u64>,
    /// What its processes had asked for at the last look, in bytes; see [`crate::workload::asked`].
    pub asked: Option<u64>,
    /// How fast its memory grew at last, in bytes a second.
    pub growth_per_second: Option<u64>,
    /// By how much all of that exceeds the limit; none where nothing tells.
    pub excess: Option<Excess>,
}

/// By how much the limit was exceeded, or would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excess {
    /// In bytes.
    pub bytes: u64,
    /// How that is known.
    pub basis: Basis,
}

/// How an excess is known, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Measured: what was swapped out besides a full limit.
    Swapped,
    /// An estimate: what the processes had asked for and not yet got.
    Asked,
    /// An estimate, and the least: what one more second of the same growth would have taken.
    Growth,
}

impl OutOfMemory {
    /// From what was seen.
    #[must_use]
    pub fn judge(mut self) -> Self {
        let over =
            |bytes: Option<u64>, limit: u64| bytes.map(|bytes| bytes.saturating_sub(limit)).filter(|over| *over > 0);
        let of = |basis| move |bytes| Excess { bytes, basis };
        self.excess = self.limit.and_then(|limit| {
            // Asked for is what comes; swapped is what has come already.
            let asked = over(self.asked, limit);
            // Pages are charged in batches, so the two counts differ a little without any swap.
            let swapped = over(self.peak_with_swap, limit).filter(|swapped| *swapped > limit / 64);
            let swapped = swapped.filter(|swapped| asked.is_none_or(|asked| *swapped >= asked));
            let growth = self.growth_per_second;
            swapped.map(of(Basis::Swapped)).or(asked.map(of(Basis::Asked))).or(growth.map(of(Basis::Growth)))
        });
        self
    }

    /// A limit that would have done, as far as can be told, in bytes: a quarter more at least, and a tenth to spare.
    pub fn advised(&self) -> Option<u64> {
        let limit = self.limit?;
        let needed = limit.saturating_add(self.excess.map_or(0, |excess| excess.bytes));
        Some(limit.saturating_add(limit / 4).max(needed.saturating_add(needed / 10)))
    }

    /// In words.
    pub fn words(&self) -> String {
        let (Some(limit), Some(advised)) = (self.limit, self.advised()) else {
            return "the kernel has killed it for want of memory".to_owned();
        };
        let peak = self.peak.map_or_else(String::new, |peak| format!(", the peak was {}", words::bytes(peak)));
        let swap = match self.peak_with_swap.filter(|with| *with > limit + limit / 64) {
            Some(with) => format!(" ({} with swap)", words::bytes(with)),
            None => String::new(),
        };
        format!(
            "the kernel has killed it because the container's memory limit is too small: the limit is {}{peak}{swap}, and {}; \
             raise the limit to {} or more",
            words::bytes(limit),
            self.exceeded(),
            words::bytes(advised)
        )
    }

    fn exceeded(&self) -> String {
        match self.excess {
            Some(Excess { bytes, basis: Basis::Swapped }) => {
                format!("what was swapped out exceeds the limit by {}", words::bytes(bytes))
            }
            Some(Excess { bytes, basis: Basis::Asked }) => format!(
                "its processes had asked for {}, which exceeds the limit by {} (an estimate)",
                words::bytes(self.asked.unwrap_or(0)),
                words::bytes(bytes)
            ),
            Some(Excess { bytes, basis: Basis::Growth }) => format!(
                "it grew by {0} a second, so it exceeds the limit by {0} at least (an estimate)",
                words::bytes(bytes)
            ),
            None => "it wanted more (the kernel does not tell how much)".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn killed(asked: Option<u64>, with_swap: Option<u64>, growth: Option<u64>) -> OutOfMemory {
        let unjudged = OutOfMemory {
            at: SystemTime::UNIX_EPOCH,
            limit: Some(GIB),
            peak: Some(GIB),
            peak_with_swap: with_swap,
            asked,
            growth_per_second: growth,
            excess: None,
        };
        unjudged.judge()
    }

    #[test]
    fn the_surest_knowledge_speaks_and_an_estimate_says_so() {
        let asked = killed(Some(3 * GIB), Some(GIB), Some(1 << 20));
        insta::assert_snapshot!(asked.words(), @"the kernel has killed it because the container's memory limit is too small: the limit is 1.00 GiB, the peak was 1.00 GiB, and its processes had asked for 3.00 GiB, which exceeds the limit by 2.00 GiB (an estimate); raise the limit to 3.30 GiB or more");
        let grown = killed(Some(GIB / 2), None, Some(64 << 20));
        insta::assert_snapshot!(grown.words(), @"the kernel has killed it because the container's memory limit is too small: the limit is 1.00 GiB, the peak was 1.00 GiB, and it grew by 64.0 MiB a second, so it exceeds the limit by 64.0 MiB at least (an estimate); raise the limit to 1.25 GiB or more");
        let swapped = killed(None, Some(2 * GIB), None);
        insta::assert_snapshot!(swapped.words(), @"the kernel has killed it because the container's memory limit is too small: the limit is 1.00 GiB, the peak was 1.00 GiB (2.00 GiB with swap), and what was swapped out exceeds the limit by 1.00 GiB; raise the limit to 2.20 GiB or more");
        assert_eq!(killed(None, Some(GIB + (1 << 18)), Some(5)).excess.map(|excess| excess.basis), Some(Basis::Growth));
        assert!(killed(None, None, None).words().contains("the kernel does not tell how much"));
    }

    #[test]
    fn what_was_asked_for_counts_when_it_is_more_than_what_was_swapped() {
        let both = killed(Some(3 * GIB), Some(2 * GIB), None);
        assert_eq!(both.excess, Some(Excess { bytes: 2 * GIB, basis: Basis::Asked }));
    }

    #[test]
    fn without_a_limit_nothing_is_advised() {
        let none = OutOfMemory { limit: None, ..killed(Some(GIB), None, None) };
        assert_eq!((none.advised(), none.words().as_str()), (None, "the kernel has killed it for want of memory"));
    }
}
