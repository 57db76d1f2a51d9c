//! Whole saves against stores in memory and on disk, read back in every way.

use super::*;
use crate::repository::chunker::Chunking;
use crate::repository::crypto::{Crypt, RepositoryKey};
use crate::repository::format::{Encryption, Format};
use crate::repository::layout;
use crate::repository::read::SENDERS;
use crate::store::fault::{FailNth, Fault, Moment, Operation, Slow};
use crate::store::{Store, StoreError, StoreSettings};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use tokio::runtime::Runtime;

const PAGE: usize = 4096;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn repository(store: Store, encrypted: bool) -> Repository {
    let encryption = if encrypted { Encryption::Aes256Gcm } else { Encryption::None };
    let format = Format::new(Chunking::default(), encryption);
    let crypt = if encrypted {
        Crypt::encrypted(format.repository, &RepositoryKey::random())
    } else {
        Crypt::unencrypted(format.repository)
    };
    Repository { store, format, crypt }
}

fn options() -> SaveOptions {
    SaveOptions { memory_limit: 64 << 20, workers: 2, ..SaveOptions::default() }
}

/// Pages with content of their own, by number; 0 is the zero page. A third compresses well.
fn pages(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in numbers {
        let start = bytes.len();
        bytes.resize(start + PAGE, 0);
        if n == 0 {
            continue;
        }
        let mut state = n;
        for word in bytes[start..].chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = if n % 3 == 0 { state >> 60 } else { state ^ (state >> 31) };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// Feeds bytes through a real pipe, in writes of odd sizes. It is larger than usual, as CRIU's are: so the bytes go through
/// the relay.
fn store_by_pipe(save: &Save, name: &str, bytes: &[u8]) -> Result<u64, SaveError> {
    let (reader, mut writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(128 << 10)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in bytes.chunks(100_003) {
                if writer.write_all(piece).is_err() {
                    return;
                }
            }
        });
        let result = save.store_pages(name, reader.as_fd());
        drop(reader);
        result
    })
}

fn send_by_pipe(opened: &Opened, name: &str) -> Result<Vec<u8>, crate::repository::read::ReadError> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || opened.send(name, writer.as_fd()));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        let sent = sender.join().unwrap()?;
        assert_eq!(sent, bytes.len() as u64);
        Ok(bytes)
    })
}

fn open(runtime: &Runtime, repository: &Repository, stored: &Stored) -> Opened {
    runtime.block_on(Opened::open(repository, stored.index, stored.index_length, runtime.handle())).unwrap()
}

/// Saves images by name; those that begin with "pages" by pipe.
fn save(
    runtime: &Runtime,
    repository: &Repository,
    parent: Option<&Opened>,
    options: &SaveOptions,
    images: &[(&str, &[u8])],
) -> Result<Stored, SaveError> {
    let save = Save::begin(repository, parent, options, runtime.handle())?;
    for (name, bytes) in images {
        if name.starts_with("pages") {
            assert_eq!(store_by_pipe(&save, name, bytes)?, bytes.len() as u64);
        } else {
            save.store_bytes(name, bytes)?;
        }
    }
    runtime.block_on(save.finish())
}

fn check(opened: &Opened, images: &[(&str, &[u8])]) {
    assert_eq!(opened.images().count(), images.len());
    for (name, bytes) in images {
        assert_eq!(opened.image(name), Some(bytes.len() as u64));
        assert!(send_by_pipe(opened, name).unwrap() == *bytes, "{name} by stream");
        assert!(opened.read(name, 1 << 30).unwrap() == *bytes, "{name} in one piece");
        let mut state = 12345u64;
        for _ in 0..50 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = usize::try_from(state >> 33).unwrap() % (bytes.len() + 10);
            let mut buffer = vec![1; usize::try_from(state >> 20).unwrap() % 150_000];
            let expected = &bytes[offset.min(bytes.len())..(offset + buffer.len()).min(bytes.len())];
            assert_eq!(opened.read_at(name, offset as u64, &mut buffer).unwrap(), expected.len());
            assert!(buffer[..expected.len()] == *expected, "{name} at {offset}");
        }
    }
}

