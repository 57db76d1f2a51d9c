//! How hard a save tries: what it leaves out when time or memory is short, and when it is without hope.

use crate::checkpoint::protocol::Tuning;
use std::time::Duration;

/// What an engine takes at the most when it has all it wants, CRIU and its own program included, in bytes.
const USUAL_MEMORY: u64 = 256 << 20;
/// What it takes besides the save's own buffers, in bytes.
const BESIDES: u64 = 48 << 20;
/// The save's own buffers are never smaller, in bytes.
const LEAST_BUFFERS: u64 = 64 << 20;
/// No verdict before this part of the time is over.
const TOO_EARLY: u32 = 3;
/// A save that would take this many times as long as there is, will not be in time, however rough the estimate.
const HOPELESS: f64 = 2.0;

/// Before any save was measured: what one handles in a second, in bytes. Two busy cores do that (docs/benchmarks.md); a guess
/// that is too long costs a first save some of its compression, one that is too short the save.
const FIRST_RATE: u64 = 256 << 20;

/// What is known before a save.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outlook {
    /// How long it may take.
    pub left: Option<Duration>,
    /// How long it is likely to take, from the last one.
    pub expected: Duration,
    /// What the container may still take of memory, in bytes.
    pub headroom: Option<u64>,
}

/// How long a first save is likely to take: all of the memory that is held must be read and stored.
pub fn first_guess(held: Option<u64>) -> Duration {
    Duration::from_secs((held.unwrap_or(0) / FIRST_RATE).max(1))
}

/// The user's wishes, less what the outlook forbids; and what a person should be told about it.
pub fn choose(wanted: &Tuning, outlook: Outlook) -> (Tuning, Vec<String>) {
    let mut tuning = wanted.clone();
    let mut said = Vec::new();
    if outlook.left.is_some_and(|left| left < outlook.expected * 2) {
        // Pages that are read ahead are read twice, and strong compression may be slower than the store.
        tuning.pre_copy = Some(false);
        if tuning.compression != "none" {
            "lz4".clone_into(&mut tuning.compression);
        }
        said.push("time is short: fast compression, nothing is read ahead".to_owned());
    }
    if let Some(headroom) = outlook.headroom.filter(|headroom| *headroom < USUAL_MEMORY) {
        let buffers = headroom.saturating_sub(BESIDES).max(LEAST_BUFFERS);
        tuning.memory_limit = Some(buffers);
        let left = crate::supervisor::words::bytes(headroom);
        said.push(if headroom < LEAST_BUFFERS + BESIDES {
            format!(
                "only {left} of memory are left below the container's limit: the save may be killed for want of memory \
                 (the workload is not); a limit that is 256 MiB higher avoids that"
            )
        } else {
            format!("only {left} of memory are left below the container's limit: saving with smaller buffers")
        });
    }
    (tuning, said)
}

/// Whether a save that has come so far will clearly not be in time. `done` of about `expected` bytes were handled
/// in `elapsed`, and `left` is what remains.
#[allow(clippy::cast_precision_loss)]
pub fn hopeless(elapsed: Duration, left: Duration, done: u64, expected: u64) -> bool {
    if elapsed * TOO_EARLY < elapsed + left || done >= expected {
        return false;
    }
    let needed = elapsed.as_secs_f64() * (expected - done) as f64 / done.max(1) as f64;
    needed > left.as_secs_f64() * HOPELESS
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn leaves_out_what_there_is_no_time_or_memory_for() {
        let wanted = Tuning { compression: "zstd:9".to_owned(), pre_copy: Some(true), ..Tuning::default() };
        let with = |left: u64, headroom| {
            choose(
                &wanted,
                Outlook { left: Some(SECOND * 20), expected: SECOND * u32::try_from(left).unwrap(), headroom },
            )
        };
        assert_eq!(with(5, None), (wanted.clone(), vec![]));
        let (hurried, said) = with(15, None);
        assert_eq!((hurried.compression.as_str(), hurried.pre_copy), ("lz4", Some(false)));
        assert_eq!(said.len(), 1);
        assert_eq!(with(5, Some(1 << 30)).0.memory_limit, None);
        assert_eq!(with(5, Some(200 << 20)).0.memory_limit, Some(152 << 20));
        let (small, said) = with(5, Some(20 << 20));
        assert_eq!(small.memory_limit, Some(LEAST_BUFFERS));
        assert!(said[0].contains("20.0 MiB"), "{said:?}");
    }

    #[test]
    fn a_first_save_is_guessed_from_what_is_held() {
        assert_eq!([None, Some(9), Some(20 << 30)].map(|held| first_guess(held).as_secs()), [1, 1, 80]);
        let outlook = Outlook { left: Some(SECOND * 120), expected: first_guess(Some(20 << 30)), headroom: None };
        let (tuning, _) = choose(&Tuning { compression: "zstd:3".to_owned(), ..Tuning::default() }, outlook);
        assert_eq!(tuning.compression, "lz4", "two minutes are short for 20 GiB");
    }

    #[test]
    fn gives_up_only_when_it_is_clear() {
        let all = 1000;
        assert!(!hopeless(SECOND, SECOND * 29, 1, all), "too early to tell");
        assert!(hopeless(SECOND * 12, SECOND * 18, 100, all), "108 s more would be needed");
        assert!(!hopeless(SECOND * 12, SECOND * 18, 400, all), "just in time");
        assert!(!hopeless(SECOND * 25, SECOND * 5, 1000, all), "only the rest of the upload");
        assert!(hopeless(SECOND * 12, SECOND * 18, 0, all), "nothing moves");
    }
}
