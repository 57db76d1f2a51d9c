//! Damaged checkpoints are refused by name; the older one is used; never is a long job silently
//! started from nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store, Ticks};
use std::fs;
use std::path::{Path, PathBuf};

fn counter(store: &Store) -> Container {
    Container::of("damage").store(store).workload("counter.py", &["--mib", "4"])
}

/// Two generations, 1-1 and 2-1; the ticks at which they were saved.
fn two_generations(store: &Store) -> (Ticks, Ticks) {
    let mut saved = [1, 2].into_iter().map(|_| {
        let running = counter(store).start();
        running.wait_for_line("tick ");
        let first = Ticks::of(&running.stdout_lines()).last();
        running.wait_for_line(&format!("tick {} ", first + 3));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200);
        Ticks::of(&running.stdout_lines())
    });
    (saved.next().unwrap(), saved.next().unwrap())
}

/// The objects of a kind that a save has added.
fn added(store: &Store, kind: &str, before: &[PathBuf]) -> Vec<PathBuf> {
    let of_kind = |file: &&PathBuf| file.to_string_lossy().contains(&format!("/{kind}/"));
    let files = store.files();
    files.iter().filter(of_kind).filter(|file| !before.contains(file)).cloned().collect()
}

fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn truncate(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() * 2 / 3]).unwrap();
}

/// The newest generation is refused by its name, and the workload continues from the older one.
fn continues_from_the_older(kind: &str, damage: fn(&Path)) {
    let store = Store::local();
    let first = counter(&store).start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    let before = store.files();
    let second = counter(&store).start();
    second.wait_for_line(&format!("tick {} ", Ticks::of(&first.stdout_lines()).last() + 3));
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait(), 200);
    let damaged = added(&store, kind, &before);
    assert!(!damaged.is_empty(), "the second generation has no {kind} of its own: {:?}", store.files());
    damaged.iter().for_each(|file| damage(file));

    let third = counter(&store).start();
    third.wait_for_stderr_line("continued from generation 1-1");
    refused(&third, "2-1");
    let first = Ticks::of(&first.stdout_lines());
    third.wait_for_line(&format!("tick {} ", first.last() + 5));
    first.then(Ticks::of(&third.stdout_lines())).assert_unbroken();
}

fn refused(running: &Running, generation: &str) {
    let said = running.stderr();
    assert!(said.contains(&format!("generation {generation} was not restored: ")), "{said}");
    assert!(said.contains("why:") && said.contains("next:"), "{said}");
}

#[test]
fn a_flipped_bit_in_a_pack() {
    continues_from_the_older("packs", flip_a_bit);
}

#[test]
fn a_truncated_pack() {
    continues_from_the_older("packs", truncate);
}

#[test]
fn a_pack_that_is_gone() {
    continues_from_the_older("packs", |file| fs::remove_file(file).unwrap());
}

#[test]
fn a_flipped_bit_in_an_index() {
    continues_from_the_older("index", flip_a_bit);
}

#[test]
fn a_truncated_index() {
    continues_from_the_older("index", truncate);
}

#[test]
fn a_flipped_bit_in_a_manifest() {
    continues_from_the_older("generations", flip_a_bit);
}

#[test]
fn a_truncated_manifest() {
    continues_from_the_older("generations", truncate);
}

/// Both generations are damaged: what happens is the policy's matter.
fn all_damaged() -> Store {
    let store = Store::local();
    two_generations(&store);
    added(&store, "packs", &[]).iter().for_each(|file| flip_a_bit(file));
    store
}

#[test]
fn when_all_are_damaged_it_fails_and_never_starts_from_nothing() {
    let store = all_damaged();
    let files = store.files().len();
    // Any number of times: a failed start changes nothing.
    for _ in 0..2 {
        let running = counter(&store).start();
        assert_eq!(running.wait(), 211);
        assert_eq!(running.stdout(), "", "the workload was started");
        refused(&running, "2-1");
        refused(&running, "1-1");
        assert!(running.stderr().contains("none of 2 checkpoints could be restored"), "{}", running.stderr());
        assert!(running.stderr().contains("--on-restore-failure fresh"), "{}", running.stderr());
    }
    assert!(store.files().len() >= files);
}

#[test]
fn when_all_are_damaged_the_resume_command_runs() {
    let store = all_damaged();
    let running = counter(&store).options(&["--resume-command", "echo resuming; exit 5"]).start();
    assert_eq!(running.wait(), 5);
    assert_eq!(running.stdout(), "resuming\n");
    refused(&running, "2-1");
    refused(&running, "1-1");
}

#[test]
fn when_all_are_damaged_a_fresh_start_is_made_only_on_demand() {
    let store = all_damaged();
    let running = counter(&store).options(&["--on-restore-failure", "fresh"]).start();
    running.wait_for_line("tick 1 ");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
    refused(&running, "1-1");
    // And what it saves is what the next container continues.
    let next = counter(&store).start();
    let last = Ticks::of(&running.stdout_lines());
    next.wait_for_line(&format!("tick {} ", last.last() + 2));
    last.then(Ticks::of(&next.stdout_lines())).assert_unbroken();
}