#[test]
fn images_come_back_by_stream_and_by_random_access() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let zeros = |n| std::iter::repeat_n(0u64, n);
    let large = pages((1..3000).chain(zeros(700)).chain(5000..6000).chain(zeros(3)).chain(100..900).chain(zeros(900)));
    let odd = [&pages(1..100)[..], &[7; 1234]].concat();
    let images: &[(&str, &[u8])] = &[
        ("pages-1.img", &large),
        ("pages-2.img", &odd),
        ("pages-3.img", &[]),
        ("core-1.img", b"small"),
        ("empty.img", b""),
        ("big.img", &pages(20_000..20_200)),
    ];
    for encrypted in [false, true] {
        let local = Store::open(&url, &StoreSettings::default()).unwrap().child(&encrypted.to_string());
        for store in [Store::memory(), local] {
            let repository = repository(store, encrypted);
            let stored = save(&runtime, &repository, None, &options(), images).unwrap();
            check(&open(&runtime, &repository, &stored), images);
            let total: usize = images.iter().map(|(_, bytes)| bytes.len()).sum();
            assert_eq!(stored.progress.image_bytes, total as u64);
            assert!(stored.progress.stored_bytes < total as u64 * 3 / 4, "{:?}", stored.progress);
        }
    }
}

#[test]
fn equal_content_is_stored_once() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let memory = pages(1..2000);
    let once = save(&runtime, &repository, None, &options(), &[("pages-1.img", &memory)]).unwrap();
    // A forked copy, shifted by pages of its own.
    let forked = [&pages(90_000..90_010)[..], &memory].concat();
    let images: &[(&str, &[u8])] = &[("pages-1.img", &memory), ("pages-2.img", &forked), ("pages-3.img", &memory)];
    let parent = open(&runtime, &repository, &once);
    for known in [None, Some(&parent)] {
        let stored = save(&runtime, &repository, known, &options(), images).unwrap();
        let own = 10 + 2 * 64;
        let expected = if known.is_some() { own } else { 1999 + own };
        assert!(stored.progress.new_bytes <= (expected * PAGE + 40_000) as u64, "{:?}", stored.progress);
        check(&open(&runtime, &repository, &stored), images);
    }
}

#[test]
fn an_unchanged_generation_stores_almost_nothing_and_stands_alone() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let memory = pages(1..12_000);
    let images: &[(&str, &[u8])] = &[("pages-1.img", &memory), ("core-1.img", b"core")];
    let mut parent: Option<Opened> = None;
    for generation in 0..4 {
        let stored = save(&runtime, &repository, parent.as_ref(), &options(), images).unwrap();
        if generation > 0 {
            assert!(stored.new_packs.is_empty(), "generation {generation} wrote {:?}", stored.progress);
            assert_eq!(stored.progress.stored_bytes, 0);
            assert!(stored.index_length < 10_000);
        }
        // Opened anew: nothing of the parent's handle is needed.
        let opened = open(&runtime, &repository, &stored);
        check(&opened, images);
        parent = Some(opened);
    }
}

#[test]
fn metadata_is_small_and_dirty_runs_cost_what_they_are() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let before = pages((1..16_000).map(|n| 3 * n + 1));
    let first = save(&runtime, &repository, None, &options(), &[("pages-1.img", &before)]).unwrap();
    let metadata = first.progress.new_bytes - before.len() as u64 + first.index_length;
    assert!(metadata * 1000 < before.len() as u64 * 2, "{metadata} bytes for {}", before.len());
    let mut after = before.clone();
    let dirtied: usize = 5 * 160;
    for run in 0..5 {
        for page in 0..160 {
            after[(run * 3000 + 500 + page) * PAGE] ^= 0xff;
        }
    }
    let parent = open(&runtime, &repository, &first);
    let second = save(&runtime, &repository, Some(&parent), &options(), &[("pages-1.img", &after)]).unwrap();
    assert!(second.progress.stored_bytes * 10 < (dirtied * PAGE * 13) as u64, "{:?}", second.progress);
}

