//! The protocol of `docs/claims.md`, in every order of the store's operations.

use super::claim::{Claim, InUse, Standing, Take, Terms, take};
use super::claims::{self, SEAL};
use super::format::Chunking;
use super::generations::{self, Commit};
use super::interleave::every_order;
use super::layout;
use super::manifest::tests::sample;
use super::open::Repository;
use super::saves;
use crate::checkpoint::protocol::Holder;
use crate::job::{Epoch, Generation};
use crate::store::Store;
use std::time::Duration;
use tokio::time::sleep;

const LEASE: Duration = Duration::from_secs(60);
const CHUNKING: Chunking = Chunking { min_pages: 4, average_pages: 16, max_pages: 64 };

fn holder(name: &str) -> Holder {
    Holder { host: name.to_owned(), pod_uid: None, instance: format!("{name}-1") }
}

fn terms(takeover: bool) -> Terms {
    Terms { lease: LEASE, takeover }
}

async fn taken(store: &Store, name: &str, takeover: bool) -> (Claim, Vec<Generation>) {
    match take(store, &holder(name), &terms(takeover)).await.unwrap() {
        Take::Taken { claim, accepted } => (claim, accepted),
        Take::InUse(in_use) => panic!("{name}: {in_use:?}"),
    }
}

async fn repository(store: &Store) -> Repository {
    Repository::open_or_create(store, None, CHUNKING).await.unwrap()
}

/// Commits the next generation of a claim.
async fn commit(store: &Store, epoch: Epoch) -> (Generation, Commit) {
    let repository = repository(store).await;
    let claim = Claim::resume(store, epoch, LEASE);
    let generation = saves::begin(&claim, store).await.unwrap();
    let manifest = sample(repository.format.repository, generation);
    (generation, generations::commit(&repository, &claim, &manifest).await.unwrap())
}

/// A store in which container `old` has committed one generation.
async fn store_with_one_generation() -> Store {
    let store = Store::memory();
    let (claim, accepted) = taken(&store, "old", false).await;
    assert_eq!(accepted, []);
    assert_eq!(commit(&store, claim.epoch).await.1, Commit::Committed);
    store
}

const FIRST: Generation = Generation { epoch: Epoch(1), sequence: 1 };

/// `old` commits a second generation while `new` takes the job from it.
#[test]
fn a_commit_is_either_accepted_by_the_successor_or_never_visible() {
    let orders = every_order(
        6,
        store_with_one_generation,
        async |store| commit(&store, Epoch(1)).await,
        async |store| taken(&store, "new", true).await,
        async |store, old, new, order| {
            let ((late, committed), (claim, accepted)) = (old.unwrap(), new.unwrap());
            assert_eq!(claim.epoch, Epoch(2), "{order}");
            assert!(accepted.contains(&FIRST), "{order}: an accepted generation was lost");
            if committed == Commit::Committed {
                assert!(accepted.contains(&late), "{order}: a committed generation was lost");
            }
            let visible = generations::list(&store).await.unwrap();
            assert_eq!(visible, accepted, "{order}: the seal does not say what exists");
        },
    );
    assert!(orders > 500, "only {orders} orders");
}

/// What `new` accepted stays so, whatever `old` still does after the seal.
#[tokio::test]
async fn a_late_commit_is_never_visible() {
    let store = store_with_one_generation().await;
    let (_, accepted) = taken(&store, "new", true).await;
    let repository = repository(&store).await;
    let late = Generation { sequence: 2, ..FIRST };
    // Asleep between its first check and the write: the manifest gets there.
    let manifest = sample(repository.format.repository, late).seal(&repository.crypt).unwrap();
    assert_eq!(store.put_new(&layout::manifest(late), manifest.into()).await.unwrap(), crate::store::Created::New);
    assert_eq!(generations::list(&store).await.unwrap(), accepted);
    let (claim, accepted) = taken(&store, "newer", true).await;
    assert_eq!((claim.epoch, accepted), (Epoch(3), vec![FIRST]));
    let Standing::Fenced { by: Some((Epoch(3), Some(by))) } =
        Claim::resume(&store, Epoch(1), LEASE).check().await.unwrap()
    else {
        panic!("the stale writer does not know");
    };
    assert_eq!(by, holder("newer"));
}

/// Two containers start at the same moment on a new job.
#[test]
fn of_two_that_start_at_once_one_wins() {
    let orders = every_order(
        6,
        async || Store::memory(),
        async |store| take(&store, &holder("a"), &terms(false)).await.unwrap(),
        async |store| take(&store, &holder("b"), &terms(false)).await.unwrap(),
        async |store, a, b, order| {
            let winners = [&a, &b].into_iter().filter(|end| matches!(end, Some(Take::Taken { .. }))).count();
            assert_eq!(winners, 1, "{order}: {a:?} {b:?}");
            assert_eq!(claims::Claims::read(&store).await.unwrap().highest(), Some(Epoch(1)), "{order}");
        },
    );
    assert!(orders > 50, "only {orders} orders");
}

