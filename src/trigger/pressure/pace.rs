//! How long until the next look: short when memory grows towards its limit, long when nothing moves.

use std::time::{Duration, Instant};

/// When nothing moves.
const LONGEST: Duration = Duration::from_secs(5);
/// However fast memory grows.
const SHORTEST: Duration = Duration::from_millis(250);
/// Looks before the limit would be reached at the present speed.
const LOOKS_BEFORE: u32 = 8;

/// Remembers the last look.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<(Instant, u64)>,
}

impl Pace {
    /// The pause after a look that saw this much of this limit, in bytes.
    pub fn after(&mut self, now: Instant, seen: Option<(u64, u64)>) -> Duration {
        let Some((held, limit)) = seen else { return LONGEST };
        let Some((then, before)) = self.last.replace((now, held)) else { return SHORTEST };
        let (grown, took) = (held.saturating_sub(before), now.duration_since(then));
        if grown == 0 {
            return LONGEST;
        }
        let left = u128::from(limit.saturating_sub(held));
        let until_full = took.as_millis().saturating_mul(left) / u128::from(grown);
        let until_full = Duration::from_millis(u64::try_from(until_full).unwrap_or(u64::MAX));
        (until_full / LOOKS_BEFORE).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_several_times_before_the_limit_is_reached() {
        for speed in [1_u64, 10, 30] {
            let (begun, mut pace, mut looks) = (Instant::now(), Pace::default(), 0);
            let mut now = begun;
            let held = |now: Instant| u64::try_from(now.duration_since(begun).as_millis()).unwrap() * speed;
            while held(now) < 90_000 {
                now += pace.after(now, Some((held(now), 100_000)));
                looks += 1;
            }
            assert!(looks >= 5 && held(now) < 100_000, "{looks} looks at {speed}");
        }
    }

    #[test]
    fn sleeps_when_nothing_moves() {
        let (now, mut pace) = (Instant::now(), Pace::default());
        pace.after(now, Some((500, 1000)));
        assert_eq!(pace.after(now + LONGEST, Some((500, 1000))), LONGEST);
        assert_eq!(pace.after(now + LONGEST * 2, None), LONGEST);
    }
}