#[test]
fn what_was_warmed_is_not_stored_in_the_frozen_pass() {
    let runtime = runtime();
    let repository = repository(Store::memory(), false);
    let memory = pages(1..6000);
    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    for run in memory.chunks(1500 * PAGE) {
        let mut warm = save.warm().unwrap();
        let mut rest = run;
        while !rest.is_empty() {
            let space = warm.space().unwrap();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            warm.advance(count);
            rest = &rest[count..];
        }
        warm.end().unwrap();
    }
    while save.progress().new_bytes < 5500 * PAGE as u64 {
        std::thread::yield_now();
    }
    let warmed = save.progress();
    assert_eq!((warmed.warmed_bytes, warmed.image_bytes), (memory.len() as u64, 0));
    store_by_pipe(&save, "pages-1.img", &memory).unwrap();
    let stored = runtime.block_on(save.finish()).unwrap();
    // Each of the four runs began with no boundary: up to a chunk is cut otherwise. And the recipe.
    let limit = memory.len() as u64 + (4 * 64 * PAGE) as u64 + 40_000;
    assert!(stored.progress.new_bytes < limit, "{:?}", stored.progress);
    check(&open(&runtime, &repository, &stored), &[("pages-1.img", &memory)]);
}

#[test]
fn a_store_that_fails_at_any_operation_fails_the_save_and_nothing_hangs() {
    let runtime = runtime();
    let memory = pages(1..4000);
    let images: &[(&str, &[u8])] = &[("pages-1.img", &memory), ("core-1.img", b"core")];
    let good = repository(Store::memory(), true);
    let parent = save(&runtime, &good, None, &options(), &[("pages-1.img", &pages(1..500))]).unwrap();
    let parent = open(&runtime, &good, &parent);
    for moment in [Moment::Before, Moment::After] {
        for and_later in [false, true] {
            let mut failures = 0;
            for number in 1.. {
                let fault = Arc::new(FailNth { number, and_later, moment });
                let faulty = Repository { store: good.store.clone().with_fault(fault), ..good.clone() };
                match save(&runtime, &faulty, Some(&parent), &options(), images) {
                    // Without the list of packs there (the first operation) it is a full save.
                    Ok(stored) => {
                        check(&open(&runtime, &good, &stored), images);
                        if number > 1 {
                            break;
                        }
                        continue;
                    }
                    Err(SaveError::Store(error)) => assert!(error.to_string().contains("injected"), "{error}"),
                    Err(other) => panic!("operation {number}: {other}"),
                }
                failures += 1;
            }
            assert!(failures >= 3, "only {failures} operations could fail");
        }
    }
}

#[test]
fn reads_that_fail_or_lie_are_errors() {
    let runtime = runtime();
    let good = repository(Store::memory(), false);
    let memory = pages(1..3000);
    let stored = save(&runtime, &good, None, &options(), &[("pages-1.img", &memory)]).unwrap();
    let mut failures = 0;
    for number in 1.. {
        let fault = Arc::new(FailNth { number, and_later: false, moment: Moment::After });
        let faulty = Repository { store: good.store.clone().with_fault(fault), ..good.clone() };
        let opened = Opened::open(&faulty, stored.index, stored.index_length, runtime.handle());
        let result = runtime.block_on(opened).and_then(|opened| send_by_pipe(&opened, "pages-1.img"));
        match result {
            Ok(bytes) => {
                assert!(bytes == memory);
                break;
            }
            Err(error) => assert!(error.to_string().contains("injected"), "{error}"),
        }
        failures += 1;
    }
    assert!(failures > 3, "only {failures} operations could fail");
}

/// Holds every upload back until it is told to let go.
#[derive(Debug)]
struct Gate(tokio::sync::watch::Receiver<bool>);

#[async_trait::async_trait]
impl Fault for Gate {
    async fn strike(&self, moment: Moment, operation: &Operation) -> Result<(), StoreError> {
        if moment == Moment::Before && operation.name == "put_new" {
            let _ = self.0.clone().wait_for(|open| *open).await;
        }
        Ok(())
    }
}