/// Two containers take the job from a third at the same moment, each told to.
#[test]
fn of_two_takeovers_the_later_claim_wins_and_the_other_knows() {
    let attempt = async |store: Store, name: &str| match take(&store, &holder(name), &terms(true)).await.unwrap() {
        Take::Taken { claim, accepted } => {
            assert_eq!(accepted, [FIRST], "{name}: an accepted generation was lost");
            Some(claim)
        }
        Take::InUse(_) => None,
    };
    every_order(
        3,
        store_with_one_generation,
        async |store| attempt(store, "a").await,
        async |store| attempt(store, "b").await,
        async |store, a, b, order| {
            let highest = claims::Claims::read(&store).await.unwrap().highest().unwrap();
            let mut held = 0;
            for claim in [a.unwrap(), b.unwrap()].into_iter().flatten() {
                let claim = Claim::resume(&store, claim.epoch, LEASE);
                let standing = claim.check().await.unwrap();
                assert_eq!(standing == Standing::Held, claim.epoch == highest, "{order}");
                held += usize::from(standing == Standing::Held);
            }
            assert_eq!(held, 1, "{order}");
            assert_eq!(generations::list(&store).await.unwrap(), [FIRST], "{order}");
        },
    );
}

#[tokio::test(start_paused = true)]
async fn a_living_holder_keeps_the_job() {
    let store = store_with_one_generation().await;
    let claim = Claim::resume(&store, Epoch(1), LEASE);
    let beating = async {
        loop {
            sleep(LEASE / 3).await;
            assert_eq!(claim.beat().await.unwrap(), Standing::Held);
        }
    };
    let new = holder("new");
    let terms = terms(false);
    tokio::select! {
        () = beating => unreachable!("it beats for ever"),
        taken = take(&store, &new, &terms) => {
            let Take::InUse(InUse { epoch: Epoch(1), holder: Some(who), .. }) = taken.unwrap() else {
                panic!("a living holder was robbed");
            };
            assert_eq!(who, holder("old"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_loses_the_job_after_a_lease() {
    let store = store_with_one_generation().await;
    let begun = tokio::time::Instant::now();
    let (claim, accepted) = taken(&store, "new", false).await;
    assert_eq!((claim.epoch, accepted), (Epoch(2), vec![FIRST]));
    // Virtual time: exact, whatever the machine does.
    assert!(begun.elapsed() >= LEASE && begun.elapsed() < LEASE * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_watched_who_is_known_to_be_gone() {
    // Released.
    let store = store_with_one_generation().await;
    Claim::resume(&store, Epoch(1), LEASE).release().await.unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(taken(&store, "new", false).await.0.epoch, Epoch(2));
    // A container of the same pod.
    let pod = Holder { pod_uid: Some("pod".to_owned()), ..holder("a") };
    let store = Store::memory();
    assert!(matches!(take(&store, &pod, &terms(false)).await.unwrap(), Take::Taken { .. }));
    let restarted = Holder { instance: "another".to_owned(), ..pod };
    assert!(matches!(take(&store, &restarted, &terms(false)).await.unwrap(), Take::Taken { .. }));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Silent for very long by the store's clock.
    let store = store_with_one_generation().await;
    sleep(LEASE * 5).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(taken(&store, "new", false).await.0.epoch, Epoch(2));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// A container dies after its claim and before its seal; the next one still sees all.
#[tokio::test]
async fn a_claim_without_a_seal_hides_nothing() {
    let store = store_with_one_generation().await;
    let dead = claims::Taken { holder: holder("dead"), at: std::time::SystemTime::now(), lease_seconds: 60 };
    let created = claims::create(&store, Epoch(2), claims::CLAIM, &dead).await.unwrap();
    assert_eq!(created, crate::store::Created::New);
    assert_eq!(generations::list(&store).await.unwrap(), [FIRST]);
    let (claim, accepted) = taken(&store, "new", true).await;
    assert_eq!((claim.epoch, accepted), (Epoch(3), vec![FIRST]));
}

#[tokio::test]
async fn a_damaged_seal_hides_nothing() {
    let store = store_with_one_generation().await;
    let (claim, _) = taken(&store, "new", true).await;
    store.put(&layout::claim(claim.epoch, SEAL), "damaged".into()).await.unwrap();
    assert_eq!(generations::list(&store).await.unwrap(), [FIRST]);
}

#[tokio::test]
async fn numbers_are_used_once() {
    let store = store_with_one_generation().await;
    let claim = Claim::resume(&store, Epoch(1), LEASE);
    let killed = saves::begin(&claim, &store).await.unwrap();
    let next = saves::begin(&claim, &store).await.unwrap();
    assert_eq!((killed.sequence, next.sequence), (2, 3));
}
