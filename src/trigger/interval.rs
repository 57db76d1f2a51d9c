//! How often to save when nobody announces anything: the interval that loses least, after Young and Daly.
//!
//! J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation
//! Computer Systems 22 (2006), equation 37: with a save that costs `c` and a mean time `m` between ends,
//! `sqrt(2cm) · (1 + sqrt(c/2m)/3 + c/2m/9) − c` for `c < 2m`, else `m`. The first term is J. W. Young's (1974).

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Between two saves, whatever the formula says.
const SHORTEST: Duration = Duration::from_secs(60);
/// And at the most.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Before anything is known: a container lives for a day. It counts like one observed end.
const PRIOR: Duration = Duration::from_secs(24 * 3600);
/// Before a save has been measured: when to make the first.
const FIRST: Duration = Duration::from_secs(600);
/// Each interval is shorter or longer by up to this part.
const JITTER: f64 = 0.1;

/// How often to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// As the user said.
    Fixed(Duration),
    /// As cost and risk say.
    Auto,
}

/// How the job's containers have fared: kept in the store as the claims and their last signs of life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Containers of this job that have ended.
    pub ended: u32,
    /// How long they lived, in all.
    pub lived: Duration,
}

/// The mean time between two ends of this job's containers: what was told, else what was observed.
pub fn mtbf(told: Option<Duration>, history: History, alive: Duration) -> Duration {
    told.unwrap_or_else(|| (PRIOR + history.lived + alive) / (history.ended + 1)).max(Duration::from_secs(1))
}

/// The time from one save to the next. `cost` is what the last save took from start to end: more than the workload
/// loses to it, but a store and a network pay as well.
pub fn between(every: Every, cost: Option<Duration>, mtbf: Duration) -> Duration {
    match (every, cost) {
        (Every::Fixed(fixed), _) => fixed,
        (Every::Auto, None) => FIRST.min(mtbf / 2).max(SHORTEST),
        (Every::Auto, Some(cost)) => daly(cost, mtbf).clamp(SHORTEST, LONGEST).max(cost),
    }
}

fn daly(cost: Duration, mtbf: Duration) -> Duration {
    let (c, m) = (cost.as_secs_f64(), mtbf.as_secs_f64());
    if c >= 2.0 * m {
        return mtbf;
    }
    let part = (c / (2.0 * m)).sqrt();
    let best = (2.0 * c * m).sqrt() * (1.0 + part / 3.0 + part * part / 9.0) - c;
    Duration::try_from_secs_f64(best).unwrap_or(mtbf)
}

/// Moves an interval, so that pods that started together do not save together. `chance` is from 0 to 1; the first
/// interval of a container may be cut down to half.
pub fn jittered(interval: Duration, chance: f64, first: bool) -> Duration {
    let chance = chance.clamp(0.0, 1.0);
    interval.mul_f64(if first { 0.5 + chance / 2.0 } else { 1.0 - JITTER + 2.0 * JITTER * chance })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn is_dalys() {
        // sqrt(2 · 60 · 86400) = 3220 s; the corrections add 20 s and take the 60 s of the save.
        assert_eq!(between(Every::Auto, Some(MINUTE), 24 * HOUR).as_secs(), 3180);
        assert_eq!(between(Every::Auto, Some(10 * HOUR), 4 * HOUR), 10 * HOUR, "a save must end before the next");
        assert_eq!(between(Every::Auto, Some(Duration::from_millis(5)), HOUR), MINUTE);
        assert_eq!(between(Every::Fixed(5 * MINUTE), Some(HOUR), HOUR), 5 * MINUTE);
        assert_eq!(between(Every::Auto, None, 24 * HOUR), 10 * MINUTE);
    }

    #[test]
    fn the_observed_rate_takes_over_from_the_guess() {
        let seen = |ended, lived| mtbf(None, History { ended, lived }, Duration::ZERO);
        assert_eq!(seen(0, Duration::ZERO), 24 * HOUR);
        assert_eq!(seen(1, 2 * HOUR), 13 * HOUR);
        assert!(seen(99, 99 * HOUR) < 2 * HOUR);
        assert_eq!(mtbf(None, History::default(), 240 * HOUR), 264 * HOUR, "a long life counts while it lasts");
        assert_eq!(mtbf(Some(HOUR), History { ended: 99, lived: HOUR }, HOUR), HOUR);
    }

    /// The interval minimizes the time lost: saves at `cost` each, and half an interval with every end.
    #[test]
    fn no_other_interval_loses_less() {
        for (cost, mtbf) in [(5.0, 3600.0), (60.0, 86_400.0), (300.0, 14_400.0)] {
            let lost = |t: f64| cost / t + (t + cost) / (2.0 * mtbf);
            let best = daly(Duration::from_secs_f64(cost), Duration::from_secs_f64(mtbf)).as_secs_f64();
            for factor in [0.5, 0.7, 1.5, 2.0] {
                assert!(lost(best) < lost(best * factor), "{cost} {mtbf} {factor}");
            }
        }
    }

    proptest! {
        #[test]
        fn jitter_stays_small(chance in -1.0f64..2.0, seconds in 1u64..100_000) {
            let interval = Duration::from_secs(seconds);
            let moved = jittered(interval, chance, false).as_secs_f64() / interval.as_secs_f64();
            prop_assert!((0.899..=1.101).contains(&moved));
            let first = jittered(interval, chance, true).as_secs_f64() / interval.as_secs_f64();
            prop_assert!((0.499..=1.001).contains(&first));
        }
    }
}