#[test]
fn with_a_spool_the_images_are_taken_in_while_the_store_stands_still() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let (open_gate, gate) = tokio::sync::watch::channel(false);
    let good = repository(Store::memory(), true);
    let slow = Repository { store: good.store.clone().with_fault(Arc::new(Gate(gate))), ..good.clone() };
    let spool = Some(Spool { dir: directory.path().to_owned(), limit: 1 << 30 });
    let memory = pages((1..40_000).map(|n| 3 * n + 1));
    let save = Save::begin(&slow, None, &SaveOptions { spool, ..options() }, runtime.handle()).unwrap();
    store_by_pipe(&save, "pages-1.img", &memory).unwrap();
    let progress = save.progress();
    assert_eq!((progress.image_bytes, progress.uploaded_bytes), (memory.len() as u64, 0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the spool has a name");
    open_gate.send(true).unwrap();
    let stored = runtime.block_on(save.finish()).unwrap();
    assert_eq!(stored.progress.buffered_bytes, 0);
    check(&open(&runtime, &good, &stored), &[("pages-1.img", &memory)]);
}

#[test]
fn a_spool_that_is_full_holds_the_pipe_up_but_loses_nothing() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let good = repository(Store::memory(), true);
    let slow = Repository {
        store: good.store.clone().with_fault(Arc::new(Slow(std::time::Duration::from_millis(20)))),
        ..good.clone()
    };
    let spool = Some(Spool { dir: directory.path().to_owned(), limit: 12 << 20 });
    let memory = pages((1..20_000).map(|n| 3 * n + 1));
    let options = SaveOptions { spool, uploads: 1, ..options() };
    let stored = save(&runtime, &slow, None, &options, &[("pages-1.img", &memory)]).unwrap();
    check(&open(&runtime, &good, &stored), &[("pages-1.img", &memory)]);
}

#[test]
fn giving_up_frees_a_reader_that_waits_for_its_pipe() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let engine = Arc::clone(&save.engine);
    let waiting = std::thread::spawn(move || intake::read(&engine, "pages-1.img", &[], reader.as_fd(), None));
    while !save.engine.has_image("pages-1.img") {
        std::thread::yield_now();
    }
    save.abort();
    assert!(matches!(waiting.join().unwrap(), Err(SaveError::Aborted)));
}

#[test]
fn pages_that_begin_with_a_mark_are_corrected_wherever_they_stand() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let right = pages(1..3000);
    let mark = [7, 1, 7, 1, 7, 1, 7, 1];
    let mut wrong = right.clone();
    for page in [0, 1, 700, 2998] {
        wrong[page * PAGE..][..8].copy_from_slice(&mark);
    }
    // Not at the beginning of a page: data.
    wrong[50 * PAGE + 8..][..8].copy_from_slice(&mark);
    let mut expected = right.clone();
    expected[50 * PAGE + 8..][..8].copy_from_slice(&mark);
    let correct = |page: &mut [u8]| {
        let place = expected.chunks(PAGE).position(|original| original[8..page.len()] == page[8..]).unwrap();
        page[..8].copy_from_slice(&expected[place * PAGE..][..8]);
    };
    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = writer;
            for piece in wrong.chunks(100_000) {
                writer.write_all(piece).unwrap();
            }
        });
        let correction = Correction { mark, correct: &correct };
        save.store_stream("pages-1.img", &[], reader.as_fd(), Some(correction)).unwrap();
    });
    let stored = runtime.block_on(save.finish()).unwrap();
    check(&open(&runtime, &repository, &stored), &[("pages-1.img", &expected)]);
}

#[test]
fn a_name_is_taken_once() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    save.store_bytes("core-1.img", b"x").unwrap();
    assert!(matches!(save.store_bytes("core-1.img", b"x"), Err(SaveError::Twice(_))));
    assert!(matches!(save.store_bytes("", b"x"), Err(SaveError::Name(_))));
    assert!(matches!(save.store_bytes(&"x".repeat(300), b"x"), Err(SaveError::Name(_))));
}

