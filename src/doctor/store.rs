//! A round trip through the store: write, create only if absent, read back, remove; and how fast.

use super::{Check, place};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::user_key::UserKey;
use crate::store::{Created, Store, StoreError, StoreSettings};
use crate::supervisor::words;
use bytes::Bytes;
use std::time::{Duration, Instant, SystemTime};

pub(super) const NAME: &str = "store";
/// What is written and read: enough to see a bandwidth, little enough for a slow link.
const PAYLOAD: usize = 8 << 20;
/// How long a store that does not answer is tried.
const PATIENCE: Duration = Duration::from_secs(20);
/// Clocks of nodes that are this far from the store's will be refused by S3 (it allows 15 minutes).
const SKEW: Duration = Duration::from_secs(60);
/// Free space below which a `file://` store is worth a word.
const SCARCE: u64 = 1 << 30;

/// What the round trip showed.
struct Trip {
    write: Duration,
    read: Duration,
    answer: Duration,
    skew: Option<Duration>,
}

pub(super) fn checks(url: &str) -> Vec<Check> {
    let settings = StoreSettings { patience: PATIENCE, ..StoreSettings::default() };
    let trip = Store::open(url, &settings).map_err(|error| error.explain()).and_then(|store| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            Problem::new(Exit::Failure, error.to_string(), "the limit on open files is reached", "raise it")
        })?;
        let trip = runtime.block_on(trip(&store))?;
        Ok((trip, store))
    });
    let mut checks = match trip {
        Err(problem) => vec![Check::bad(NAME, &problem)],
        Ok((trip, store)) => {
            let mut checks = vec![Check::good(NAME, describe(url, &trip))];
            checks.extend(trip.skew.filter(|skew| *skew > SKEW).map(skewed));
            checks.extend(store.is_local().and_then(place::free_bytes).filter(|free| *free < SCARCE).map(scarce));
            checks
        }
    };
    checks.push(key());
    checks
}

fn describe(url: &str, trip: &Trip) -> String {
    format!(
        "{url}: writes {} a second, reads {}, answers in {} ms",
        words::bytes(rate(trip.write)),
        words::bytes(rate(trip.read)),
        trip.answer.as_millis()
    )
}

fn rate(time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    (PAYLOAD as u64).saturating_mul(1_000_000) / micros
}

fn skewed(skew: Duration) -> Check {
    Check::limited(
        "time",
        format!("this machine's clock and the store's differ by {}", words::duration(skew)),
        "ages of checkpoints will be wrong, and some stores refuse requests from such clocks",
        "let the node's clock be kept by NTP",
    )
}

fn scarce(free: u64) -> Check {
    Check::limited(
        "space",
        format!("{} free in the store", words::bytes(free)),
        "a checkpoint of a workload with more memory than that will fail",
        "use a larger volume, keep fewer generations (--keep-last), or use an object store",
    )
}

fn key() -> Check {
    let file = std::env::var_os("REVENANT_KEY_FILE").map(std::path::PathBuf::from);
    match UserKey::from_environment(file.as_deref()) {
        Ok(Some(_)) => Check::good("key", "there is one: checkpoints are encrypted"),
        Ok(None) => Check::good("key", "none: checkpoints are not encrypted, the store must be trusted"),
        Err(error) => Check::bad("key", &error.explain()),
    }
}

async fn trip(store: &Store) -> Result<Trip, Problem> {
    let name = format!("doctor/{}", hex::encode(rand::random::<[u8; 16]>()));
    let result = carry(store, &name).await;
    let removed = store.delete(&name).await.map_err(|error| error.explain());
    let trip = result?;
    removed.map(|()| trip)
}

async fn carry(store: &Store, name: &str) -> Result<Trip, Problem> {
    let told = |error: StoreError| error.explain();
    let mut payload = vec![0_u8; PAYLOAD];
    // What cannot be compressed on the way.
    rand::fill(&mut payload[..]);
    let payload = Bytes::from(payload);
    let begun = Instant::now();
    let created = store.put_new(name, payload.clone()).await.map_err(told)?;
    let write = begun.elapsed();
    let begun = Instant::now();
    let known = store.head(name).await.map_err(told)?;
    let answer = begun.elapsed();
    let again = store.put_new(name, Bytes::from_static(b"another")).await.map_err(told)?;
    if (created, again) != (Created::New, Created::AlreadyExists) {
        return Err(Problem::new(
            Exit::StoreUnavailable,
            "the store does not keep its promise: an object that exists was created a second time",
            "it does not support conditional writes (If-None-Match), so two containers could write the same job",
            "use a store that does: AWS S3, MinIO, SeaweedFS, Google Cloud Storage, Azure, or a directory",
        ));
    }
    let begun = Instant::now();
    let back = store.get(name, PAYLOAD as u64).await.map_err(told)?;
    let read = begun.elapsed();
    if back != payload {
        return Err(Problem::new(
            Exit::Damaged,
            "the store gave back other bytes than were written",
            "its disk or its network damages data",
            "do not use it",
        ));
    }
    let skew = known.map(|info| difference(info.modified, SystemTime::now()));
    Ok(Trip { write, read, answer, skew })
}

fn difference(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_directory_makes_the_trip_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        let checks = checks(&format!("file://{}", folder.path().display()));
        assert_eq!((checks[0].name, checks[0].verdict), (NAME, Verdict::Good), "{checks:?}");
        let left = std::fs::read_dir(folder.path().join("doctor")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "the doctor left objects behind");
    }

    #[test]
    fn a_store_that_cannot_be_written_is_explained() {
        let checks = checks("file:///proc/no-such-place");
        assert_eq!((checks[0].verdict, checks[0].exit), (Verdict::Bad, Some(205)), "{checks:?}");
        assert!(!checks[0].remedy.is_empty());
    }
}
