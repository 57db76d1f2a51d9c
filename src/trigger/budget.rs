//! How often pressure may cause a save: rarely, and the more rarely the longer it goes on.

use std::time::{Duration, Instant};

/// Between two saves for pressure there is at least this.
const SHORTEST_GAP: Duration = Duration::from_secs(60);
/// And this many times what the last save took, so that saving never takes more than a tenth of the time.
const GAPS_FOR_EACH_COST: u32 = 10;
/// The gap doubles with each save in a row, up to this.
const LONGEST_GAP: Duration = Duration::from_secs(3600);
/// Calm for this many gaps, and the doubling starts again.
const CALM_GAPS: u32 = 4;

/// What pressure may still spend. Time comes in from outside, so that tests need not wait.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// The end of the last save, for whatever reason, and what it took.
    last: Option<(Instant, Duration)>,
    /// Saves for pressure without calm between them.
    in_a_row: u32,
    /// The last of them.
    spent: Option<Instant>,
}

impl Budget {
    /// A save has ended, well or not.
    pub fn saved(&mut self, now: Instant, took: Duration) {
        self.last = Some((now, took));
    }

    /// From when on pressure may cause a save again. None: at once.
    pub fn opens(&self) -> Option<Instant> {
        self.last.map(|(at, _)| at + self.gap())
    }

    /// Takes one save out of the budget, if it has one.
    pub fn spend(&mut self, now: Instant) -> bool {
        if self.opens().is_some_and(|opens| now < opens) {
            return false;
        }
        let calm = self.spent.is_none_or(|spent| now.duration_since(spent) > self.gap() * CALM_GAPS);
        self.in_a_row = if calm { 1 } else { self.in_a_row.saturating_add(1) };
        self.spent = Some(now);
        true
    }

    fn gap(&self) -> Duration {
        let cost = self.last.map_or(Duration::ZERO, |(_, took)| took);
        let doubled = SHORTEST_GAP.saturating_mul(1 << self.in_a_row.saturating_sub(1).min(10));
        doubled
            .max(cost.saturating_mul(GAPS_FOR_EACH_COST))
            .min(LONGEST_GAP.max(cost.saturating_mul(GAPS_FOR_EACH_COST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Pressure that never ends for a day; each save takes `cost`.
    fn saves_in_a_day(cost: Duration) -> u32 {
        let begun = Instant::now();
        let (mut budget, mut saves, mut now) = (Budget::default(), 0, begun);
        while now < begun + SECOND * 86_400 {
            if budget.spend(now) {
                saves += 1;
                now += cost;
                budget.saved(now, cost);
            }
            now += SECOND * 5;
        }
        saves
    }

    #[test]
    fn lasting_pressure_does_not_cause_save_after_save() {
        let cheap = saves_in_a_day(SECOND);
        assert!((10..40).contains(&cheap), "{cheap}");
        let dear = saves_in_a_day(SECOND * 1800);
        assert!((2..6).contains(&dear), "{dear}");
    }

    #[test]
    fn any_save_counts_and_calm_gives_the_budget_back() {
        let begun = Instant::now();
        let mut budget = Budget::default();
        budget.saved(begun, SECOND);
        assert!(!budget.spend(begun + SECOND * 30));
        assert!(budget.spend(begun + SECOND * 61));
        for round in 1..5 {
            budget.saved(begun + SECOND * 3600 * round, SECOND);
            assert!(budget.spend(begun + SECOND * 3600 * round + SECOND * 61), "after an hour of calm");
        }
    }
}