#[test]
fn every_damage_is_found() {
    let runtime = runtime();
    for encrypted in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display());
        let store = Store::open(&url, &StoreSettings::default()).unwrap();
        let repository = repository(store, encrypted);
        let memory = pages((1..100).chain(300..303));
        let images: &[(&str, &[u8])] = &[("pages-1.img", &memory), ("core-1.img", b"core")];
        let stored = save(&runtime, &repository, None, &options(), images).unwrap();
        for pack in &stored.packs {
            let path = directory.path().join(layout::pack(&pack.id));
            let good = std::fs::read(&path).unwrap();
            assert_eq!(good.len() as u64, pack.size);
            let mut state = 1u64;
            let footer = good.len() - 60.min(good.len());
            let places = (0..48).chain(footer..good.len()).chain((0..30).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(state >> 33).unwrap() % good.len()
            }));
            let footer_size = good[good.len() - 12..][..4].try_into().map(u32::from_le_bytes).unwrap();
            let chunks = 48..good.len() - 12 - footer_size as usize;
            for place in places.collect::<Vec<_>>() {
                let mut bad = good.clone();
                bad[place] ^= 1 << (place % 8);
                let checked = crate::repository::pack::check(&repository.crypt, &pack.id, &mut bad.clone(), |_, _| ());
                assert!(checked.is_err(), "byte {place} of a pack");
                if chunks.contains(&place) {
                    std::fs::write(&path, &bad).unwrap();
                    let opened = open(&runtime, &repository, &stored);
                    let all: Vec<bool> = images.iter().map(|(name, _)| opened.read(name, 1 << 30).is_ok()).collect();
                    assert!(all.contains(&false), "byte {place} of a pack was used");
                }
            }
            std::fs::write(&path, &good[..good.len() / 2]).unwrap();
            let opened = open(&runtime, &repository, &stored);
            assert!(images.iter().any(|(name, _)| opened.read(name, 1 << 30).is_err_and(|error| error.is_damage())));
            std::fs::write(&path, &good).unwrap();
        }
        let path = directory.path().join(layout::index(&stored.index));
        let good = std::fs::read(&path).unwrap();
        for place in (0..good.len()).step_by(3) {
            let mut bad = good.clone();
            bad[place] ^= 1 << (place % 8);
            std::fs::write(&path, &bad).unwrap();
            let opened = Opened::open(&repository, stored.index, stored.index_length, runtime.handle());
            assert!(runtime.block_on(opened).is_err_and(|error| error.is_damage()), "byte {place} of the index");
        }
    }
}

#[test]
fn a_parent_that_cannot_be_read_makes_a_full_save() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let memory = pages(1..3000);
    let images: &[(&str, &[u8])] = &[("pages-1.img", &memory)];
    let stored = save(&runtime, &repository, None, &options(), images).unwrap();
    let parent = open(&runtime, &repository, &stored);
    assert!(stored.packs.len() > 2, "data and recipes are apart");
    for pack in &stored.packs {
        // One lost after the other, then all.
        runtime.block_on(repository.store.delete(&layout::pack(&pack.id))).unwrap();
        let again = save(&runtime, &repository, Some(&parent), &options(), images).unwrap();
        check(&open(&runtime, &repository, &again), images);
    }
}

#[test]
fn beyond_the_tables_bound_unchanged_memory_is_still_found() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let memory = pages(1..30_000);
    let small = SaveOptions { table_limit: 8 << 10, ..options() };
    let first = save(&runtime, &repository, None, &small, &[("pages-1.img", &memory)]).unwrap();
    let parent = open(&runtime, &repository, &first);
    let count = parent.leaves().len();
    assert!(count > 1, "{count} leaves");
    let changed = [&memory[..9000 * PAGE], &pages(90_000..90_100), &memory[9100 * PAGE..]].concat();
    for images in [[("pages-1.img", &memory[..])], [("pages-1.img", &changed[..])]] {
        let second = save(&runtime, &repository, Some(&parent), &small, &images).unwrap();
        // A few chunks are missed before the first hook, and after the change.
        assert!(second.progress.new_bytes < memory.len() as u64 / 20, "{:?}", second.progress);
        check(&open(&runtime, &repository, &second), &images);
    }
}

