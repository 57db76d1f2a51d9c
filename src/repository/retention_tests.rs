//! Whatever is removed, and wherever that is interrupted: what is visible stays whole.

use super::claim::{Claim, Take, Terms, take};
use super::crypto::ObjectId;
use super::format::Chunking;
use super::generations::Commit;
use super::interleave::every_order;
use super::manifest::tests::sample;
use super::manifest::{IndexRef, Manifest, PackRef};
use super::open::Repository;
use super::retention::*;
use super::{generations, layout, saves};
use crate::checkpoint::protocol::Holder;
use crate::job::{Epoch, Generation};
use crate::store::Store;
use crate::store::fault::{FailNth, Moment};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const LEASE: Duration = Duration::from_secs(60);
const KEEP_ONE: Keep = Keep { last: 1, within: None };

fn generation(epoch: u64, sequence: u64) -> Generation {
    Generation { epoch: Epoch(epoch), sequence }
}

async fn repository(store: &Store) -> Repository {
    let chunking = Chunking { min_pages: 4, average_pages: 16, max_pages: 64 };
    Repository::open_or_create(store, None, chunking).await.unwrap()
}

async fn claim(store: &Store, name: &str) -> Claim {
    let holder = Holder { host: name.to_owned(), pod_uid: None, instance: name.to_owned() };
    match take(store, &holder, &Terms { lease: LEASE, takeover: true }).await.unwrap() {
        Take::Taken { claim, .. } => claim,
        Take::InUse(in_use) => panic!("{in_use:?}"),
    }
}

/// Saves a generation that needs a pack of its own and `old` ones.
async fn save(store: &Store, claim: &Claim, old: &[PackRef]) -> (Manifest, Commit) {
    let repository = repository(store).await;
    let generation = saves::begin(claim, store).await.unwrap();
    let mut manifest = sample(repository.format.repository, generation);
    let own = PackRef { id: ObjectId::random(), len: 4 };
    manifest.packs = std::iter::once(own).chain(old.iter().copied()).collect();
    manifest.index = IndexRef { id: ObjectId::random(), len: 5 };
    store.put(&layout::pack(&own.id), Bytes::from_static(b"pack")).await.unwrap();
    store.put(&layout::index(&manifest.index.id), Bytes::from_static(b"index")).await.unwrap();
    let commit = generations::commit(&repository, claim, &manifest).await.unwrap();
    (manifest, commit)
}

/// Every visible generation has all that it needs.
async fn assert_whole(store: &Store, context: &str) -> Vec<Generation> {
    let repository = repository(store).await;
    let visible = generations::list(store).await.unwrap();
    for &generation in &visible {
        let manifest = generations::load(&repository, generation).await.unwrap();
        for key in manifest.packs.iter().map(|pack| layout::pack(&pack.id)).chain([layout::index(&manifest.index.id)]) {
            assert!(store.head(&key).await.unwrap().is_some(), "{context}: {generation} lost {key}");
        }
    }
    visible
}

#[tokio::test]
async fn keeps_what_is_wanted_and_nothing_else() {
    let store = Store::memory();
    let claim = claim(&store, "a").await;
    let mut last = Vec::new();
    for _ in 0..5 {
        // Each shares the pack of the one before.
        let (manifest, _) = save(&store, &claim, &last).await;
        last = vec![manifest.packs[0]];
    }
    let killed = saves::begin(&claim, &store).await.unwrap();
    saves::end(&store, killed).await;
    store.put(&layout::pack(&ObjectId::random()), Bytes::from_static(b"left by a killed save")).await.unwrap();
    let pruned =
        prune(&repository(&store).await, &claim, Keep { last: 2, within: None }, &[generation(1, 1)]).await.unwrap();
    assert_eq!(pruned.generations, [generation(1, 2), generation(1, 3)]);
    // 1-1 needs its own; 1-4 needs 3's and its own; 1-5 needs 4's and its own.
    assert_eq!(store.list(layout::PACKS).await.unwrap().len(), 4);
    assert_eq!(store.list(layout::INDEX).await.unwrap().len(), 3);
    assert_eq!(pruned.packs, 2);
    assert_eq!(assert_whole(&store, "").await, [generation(1, 1), generation(1, 4), generation(1, 5)]);
    clear(&repository(&store).await, &claim).await.unwrap();
    assert_eq!(store.list(layout::PACKS).await.unwrap(), []);
    assert_eq!(store.list(layout::GENERATIONS).await.unwrap(), []);
}

#[tokio::test]
async fn leaves_a_running_save_alone() {
    let store = Store::memory();
    let claim = claim(&store, "a").await;
    let _ = save(&store, &claim, &[]).await;
    saves::begin(&claim, &store).await.unwrap();
    let running = layout::pack(&ObjectId::random());
    store.put(&running, Bytes::from_static(b"new")).await.unwrap();
    prune(&repository(&store).await, &claim, KEEP_ONE, &[]).await.unwrap();
    assert!(store.head(&running).await.unwrap().is_some());
}

/// A save that runs while old generations go: their packs go, its own stay, whatever the times say.
#[tokio::test]
async fn a_running_save_does_not_hold_back_what_was_given_up() {
    let store = Store::memory();
    let claim = claim(&store, "a").await;
    let (first, _) = save(&store, &claim, &[]).await;
    let _ = save(&store, &claim, &[]).await;
    // Written before the mark, as it looks when the clock was set back meanwhile.
    let running = layout::pack(&ObjectId::random());
    store.put(&running, Bytes::from_static(b"new")).await.unwrap();
    saves::begin(&claim, &store).await.unwrap();
    let pruned = prune(&repository(&store).await, &claim, KEEP_ONE, &[]).await.unwrap();
    assert_eq!((pruned.generations, pruned.packs), (vec![generation(1, 1)], 1));
    assert!(store.head(&layout::pack(&first.packs[0].id)).await.unwrap().is_none());
    assert!(store.head(&running).await.unwrap().is_some());
    // The save was killed; the next one commits: now nobody needs it.
    let _ = save(&store, &claim, &[]).await;
    prune(&repository(&store).await, &claim, KEEP_ONE, &[]).await.unwrap();
    assert!(store.head(&running).await.unwrap().is_none());
}

