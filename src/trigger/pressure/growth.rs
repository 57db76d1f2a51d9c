//! How fast the container's memory grows.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Older looks say nothing about now.
const WINDOW: Duration = Duration::from_secs(20);
/// Four looks a second at most.
const MOST: usize = 96;

/// The last looks.
#[derive(Debug, Default)]
pub struct Growth {
    looks: VecDeque<(Instant, u64)>,
    /// When half of it was let go of, and how fast it had grown until then: the kernel takes the memory of a killed
    /// process away before anybody hears of its end.
    until_let_go: Option<(Instant, u64)>,
}

impl Growth {
    /// So many bytes were held. What has let go of half of it is another workload, or another phase of it.
    pub fn seen(&mut self, now: Instant, held: u64) {
        if self.looks.back().is_some_and(|(_, before)| held < before / 2) {
            self.until_let_go = self.now().map(|rate| (now, rate));
            self.looks.clear();
        }
        while self.looks.len() >= MOST || self.looks.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.looks.pop_front();
        }
        self.looks.push_back((now, held));
    }

    /// Bytes a second, from where it began to grow. None when it does not, or nothing is known.
    pub fn per_second(&self) -> Option<u64> {
        let (last, _) = self.looks.back()?;
        let until = self.until_let_go.filter(|(at, _)| last.duration_since(*at) <= WINDOW);
        until.map(|(_, rate)| rate).or_else(|| self.now())
    }

    fn now(&self) -> Option<u64> {
        let (last_at, last) = *self.looks.back()?;
        // What lies flat before is not growth: from the last look that saw no more than the lowest.
        let lowest = self.looks.iter().map(|(_, held)| *held).min()?;
        let level = lowest.saturating_add(lowest / 50);
        let (first_at, first) = *self.looks.iter().rev().find(|(_, held)| *held <= level)?;
        let millis = last_at.duration_since(first_at).as_millis();
        let grown = u128::from(last.saturating_sub(first)).saturating_mul(1000).checked_div(millis)?;
        u64::try_from(grown).ok().filter(|grown| *grown > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(looks: &[(u64, u64)]) -> Option<u64> {
        let (begun, mut growth) = (Instant::now(), Growth::default());
        for (ms, held) in looks {
            growth.seen(begun + Duration::from_millis(*ms), *held);
        }
        growth.per_second()
    }

    #[test]
    fn counts_from_where_it_began_to_grow() {
        assert_eq!(growth(&[(0, 1000), (5000, 1000), (10_000, 1010), (11_000, 1510), (12_000, 2010)]), Some(500));
        assert_eq!(growth(&[(0, 1000), (5000, 1000)]), None);
        assert_eq!(growth(&[(0, 1000)]), None);
    }

    #[test]
    fn what_was_let_go_of_and_what_is_long_ago_does_not_count() {
        assert_eq!(growth(&[(0, 900), (60_000, 5000), (61_000, 1000), (62_000, 1200)]), Some(200));
        assert_eq!(growth(&[(0, 1), (60_000, 5000), (61_000, 5600)]), Some(600));
    }

    #[test]
    fn what_was_let_go_of_a_moment_ago_grew_as_it_did_before() {
        assert_eq!(growth(&[(0, 1000), (1000, 1500), (2000, 2000), (2200, 90)]), Some(500));
    }

    #[test]
    fn is_bounded() {
        let (begun, mut growth) = (Instant::now(), Growth::default());
        for look in 0..10_000 {
            growth.seen(begun + Duration::from_millis(look), 1 << 20);
        }
        assert!(growth.looks.len() <= MOST);
    }
}
