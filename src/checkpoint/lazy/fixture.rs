//! A job in memory, of which each page is a chunk of its own, for the tests of this room.

use crate::job::{Epoch, Generation};
use crate::repository::format::Chunking;
use crate::repository::layout;
use crate::repository::manifest::{IndexRef, Manifest, PackRef, Stats};
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::repository::save::{Save, SaveOptions, Stored};
use crate::store::Store;
use std::time::SystemTime;
use tokio::runtime::Runtime;

/// Of the image of each generation.
pub const PAGES: u64 = 1024;
pub const IMAGE: &str = "pages-1.img";

pub struct Job {
    pub runtime: Runtime,
    pub repository: Repository,
    pub saved: Vec<(Manifest, Opened)>,
}

impl Job {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let chunking = Chunking { min_pages: 1, average_pages: 1, max_pages: 1 };
        let repository = runtime.block_on(Repository::open_or_create(&Store::memory(), None, chunking)).unwrap();
        Self { runtime, repository, saved: Vec::new() }
    }

    /// The next generation, in which these pages are not what they were in any other.
    pub fn save(&mut self, changed: &[u64]) {
        let number = self.saved.len() as u64 + 1;
        let word = |page: u64| if changed.contains(&page) { page | number << 32 } else { page };
        let pages = (0..PAGES).flat_map(|page| {
            let mut bytes = [0x5a; crate::repository::block::PAGE];
            bytes[..8].copy_from_slice(&word(page).to_le_bytes());
            bytes
        });
        let parent = self.saved.last().map(|(_, opened)| opened);
        let handle = self.runtime.handle();
        let options = SaveOptions { memory_limit: 64 << 20, workers: 2, ..SaveOptions::default() };
        let save = Save::begin(&self.repository, parent, &options, handle).unwrap();
        let (from, to) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut to = to;
                std::io::Write::write_all(&mut to, &pages.collect::<Vec<_>>()).unwrap();
            });
            save.store_pages(IMAGE, std::os::fd::AsFd::as_fd(&from)).unwrap();
        });
        let stored = self.runtime.block_on(save.finish()).unwrap();
        let opened = Opened::open(&self.repository, stored.index, stored.index_length, handle);
        let opened = self.runtime.block_on(opened).unwrap();
        self.saved.push((self.commit(number, &stored), opened));
    }

    fn commit(&self, number: u64, stored: &Stored) -> Manifest {
        let manifest = Manifest {
            repository: self.repository.format.repository,
            job: "sample-job".parse().unwrap(),
            generation: generation(number),
            created: SystemTime::UNIX_EPOCH,
            base: (number > 1).then(|| generation(number - 1)),
            replaces: None,
            reason: "request".to_owned(),
            images: Vec::new(),
            index: IndexRef { id: stored.index, len: stored.index_length },
            packs: stored.packs.iter().map(|pack| PackRef { id: pack.id, len: pack.size }).collect(),
            checkpoint: serde_json::Value::Null,
            stats: Stats::default(),
        };
        let sealed = manifest.seal(&self.repository.crypt).unwrap();
        let key = layout::manifest(manifest.generation);
        self.runtime.block_on(self.repository.store.put(&key, sealed.into())).unwrap();
        manifest
    }
}

pub fn generation(sequence: u64) -> Generation {
    Generation { epoch: Epoch(1), sequence }
}