#[tokio::test]
async fn the_newest_good_generation_stays_when_newer_ones_are_damaged() {
    let store = Store::memory();
    let claim = claim(&store, "a").await;
    for _ in 0..3 {
        let _ = save(&store, &claim, &[]).await;
    }
    store.put(&layout::manifest(generation(1, 3)), Bytes::from_static(b"damaged")).await.unwrap();
    let pruned = prune(&repository(&store).await, &claim, KEEP_ONE, &[]).await.unwrap();
    assert_eq!(pruned.generations, [generation(1, 1)]);
    assert_eq!(pruned.held_back_by, Some(generation(1, 3)));
    assert_eq!(store.list(layout::PACKS).await.unwrap().len(), 3, "nobody knows what the damaged one needs");
    // A later good one lets the damaged one go.
    let _ = save(&store, &claim, &[]).await;
    prune(&repository(&store).await, &claim, KEEP_ONE, &[]).await.unwrap();
    assert_eq!(assert_whole(&store, "").await, [generation(1, 4)]);
    assert_eq!(store.list(layout::PACKS).await.unwrap().len(), 1);
}

/// Wherever it is interrupted, what is visible is whole, and the next prune finishes the work.
#[tokio::test]
async fn survives_a_failure_of_every_single_operation() {
    for number in 1.. {
        for moment in [Moment::Before, Moment::After] {
            let store = Store::memory();
            let claim = claim(&store, "a").await;
            let (first, _) = save(&store, &claim, &[]).await;
            let _ = save(&store, &claim, &first.packs).await;
            let _ = save(&store, &claim, &first.packs).await;
            let faulty = store.clone().with_fault(Arc::new(FailNth { number, and_later: true, moment }));
            let faulty_repository = Repository { store: faulty.clone(), ..repository(&store).await };
            let result = prune(&faulty_repository, &Claim::resume(&faulty, claim.epoch, LEASE), KEEP_ONE, &[]).await;
            let visible = assert_whole(&store, &format!("operation {number} {moment:?}")).await;
            assert_eq!(visible.last(), Some(&generation(1, 3)));
            if result.is_ok() {
                assert!(number > 10, "only {number} operations");
                return;
            }
            prune(&repository(&store).await, &claim, KEEP_ONE, &[]).await.unwrap();
            assert_eq!(assert_whole(&store, "again").await, [generation(1, 3)]);
            assert_eq!(store.list(layout::PACKS).await.unwrap().len(), 2);
        }
    }
}

/// A stale container prunes while its successor takes the job and saves: whatever the order, what
/// the successor wrote, and what it built on, stays.
#[test]
fn a_stale_prune_never_hurts_its_successor() {
    every_order(
        3,
        async || {
            let store = Store::memory();
            let claim = claim(&store, "old").await;
            let _ = save(&store, &claim, &[]).await;
            let _ = save(&store, &claim, &[]).await;
            // Left by a save of the old container that was killed.
            store.put(&layout::pack(&ObjectId::random()), Bytes::from_static(b"left")).await.unwrap();
            store
        },
        async |store| {
            let claim = Claim::resume(&store, Epoch(1), LEASE);
            prune(&repository(&store).await, &claim, KEEP_ONE, &[]).await
        },
        async |store| {
            let claim = claim(&store, "new").await;
            let base = generations::load(&repository(&store).await, generation(1, 2)).await.unwrap();
            save(&store, &claim, &base.packs).await.1
        },
        async |store, old, new, order| {
            assert_eq!(new, Some(Commit::Committed), "{order}");
            assert!(matches!(old, Some(Ok(_) | Err(PruneError::Fenced(_)))), "{order}: {old:?}");
            let repository = repository(&store).await;
            for generation in [generation(1, 2), generation(2, 1)] {
                let manifest = generations::load(&repository, generation).await.unwrap();
                for pack in manifest.packs {
                    assert!(store.head(&layout::pack(&pack.id)).await.unwrap().is_some(), "{order}: {generation}");
                }
            }
        },
    );
}

proptest! {
    #[test]
    fn the_plan_keeps_the_newest(ages in proptest::collection::vec(0u64..1000, 1..20), last in 0u32..5, within in proptest::option::of(0u64..1000)) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let good: Vec<_> = ages.iter().enumerate()
            .map(|(n, age)| (generation(1, n as u64 + 1), now - Duration::from_secs(*age)))
            .collect();
        let keep = Keep { last, within: within.map(Duration::from_secs) };
        let doomed = plan(&good, keep, now);
        prop_assert!(!doomed.contains(&good.last().unwrap().0));
        let kept = good.len() - doomed.len();
        prop_assert!(kept >= good.len().min(last.max(1) as usize));
        for (generation, made) in &good {
            let young = within.is_some_and(|span| now.duration_since(*made).unwrap().as_secs() <= span);
            prop_assert!(!(young && doomed.contains(generation)));
        }
    }
}

#[test]
fn a_clock_that_was_set_back_costs_nothing() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let future = now + Duration::from_secs(5000);
    let good = [(generation(1, 1), future), (generation(1, 2), now)];
    assert_eq!(plan(&good, Keep { last: 1, within: Some(Duration::from_secs(60)) }, now), []);
}
