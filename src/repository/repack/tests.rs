//! What repacking leaves is the same content in the same order, and no mostly dead pack.

use super::*;
use crate::checkpoint::protocol::Holder;
use crate::repository::chunker::Chunking;
use crate::repository::claim::{Take, Terms, take};
use crate::repository::completion;
use crate::repository::fixture::{Fixture, WHOLE, content};
use crate::repository::retention::{Keep, prune};
use crate::repository::user_key::UserKey;
use crate::store::fault::{FailNth, Fault, Moment, Operation};
use crate::store::{Store, StoreError};
use async_trait::async_trait;
use std::sync::Mutex;

/// Three generations, each of which has half of the one before; the first is pruned.
fn sparse(key: Option<&UserKey>) -> (Fixture, Vec<Vec<u8>>) {
    let fixture = Fixture::new(key);
    // Whole chunks, so that they are found again at other places.
    let part = 3 * Chunking::default().max_bytes();
    let parts: Vec<Vec<u8>> = (1..=4).map(|seed| content(seed, part)).collect();
    let contents: Vec<Vec<u8>> = vec![
        [&parts[0][..], &parts[1], &parts[2]].concat(),
        [&parts[2][..], &parts[3]].concat(),
        [&parts[2][..], &parts[3], &parts[3][..5000]].concat(),
    ];
    let mut last = None;
    for content in &contents {
        last = Some(fixture.save(content, last));
    }
    let keep = Keep { last: 2, within: None };
    let pruned = fixture.runtime.block_on(prune(&fixture.repository, &fixture.claim, keep, &[])).unwrap();
    assert_eq!(pruned.generations.len(), 1);
    (fixture, contents[1..].to_vec())
}

fn stored(fixture: &Fixture) -> u64 {
    fixture
        .objects()
        .iter()
        .filter(|(key, _)| key.starts_with(layout::PACKS))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum()
}

/// Every visible generation's content, oldest first; all of it verifies.
fn contents(fixture: &Fixture, context: &str) -> Vec<(Generation, Vec<u8>)> {
    let report = fixture.verify(WHOLE);
    assert_eq!(report.damages, [], "{context}");
    let opened: Vec<(Generation, Opened)> = fixture.runtime.block_on(async {
        let mut opened = Vec::new();
        for generation in generations::list(&fixture.repository.store).await.unwrap() {
            let index = generations::load(&fixture.repository, generation).await.unwrap().index;
            let handle = fixture.runtime.handle();
            opened.push((generation, Opened::open(&fixture.repository, index.id, index.len, handle).await.unwrap()));
        }
        opened
    });
    opened.into_iter().map(|(generation, opened)| (generation, opened.read("image", 1 << 30).unwrap())).collect()
}

fn only_contents(fixture: &Fixture, context: &str) -> Vec<Vec<u8>> {
    contents(fixture, context).into_iter().map(|(_, content)| content).collect()
}

#[test]
fn the_same_content_takes_less_room() {
    let key = UserKey::from_text(&"7c".repeat(32)).unwrap();
    for key in [None, Some(&key)] {
        let (fixture, wanted) = sparse(key);
        let old = contents(&fixture, "before");
        let (oldest, newest) = (old[0].0, old[1].0);
        let record = completion::Record::now(&Holder::default());
        fixture.runtime.block_on(completion::record_crash(&fixture.repository.store, newest, &record)).unwrap();
        let before = stored(&fixture);
        let repacked = fixture.runtime.block_on(repack(&fixture.repository, &fixture.claim, 0.5)).unwrap();
        assert!(repacked.packs > 0 && repacked.left == 0, "{repacked:?}");
        assert!(stored(&fixture) + 700_000 < before, "{} of {before} are left", stored(&fixture));
        let now = contents(&fixture, "after");
        assert_eq!(now.iter().map(|(_, content)| content.clone()).collect::<Vec<_>>(), wanted);
        assert_eq!(repacked.generations, [(oldest, now[0].0), (newest, now[1].0)]);
        let store = &fixture.repository.store;
        assert_eq!(fixture.runtime.block_on(completion::crashes(store, now[1].0)).unwrap(), 1);
        assert_eq!(fixture.runtime.block_on(completion::crashes(store, newest)).unwrap(), 0);
        // Nothing is sparse any more, and a save goes on from there without storing anything again.
        let again = fixture.runtime.block_on(repack(&fixture.repository, &fixture.claim, 0.5)).unwrap();
        assert_eq!(again.packs, 0);
        let before = stored(&fixture);
        fixture.save(&wanted[1], Some(now[1].0));
        assert!(stored(&fixture) - before < 10_000, "{} new bytes", stored(&fixture) - before);
    }
}

#[test]
fn what_is_mostly_alive_stays() {
    let fixture = Fixture::new(None);
    let first = fixture.save(&content(1, 300_000), None);
    fixture.save(&[content(1, 300_000), content(2, 100_000)].concat(), Some(first));
    let before = fixture.objects();
    let repacked = fixture.runtime.block_on(repack(&fixture.repository, &fixture.claim, 0.5)).unwrap();
    assert_eq!(repacked, Repacked::default());
    assert_eq!(fixture.objects(), before);
}