/// Reads one image through a pipe, in bites, with a pause after every so many of them.
fn read_slowly(opened: &Opened, name: &str, bite: usize, pause: std::time::Duration) -> Vec<u8> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || opened.send(name, writer.as_fd()));
        let mut bytes = Vec::new();
        while (&mut reader).take(bite as u64).read_to_end(&mut bytes).unwrap() > 0 {
            std::thread::sleep(pause);
        }
        assert_eq!(sender.join().unwrap().unwrap(), bytes.len() as u64);
        bytes
    })
}

#[test]
fn processes_that_share_memory_are_restored_side_by_side() {
    let runtime = runtime();
    // A forked family: much in common, each with pages of its own, one in another order, one that repeats itself.
    let common = pages(1..4000);
    let mut own = common.clone();
    for place in (0..4000u64).step_by(97) {
        own[usize::try_from(place).unwrap() * PAGE..][..PAGE].copy_from_slice(&pages([100_000 + place]));
    }
    let turned = [&common[8 << 20..], &common[..8 << 20]].concat();
    let repeated = [&common[..3 << 20], &common[..3 << 20], &own[..5 << 20]].concat();
    let images: &[(&str, &[u8])] = &[
        ("pages-1.img", &common),
        ("pages-2.img", &own),
        ("pages-3.img", &turned),
        ("pages-4.img", &repeated),
        ("pages-5.img", &common),
    ];
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let local = Store::open(&url, &StoreSettings::default()).unwrap();
    let slow = Store::memory().with_fault(std::sync::Arc::new(Slow(std::time::Duration::from_millis(2))));
    for store in [local, slow] {
        let repository = repository(store, true);
        let stored = save(&runtime, &repository, None, &options(), images).unwrap();
        let opened = open(&runtime, &repository, &stored);
        std::thread::scope(|scope| {
            for (number, (name, bytes)) in images.iter().enumerate() {
                let opened = &opened;
                let pause = std::time::Duration::from_micros(if number == 1 { 3000 } else { 0 });
                scope.spawn(move || assert!(read_slowly(opened, name, 300_000, pause) == *bytes, "{name}"));
            }
            // A reader that goes away early disturbs nobody.
            let (mut reader, writer) = std::io::pipe().unwrap();
            let opened = &opened;
            scope.spawn(move || opened.send("pages-2.img", writer.as_fd()).unwrap());
            reader.read_exact(&mut [0; 5000]).unwrap();
        });
    }
}

#[test]
fn a_reader_that_pauses_holds_nobody_up() {
    let runtime = runtime();
    let repository = repository(Store::memory(), false);
    let memory = pages(1..9000);
    let images: Vec<(String, &[u8])> = (1..=SENDERS).map(|n| (format!("pages-{n}.img"), &memory[..])).collect();
    let images: Vec<(&str, &[u8])> = images.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let stored = save(&runtime, &repository, None, &options(), &images).unwrap();
    let opened = open(&runtime, &repository, &stored);
    std::thread::scope(|scope| {
        // All but the last have begun and do not go on until the last one has all of its image.
        let mut paused = Vec::new();
        for (name, _) in &images[..SENDERS - 1] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let opened = &opened;
            scope.spawn(move || opened.send(name, writer.as_fd()));
            let mut first = vec![0; 100];
            reader.read_exact(&mut first).unwrap();
            paused.push((first, reader));
        }
        let last = images[SENDERS - 1].0;
        assert!(read_slowly(&opened, last, 1 << 20, std::time::Duration::ZERO) == memory);
        for (mut bytes, mut reader) in paused {
            reader.read_to_end(&mut bytes).unwrap();
            assert!(bytes == memory);
        }
    });
}

