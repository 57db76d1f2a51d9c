//! Whether a workload's monotonic clock goes on in this container, or jumps.
//!
//! Each machine counts from its own start. A workload that is restored where less time has passed waits
//! in every timed wait until the new clock has reached the old one: it hangs, perhaps for weeks. In a
//! time namespace of its own the clock goes on where it was.

use crate::criu::probe::{Probe, Rights};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::clock::{Clocks, Offsets};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What to do where the clock would go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ClockPolicy {
    /// Do not restore: refuse with an explanation.
    #[default]
    Require,
    /// Restore all the same, with a warning.
    BestEffort,
}

/// A clock may go back this far without a word: timed waits take that much longer, once.
const NEGLIGIBLE: Duration = Duration::from_secs(2);

/// What becomes of the clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// They go on, in a new time namespace.
    Continue,
    /// They jump ahead, or back by next to nothing: harmless.
    Jump,
    /// They go back, and the user wants it so.
    GoBack(Problem),
}

/// Decides. `can_continue`: whether this container may make time namespaces.
pub fn plan(then: Clocks, here: Clocks, can_continue: bool, policy: ClockPolicy) -> Result<Plan, Problem> {
    if can_continue {
        return Ok(Plan::Continue);
    }
    let back = then.monotonic.saturating_sub(here.monotonic);
    if back <= NEGLIGIBLE {
        return Ok(Plan::Jump);
    }
    let back = humantime::format_duration(Duration::from_secs(back.as_secs()));
    let problem = Problem::new(
        Exit::RestoreRefused,
        format!("the monotonic clock of this machine is {back} behind the workload's"),
        "machines count from their own start; the workload would hang that long in its timed waits (sleep, poll, …)",
        "add the capabilities SYS_ADMIN and SYS_TIME, with which the clock goes on; or run it on a machine that has \
         been up longer; --clock best-effort restores all the same",
    );
    match policy {
        ClockPolicy::Require => Err(problem),
        ClockPolicy::BestEffort => Ok(Plan::GoBack(problem)),
    }
}

/// Whether time namespaces can be made here.
pub fn can_continue() -> bool {
    let allowed = Rights::current().is_ok_and(|rights| Probe::of(&rights).missing_for_clock.is_empty());
    allowed && std::path::Path::new("/proc/self/timens_offsets").exists()
}

/// The offsets with which CRIU is started, read as late as possible.
pub fn offsets(then: Clocks) -> Result<Offsets, Problem> {
    Offsets::that_continue(then).map_err(|error| {
        Problem::new(
            Exit::Failure,
            format!("the clocks cannot be read: {error}"),
            "/proc is not mounted as usual",
            "mount /proc in the container as usual",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Clocks {
        Clocks { monotonic: Duration::from_secs(seconds), boottime: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_clock_that_would_go_back_is_refused_or_told_of() {
        let refused = plan(at(500_000), at(1_000), false, ClockPolicy::Require).unwrap_err();
        assert_eq!(refused.exit, Exit::RestoreRefused.code());
        assert_eq!(refused.what, "the monotonic clock of this machine is 5days 18h 36m 40s behind the workload's");
        let told = plan(at(500_000), at(1_000), false, ClockPolicy::BestEffort).unwrap();
        assert_eq!(told, Plan::GoBack(refused));
    }

    #[test]
    fn it_goes_on_where_it_can_and_may_jump_ahead() {
        for policy in [ClockPolicy::Require, ClockPolicy::BestEffort] {
            assert_eq!(plan(at(500), at(10), true, policy), Ok(Plan::Continue));
            assert_eq!(plan(at(10), at(500), true, policy), Ok(Plan::Continue), "no sleeper wakes too early");
            assert_eq!(plan(at(10), at(500), false, policy), Ok(Plan::Jump));
            assert_eq!(plan(at(11), at(10), false, policy), Ok(Plan::Jump));
        }
    }
}
