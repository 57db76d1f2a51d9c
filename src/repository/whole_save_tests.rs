//! A save from its claim to its commit, over a store that fails at one operation after the other.

use super::claim::Claim;
use super::fixture::{Fixture, WHOLE, content};
use super::generations::{self, Commit};
use super::manifest::tests::sample;
use super::manifest::{ImageEntry, IndexRef, PackRef};
use super::open::Repository;
use super::read::Opened;
use super::save::{Save, SaveOptions};
use super::saves;
use crate::explain::Explain;
use crate::job::Generation;
use crate::store::fault::{FailNth, Moment};
use std::sync::Arc;
use std::time::Duration;

/// As the engine does it: a number, packs and index, the manifest.
fn save(fixture: &Fixture, repository: &Repository, base: Generation, content: &[u8]) -> Result<Generation, String> {
    let handle = fixture.runtime.handle();
    let claim = Claim::resume(&repository.store, fixture.claim.epoch, Duration::from_secs(60));
    let (generation, parent) = fixture.runtime.block_on(async {
        let generation = saves::begin(&claim, &repository.store).await.map_err(|error| error.to_string())?;
        let manifest = generations::load(repository, base).await.map_err(|error| error.explain().what)?;
        let opened = Opened::open(repository, manifest.index.id, manifest.index.len, handle).await;
        // Without its parent a save stores everything.
        Ok::<_, String>((generation, opened.ok()))
    })?;
    let options = SaveOptions { memory_limit: 64 << 20, workers: 2, ..SaveOptions::default() };
    let save = Save::begin(repository, parent.as_ref(), &options, handle).map_err(|error| error.to_string())?;
    save.store_bytes("image", content).map_err(|error| error.to_string())?;
    fixture.runtime.block_on(async {
        let stored = save.finish().await.map_err(|error| error.to_string())?;
        let mut manifest = sample(repository.format.repository, generation);
        manifest.images = stored.images.into_iter().map(|(name, len)| ImageEntry { name, len }).collect();
        manifest.index = IndexRef { id: stored.index, len: stored.index_length };
        manifest.packs = stored.packs.iter().map(|pack| PackRef { id: pack.id, len: pack.size }).collect();
        match generations::commit(repository, &claim, &manifest).await {
            Ok(Commit::Committed) => Ok(generation),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn leaves_the_old_or_the_new_generation_whichever_operation_fails() {
    let old = content(1, 60_000);
    let new = [old.clone(), content(2, 30_000)].concat();
    for number in 1.. {
        let mut done = false;
        for (moment, and_later) in [(Moment::Before, true), (Moment::After, true), (Moment::Before, false)] {
            let fixture = Fixture::new(None);
            let first = fixture.save(&old, None);
            let fault = Arc::new(FailNth { number, and_later, moment });
            let store = fixture.repository.store.clone().with_fault(fault);
            let faulty = Repository { store, ..fixture.repository.clone() };
            let result = save(&fixture, &faulty, first, &new);
            let context = format!("operation {number} {moment:?}: {result:?}");
            let report = fixture.verify(WHOLE);
            assert_eq!((report.damages.len(), &report.good), (0, &report.generations), "{context}");
            let generations = report.generations;
            assert_eq!(generations[0], first, "{context}");
            if let Ok(second) = &result {
                assert_eq!(generations.last(), Some(second), "{context}");
            }
            for (n, generation) in generations.into_iter().enumerate() {
                let opened = fixture.runtime.block_on(async {
                    let manifest = generations::load(&fixture.repository, generation).await.unwrap();
                    let handle = fixture.runtime.handle();
                    Opened::open(&fixture.repository, manifest.index.id, manifest.index.len, handle).await.unwrap()
                });
                assert!(opened.read("image", 1 << 20).unwrap() == *[&old, &new][n], "{context}: {generation}");
            }
            done |= result.is_ok() && and_later;
            // The next save is in nobody's way.
            save(&fixture, &fixture.repository, first, &new).unwrap();
            assert_eq!(fixture.verify(WHOLE).damages, [], "{context}");
        }
        if done {
            assert!(number > 8, "only {number} operations");
            return;
        }
    }
}
