//! A job in a directory, made without containers, and the program that looks at it.

#![allow(dead_code, reason = "each test program uses its own part")]

use revenant::checkpoint::protocol::Holder;
use revenant::job::Generation;
use revenant::repository::claim::{self, Take, Terms};
use revenant::repository::format::Chunking;
use revenant::repository::generations::{self, Commit};
use revenant::repository::manifest::{ImageEntry, IndexRef, Manifest, PackRef, Stats};
use revenant::repository::open::Repository;
use revenant::repository::read::Opened;
use revenant::repository::save::{Save, SaveOptions};
use revenant::repository::saves;
use revenant::repository::user_key::UserKey;
use revenant::store::{Store, StoreSettings};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

pub const JOB: [(&str, &str); 1] = [("REVENANT_JOB", "assembly")];

/// What the Nth generation's image holds, counted from 0.
pub fn content(n: u8) -> Vec<u8> {
    vec![n; 1000]
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// The generations of a job and their images' content, read as a restore reads them.
pub fn contents(url: &str, job: &str, key: Option<&str>) -> Vec<(Generation, Vec<u8>)> {
    let key = key.map(|text| UserKey::from_text(text).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Store::open(url, &StoreSettings::default()).unwrap().child(job);
    let opened: Vec<(Generation, Opened)> = runtime.block_on(async {
        let Some(repository) = Repository::open(&store, key.as_ref()).await.unwrap() else { return Vec::new() };
        let mut opened = Vec::new();
        for generation in generations::list(&store).await.unwrap() {
            let manifest = generations::load(&repository, generation).await.unwrap();
            let index = manifest.index;
            opened.push((generation, Opened::open(&repository, index.id, index.len, runtime.handle()).await.unwrap()));
        }
        opened
    });
    opened.into_iter().map(|(generation, opened)| (generation, opened.read("core-300.img", 1 << 20).unwrap())).collect()
}

/// A store with the job `assembly`, four generations, released.
pub struct Fixture {
    pub directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new(key: Option<&str>) -> Self {
        Self::saved_at(key, SystemTime::now(), Duration::from_secs(60))
    }

    /// Each generation has two images of 40 kB with the one before in common, and one more.
    pub fn overlapping(key: Option<&str>) -> Self {
        Self::made(key, SystemTime::now(), Duration::from_secs(60), |n| {
            (n..n + 3).map(|part| (format!("part-{part}.img"), noise(u64::from(part) + 1, 40_000))).collect()
        })
    }

    /// Saved while the clock showed this, by a holder with this lease.
    pub fn saved_at(key: Option<&str>, clock: SystemTime, lease: Duration) -> Self {
        Self::made(key, clock, lease, |_| Vec::new())
    }

    /// With more images, by the number of the generation.
    fn made(
        key: Option<&str>,
        clock: SystemTime,
        lease: Duration,
        more: impl Fn(u8) -> Vec<(String, Vec<u8>)>,
    ) -> Self {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        let key = key.map(|text| UserKey::from_text(text).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Store::open(&fixture.url(), &StoreSettings::default()).unwrap().child("assembly");
        let holder = Holder { host: "node-1".to_owned(), pod_uid: None, instance: "1".to_owned() };
        let terms = Terms { lease, takeover: false };
        let (repository, claim) = runtime.block_on(async {
            let repository = Repository::open_or_create(&store, key.as_ref(), Chunking::default()).await.unwrap();
            let Take::Taken { claim, .. } = claim::take(&store, &holder, &terms).await.unwrap() else {
                panic!("in use")
            };
            (repository, claim)
        });
        let mut parent = None;
        for n in 0..4u8 {
            let save = Save::begin(&repository, parent.as_ref(), &SaveOptions::default(), runtime.handle()).unwrap();
            save.store_bytes("core-300.img", &content(n)).unwrap();
            let more = more(n);
            for (name, bytes) in &more {
                save.store_bytes(name, bytes).unwrap();
            }
            runtime.block_on(async {
                let stored = save.finish().await.unwrap();
                let generation = saves::begin(&claim, &store).await.unwrap();
                let manifest = Manifest {
                    repository: repository.format.repository,
                    job: "assembly".parse().unwrap(),
                    generation,
                    created: clock,
                    base: None,
                    replaces: None,
                    reason: "request".to_owned(),
                    images: stored.images.into_iter().map(|(name, len)| ImageEntry { name, len }).collect(),
                    index: IndexRef { id: stored.index, len: stored.index_length },
                    packs: stored.packs.iter().map(|pack| PackRef { id: pack.id, len: pack.size }).collect(),
                    checkpoint: serde_json::Value::Null,
                    stats: Stats { image_bytes: 1000, ..Stats::default() },
                };
                assert_eq!(generations::commit(&repository, &claim, &manifest).await.unwrap(), Commit::Committed);
                if !more.is_empty() {
                    let index = manifest.index;
                    parent = Some(Opened::open(&repository, index.id, index.len, runtime.handle()).await.unwrap());
                }
            });
        }
        runtime.block_on(claim.release()).unwrap();
        fixture
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.directory.path().join("store").display())
    }

    pub fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_revenant"));
        command.env_clear().args(arguments).env("REVENANT_STORE", self.url());
        command.envs(environment.iter().copied()).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    pub fn shows(&self, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let output = self.run(arguments, environment);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn packs(&self) -> Vec<PathBuf> {
        let packs = self.directory.path().join("store/assembly/packs");
        let shelves = std::fs::read_dir(packs).unwrap().map(|entry| entry.unwrap().path());
        shelves.flat_map(|shelf| std::fs::read_dir(shelf).unwrap().map(|entry| entry.unwrap().path())).collect()
    }
}
