//! A job in a store with every kind of object, for the tests of this room.

use super::claim::{Claim, Take, Terms, take};
use super::completion::{self, Record};
use super::generations::{self, Commit};
use super::manifest::tests::sample;
use super::manifest::{ImageEntry, IndexRef, PackRef};
use super::open::Repository;
use super::read::Opened;
use super::save::{Save, SaveOptions};
use super::user_key::UserKey;
use super::verify::{Depth, Report, verify};
use super::{format, saves};
use crate::checkpoint::protocol::Holder;
use crate::job::{Epoch, Generation};
use crate::store::Store;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::runtime::Runtime;

pub(super) const WHOLE: Depth = Depth::Data { percent: 100.0 };

pub(super) struct Fixture {
    pub runtime: Runtime,
    pub repository: Repository,
    pub claim: Claim,
}

impl Fixture {
    /// A job with every kind of object.
    pub fn new(key: Option<&UserKey>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Store::memory();
        let holder = Holder { host: "node-1".to_owned(), pod_uid: None, instance: "1".to_owned() };
        let (repository, claim) = runtime.block_on(async {
            let repository = Repository::open_or_create(&store, key, format::Chunking::default()).await.unwrap();
            let taken = take(&store, &holder, &Terms { lease: Duration::from_secs(60), takeover: false }).await;
            let Ok(Take::Taken { claim, .. }) = taken else { panic!("{taken:?}") };
            let record = Record::now(&holder);
            completion::record_start(&store, &record).await.unwrap();
            completion::record_completion(&store, &record).await.unwrap();
            completion::record_crash(&store, generation(1), &record).await.unwrap();
            (repository, claim)
        });
        Self { runtime, repository, claim }
    }

    /// Saves a generation with one image.
    pub fn save(&self, content: &[u8], parent: Option<Generation>) -> Generation {
        let parent = parent.map(|parent| {
            self.runtime.block_on(async {
                let manifest = generations::load(&self.repository, parent).await.unwrap();
                let handle = self.runtime.handle();
                Opened::open(&self.repository, manifest.index.id, manifest.index.len, handle).await.unwrap()
            })
        });
        let options = SaveOptions { memory_limit: 64 << 20, workers: 2, ..SaveOptions::default() };
        let save = Save::begin(&self.repository, parent.as_ref(), &options, self.runtime.handle()).unwrap();
        save.store_bytes("image", content).unwrap();
        self.runtime.block_on(async {
            let stored = save.finish().await.unwrap();
            let generation = saves::begin(&self.claim, &self.repository.store).await.unwrap();
            let mut manifest = sample(self.repository.format.repository, generation);
            manifest.images = stored.images.into_iter().map(|(name, len)| ImageEntry { name, len }).collect();
            manifest.index = IndexRef { id: stored.index, len: stored.index_length };
            manifest.packs = stored.packs.iter().map(|pack| PackRef { id: pack.id, len: pack.size }).collect();
            let commit = generations::commit(&self.repository, &self.claim, &manifest).await.unwrap();
            assert_eq!(commit, Commit::Committed);
            generation
        })
    }

    pub fn verify(&self, depth: Depth) -> Report {
        self.runtime.block_on(verify(&self.repository, depth, |_, _| {})).unwrap()
    }

    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.runtime.block_on(async {
            let store = &self.repository.store;
            let mut objects = BTreeMap::new();
            for info in store.list("").await.unwrap() {
                let bytes = store.get(&info.key, u64::MAX).await.unwrap();
                objects.insert(info.key, bytes);
            }
            objects
        })
    }

    pub fn put(&self, key: &str, bytes: Bytes) {
        self.runtime.block_on(self.repository.store.put(key, bytes)).unwrap();
    }
}

pub(super) fn generation(sequence: u64) -> Generation {
    Generation { epoch: Epoch(1), sequence }
}

pub(super) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}