#[test]
fn what_was_stored_ahead_is_recognized_and_what_changed_is_not() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let before = pages((1..3000).chain(std::iter::repeat_n(0, 50)).chain(7000..9000));
    let mut after = before.clone();
    for page in [5, 1000, 1001, 3020, 4000] {
        after[page * PAGE..][..PAGE].copy_from_slice(&pages([50_000 + page as u64]));
    }
    after[2_000 * PAGE + 17] ^= 1;
    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    let mut stream = save.warm().unwrap();
    let mut rest = &before[..];
    while !rest.is_empty() {
        let space = stream.space().unwrap();
        let count = space.len().min(rest.len()).min(777_777);
        space[..count].copy_from_slice(&rest[..count]);
        stream.advance(count);
        rest = &rest[count..];
    }
    stream.end().unwrap();
    save.settle().unwrap();
    let ahead = save.progress();
    assert!(ahead.new_bytes > 0 && ahead.image_bytes == 0, "{ahead:?}");
    store_by_pipe(&save, "pages-1.img", &after).unwrap();
    store_by_pipe(&save, "pages-2.img", &before).unwrap();
    let stored = runtime.block_on(save.finish()).unwrap();
    let new = stored.progress.new_bytes - ahead.new_bytes;
    assert!(new < 7 * 300_000, "{new} bytes were stored again");
    check(&open(&runtime, &repository, &stored), &[("pages-1.img", &after), ("pages-2.img", &before)]);
}

/// Stores memory ahead as pre-copy does, in reads of odd sizes.
fn warm(save: &Save, memory: &[u8]) {
    let mut stream = save.warm().unwrap();
    let mut rest = memory;
    while !rest.is_empty() {
        let space = stream.space().unwrap();
        let count = space.len().min(rest.len()).min(77_777);
        space[..count].copy_from_slice(&rest[..count]);
        stream.advance(count);
        rest = &rest[count..];
    }
    stream.end().unwrap();
}

#[test]
fn what_an_earlier_save_has_read_is_recognized_by_the_next_one() {
    let runtime = runtime();
    let repository = repository(Store::memory(), true);
    let first = pages((1..3000).chain(std::iter::repeat_n(0, 50)).chain(7000..9000));
    let mut second = first.clone();
    second[100 * PAGE..][..PAGE].copy_from_slice(&pages([50_000]));
    let mut third = second.clone();
    third[4000 * PAGE + 5] ^= 1;

    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    warm(&save, &first);
    save.settle().unwrap();
    store_by_pipe(&save, "pages-1.img", &first).unwrap();
    let memento = save.watch().memento();
    let stored = runtime.block_on(save.finish()).unwrap();
    // None on processors without the instruction.
    let Some(memento) = memento else { return };
    let parent = open(&runtime, &repository, &stored);

    // With pre-copy, and what it hands on in turn; then without.
    let save = Save::begin(&repository, Some(&parent), &options(), runtime.handle()).unwrap();
    assert!(save.recall(&memento));
    warm(&save, &second);
    save.settle().unwrap();
    store_by_pipe(&save, "pages-1.img", &second).unwrap();
    let memento = save.watch().memento().unwrap();
    let stored = runtime.block_on(save.finish()).unwrap();
    assert!(stored.progress.new_bytes < 300_000, "{} bytes were stored again", stored.progress.new_bytes);
    let parent = open(&runtime, &repository, &stored);
    check(&parent, &[("pages-1.img", &second)]);

    let save = Save::begin(&repository, Some(&parent), &options(), runtime.handle()).unwrap();
    assert!(save.recall(&memento));
    store_by_pipe(&save, "pages-1.img", &third).unwrap();
    let stored = runtime.block_on(save.finish()).unwrap();
    assert!(stored.progress.new_bytes < 300_000, "{} bytes were stored again", stored.progress.new_bytes);
    check(&open(&runtime, &repository, &stored), &[("pages-1.img", &third)]);

    // A repository that has nothing of it, and another one.
    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    assert!(save.recall(&memento));
    store_by_pipe(&save, "pages-1.img", &third).unwrap();
    let stored = runtime.block_on(save.finish()).unwrap();
    assert!(stored.progress.new_bytes > third.len() as u64 / 2);
    check(&open(&runtime, &repository, &stored), &[("pages-1.img", &third)]);
    let other = self::repository(Store::memory(), true);
    let save = Save::begin(&other, None, &options(), runtime.handle()).unwrap();
    assert!(!save.recall(&memento));
    save.abort();
}

