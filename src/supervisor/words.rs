//! Sizes and times as people say them.

use crate::checkpoint::protocol::Saved;
use std::time::{Duration, SystemTime};

/// `310 MiB`, `12.4 GiB`: binary units, about three digits.
#[allow(clippy::cast_precision_loss)] // For reading, not for counting.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut amount = count as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = if amount < 9.95 { 2 } else { usize::from(amount < 99.5) };
    format!("{amount:.digits$} {}", UNITS[unit])
}

/// `0.6 s`, `4.1 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 days 4 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        86_400..172_800 => two(1, "day", seconds % 86_400 / 3600, "h"),
        _ => two(seconds / 86_400, "days", seconds % 86_400 / 3600, "h"),
    }
}

/// How long ago something was, as [`duration`].
pub fn age(moment: SystemTime) -> String {
    duration(SystemTime::now().duration_since(moment).unwrap_or_default())
}

/// What a save came to.
pub fn saved(saved: &Saved) -> String {
    format!(
        "saved generation {} ({}, {} new) in {}, frozen {}",
        saved.generation,
        bytes(saved.image_bytes),
        bytes(saved.stored_bytes),
        duration(Duration::from_millis(saved.total_ms)),
        duration(Duration::from_millis(saved.frozen_ms)),
    )
}

fn two(much: u64, unit: &str, little: u64, smaller: &str) -> String {
    if little == 0 { format!("{much} {unit}") } else { format!("{much} {unit} {little} {smaller}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        let said: Vec<String> = [0, 1023, 1024, 325_058_560, 13_314_398_618, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(said, ["0 bytes", "1023 bytes", "1.00 KiB", "310 MiB", "12.4 GiB", "16.0 EiB"]);
        let said: Vec<String> = [0, 634, 4123, 12_700, 200_000, 7_500_000, 90_000_000, 273_600_000]
            .map(|ms| duration(Duration::from_millis(ms)))
            .into();
        assert_eq!(said, ["0.0 s", "0.6 s", "4.1 s", "12 s", "3 min 20 s", "2 h 5 min", "1 day 1 h", "3 days 4 h"]);
    }
}
