//! A gauge that fires once when it rises above a level, and again only after it has fallen well below.

/// Where a gauge fires, and where it is armed again. Both in the gauge's unit; for a gauge that must not fall,
/// both are compared the other way round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// Fires here.
    pub fire: f64,
    /// Armed again here. Farther from trouble than `fire`.
    pub rearm: f64,
}

/// What a new value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// It has just become too much.
    Fired,
    /// It is still too much, or not yet little enough.
    Lasting,
    /// All is well.
    Calm,
}

/// The memory of one gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hysteresis {
    band: Band,
    fired: bool,
}

impl Hysteresis {
    /// Armed.
    pub fn new(band: Band) -> Self {
        Self { band, fired: false }
    }

    /// Takes the next value. A value that is not a number is no news.
    pub fn feed(&mut self, value: f64) -> Edge {
        let Band { fire, rearm } = self.band;
        let (beyond, recovered) =
            if fire >= rearm { (value >= fire, value <= rearm) } else { (value <= fire, value >= rearm) };
        match (self.fired, beyond, recovered) {
            (false, true, _) => {
                self.fired = true;
                Edge::Fired
            }
            (true, _, true) => {
                self.fired = false;
                Edge::Calm
            }
            (true, ..) => Edge::Lasting,
            (false, ..) => Edge::Calm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fires_once_until_it_has_recovered() {
        use Edge::{Calm, Fired, Lasting};
        let mut gauge = Hysteresis::new(Band { fire: 0.9, rearm: 0.8 });
        let seen: Vec<Edge> = [0.5, 0.91, 0.95, 0.85, 0.92, 0.79, 0.9].map(|value| gauge.feed(value)).into();
        assert_eq!(seen, [Calm, Fired, Lasting, Lasting, Lasting, Calm, Fired]);
    }

    #[test]
    fn a_gauge_that_must_not_fall_is_the_same_upside_down() {
        let mut left = Hysteresis::new(Band { fire: 0.1, rearm: 0.15 });
        assert_eq!(
            [0.5, 0.09, 0.12, 0.2, 0.1].map(|value| left.feed(value)),
            [Edge::Calm, Edge::Fired, Edge::Lasting, Edge::Calm, Edge::Fired]
        );
        assert_eq!(left.feed(f64::NAN), Edge::Lasting);
    }

    proptest! {
        #[test]
        fn between_two_firings_it_was_calm(values in proptest::collection::vec(0.0f64..1.0, 0..200)) {
            let mut gauge = Hysteresis::new(Band { fire: 0.9, rearm: 0.7 });
            let mut calm = true;
            for value in values {
                match gauge.feed(value) {
                    Edge::Fired => {
                        prop_assert!(calm && value >= 0.9);
                        calm = false;
                    }
                    Edge::Calm => calm = true,
                    Edge::Lasting => prop_assert!(!calm),
                }
            }
        }
    }
}