/// A store that fails once, at every operation in turn: the newest generation has the newest content all along.
#[test]
fn a_store_that_fails_anywhere_costs_nothing() {
    let mut number = 0;
    loop {
        number += 1;
        let (fixture, wanted) = sparse(None);
        for moment in [Moment::Before, Moment::After] {
            let mut faulty = fixture.repository.clone();
            let fault = FailNth { number, and_later: false, moment };
            faulty.store = faulty.store.clone().with_fault(Arc::new(fault));
            let outcome = fixture.runtime.block_on(repack(&faulty, &fixture.claim, 0.5));
            let context = format!("operation {number} {moment:?}: {outcome:?}");
            let found = only_contents(&fixture, &context);
            assert_eq!(found.last(), wanted.last(), "{context}");
            assert!(found.iter().all(|content| wanted.contains(content)), "{context}");
            assert!(wanted.iter().all(|content| found.contains(content)), "{context}");
            if outcome.is_ok() && moment == Moment::Before {
                assert!(number > 20, "only {number} operations");
                return;
            }
        }
        // It is done in the end.
        fixture.runtime.block_on(repack(&fixture.repository, &fixture.claim, 0.5)).unwrap();
        assert_eq!(only_contents(&fixture, "again").last(), wanted.last());
    }
}

#[test]
fn a_fenced_one_changes_nothing_that_its_successor_sees() {
    let (fixture, wanted) = sparse(None);
    let seen = contents(&fixture, "before");
    fixture.runtime.block_on(async {
        let holder = Holder { host: "node-2".to_owned(), ..Holder::default() };
        let terms = Terms { lease: Duration::from_secs(60), takeover: true };
        let Take::Taken { .. } = take(&fixture.repository.store, &holder, &terms).await.unwrap() else { panic!() };
        let outcome = repack(&fixture.repository, &fixture.claim, 0.5).await;
        assert!(matches!(outcome, Err(RepackError::Fenced | RepackError::Prune(_))), "{outcome:?}");
    });
    assert_eq!(contents(&fixture, "after"), seen);
    assert_eq!(only_contents(&fixture, "after"), wanted);
}

/// A chunk that does not open is not carried along: it is named, and everything stays as it was.
#[test]
fn damage_is_found_before_anything_is_replaced() {
    let (fixture, _) = sparse(None);
    let before = fixture.runtime.block_on(generations::list(&fixture.repository.store)).unwrap();
    for (key, bytes) in fixture.objects().into_iter().filter(|(key, _)| key.starts_with(layout::PACKS)) {
        let mut damaged = bytes.to_vec();
        for at in (60..damaged.len()).step_by(5000) {
            damaged[at] ^= 1;
        }
        fixture.put(&key, damaged.into());
    }
    let outcome = fixture.runtime.block_on(repack(&fixture.repository, &fixture.claim, 0.5));
    assert!(matches!(&outcome, Err(RepackError::Read(error)) if error.is_damage()), "{outcome:?}");
    assert_eq!(fixture.runtime.block_on(generations::list(&fixture.repository.store)).unwrap(), before);
}

/// Another container takes the job right before one operation.
#[derive(Debug)]
struct TakenAt {
    number: u64,
    store: Store,
    saw: Mutex<Vec<Generation>>,
}

#[async_trait]
impl Fault for TakenAt {
    async fn strike(&self, moment: Moment, operation: &Operation) -> Result<(), StoreError> {
        if moment == Moment::Before && operation.number == self.number {
            let holder = Holder { host: "node-2".to_owned(), ..Holder::default() };
            let terms = Terms { lease: Duration::from_secs(60), takeover: true };
            assert!(matches!(take(&self.store, &holder, &terms).await, Ok(Take::Taken { .. })));
            *self.saw.lock().unwrap() = generations::list(&self.store).await.unwrap();
        }
        Ok(())
    }
}

/// Whenever the job is taken, the successor finds every content, the newest as the newest, and keeps the
/// generation that it has restored, however the stale one goes on.
#[test]
fn a_takeover_at_any_moment_costs_the_successor_nothing() {
    for number in 1.. {
        let (fixture, wanted) = sparse(None);
        let store = fixture.repository.store.clone();
        let fault = Arc::new(TakenAt { number, store: store.clone(), saw: Mutex::default() });
        let stale =
            Repository { store: store.with_fault(Arc::clone(&fault) as Arc<dyn Fault>), ..fixture.repository.clone() };
        let outcome = fixture.runtime.block_on(repack(&stale, &fixture.claim, 0.5));
        let context = format!("taken at operation {number}: {outcome:?}");
        let found = contents(&fixture, &context);
        assert_eq!(found.last().map(|(_, content)| content), wanted.last(), "{context}");
        assert!(wanted.iter().all(|content| found.iter().any(|(_, other)| other == content)), "{context}");
        let restored = fault.saw.lock().unwrap().last().copied();
        if restored.is_none() {
            assert!(outcome.is_ok() && number > 20, "{context}");
            return;
        }
        assert_eq!(restored, found.last().map(|(generation, _)| *generation), "{context}");
    }
}