#[test]
fn an_image_that_comes_through_a_pipe_of_the_usual_size_comes_out_whole() {
    let runtime = runtime();
    let repository = repository(Store::memory(), false);
    let memory = pages((1..6000).chain(std::iter::repeat_n(0, 700)).chain(100..5000));
    let save = Save::begin(&repository, None, &options(), runtime.handle()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let memory = &memory;
        scope.spawn(move || {
            let mut writer = writer;
            // Pages and parts of pages, with pauses: what CRIU splices, and what it writes.
            for (number, piece) in memory.chunks(1_000_003).enumerate() {
                writer.write_all(piece).unwrap();
                if number % 5 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        });
        assert_eq!(save.store_pages("pages-1.img", reader.as_fd()).unwrap(), memory.len() as u64);
    });
    let stored = runtime.block_on(save.finish()).unwrap();
    check(&open(&runtime, &repository, &stored), &[("pages-1.img", &memory)]);
}

#[test]
fn pieces_of_many_blocks_in_one_pipeful_hold_nobody_up() {
    let runtime = runtime();
    let repository = repository(Store::memory(), false);
    // The second image takes a chunk here and a chunk there of the first: each from another block.
    let memory = pages(1..12_000);
    let mut scattered = Vec::new();
    for round in 0..3 {
        for place in (0..40).map(|n| (n * 7 % 40) * 300 + round * 90) {
            scattered.extend_from_slice(&memory[place * PAGE..(place + 80) * PAGE]);
        }
    }
    let images: &[(&str, &[u8])] =
        &[("pages-1.img", &memory), ("pages-2.img", &scattered), ("pages-3.img", &scattered)];
    let stored = save(&runtime, &repository, None, &options(), images).unwrap();
    let opened = open(&runtime, &repository, &stored);
    std::thread::scope(|scope| {
        for (name, bytes) in images {
            let opened = &opened;
            let pause = std::time::Duration::from_micros(100);
            scope.spawn(move || assert!(read_slowly(opened, name, 50_000, pause) == *bytes, "{name}"));
        }
    });
}

/// Counts requests for ranges.
#[derive(Debug, Default)]
struct Ranges(std::sync::atomic::AtomicU64);

#[async_trait::async_trait]
impl Fault for Ranges {
    async fn strike(&self, moment: Moment, operation: &Operation) -> Result<(), StoreError> {
        if moment == Moment::Before && operation.name == "get_range" {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Neighbouring chunks lie in the packs of different workers, and small images are many: still a restore asks for
/// windows, not for chunks.
#[test]
fn a_restore_from_an_object_store_asks_for_few_ranges() {
    let runtime = runtime();
    let good = repository(Store::memory(), true);
    let large = pages((1..3000).map(|n| 3 * n + 1));
    let small: Vec<(String, Vec<u8>)> = (0..30).map(|n| (format!("core-{n}.img"), pages([3 * n + 2]))).collect();
    let mut images: Vec<(&str, &[u8])> = small.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    images.push(("pages-1.img", &large));
    let stored = save(&runtime, &good, None, &options(), &images).unwrap();
    let count = Arc::new(Ranges::default());
    let counted = Repository { store: good.store.clone().with_fault(Arc::clone(&count) as Arc<dyn Fault>), ..good };
    let opened = open(&runtime, &counted, &stored);
    for (name, bytes) in &images {
        assert_eq!(send_by_pipe(&opened, name).unwrap(), *bytes, "{name}");
    }
    let requests = count.0.load(std::sync::atomic::Ordering::SeqCst);
    let windows: u64 = stored.packs.iter().map(|pack| pack.size.div_ceil(4 << 20)).sum();
    // No more windows than are kept, so none is fetched twice. Chunks are 32 KiB on average: there are hundreds.
    assert!(windows <= 8 && requests <= windows, "{requests} requests for {windows} windows");
}
