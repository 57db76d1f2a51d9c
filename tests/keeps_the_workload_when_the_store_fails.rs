//! A store that fails costs a checkpoint, never the workload's own end, and never a start from nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store, Ticks};
use nix::mount::{MsFlags, mount};
use std::path::Path;

fn counter(store: &Store) -> Container {
    Container::of("failing")
        .store(store)
        .env("REVENANT_LEASE", "1s")
        .env("REVENANT_GRACE", "8s")
        .env("REVENANT_STORE_PATIENCE", "2s")
        .workload("counter.py", &["--mib", "6", "--on-term", "9"])
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

/// A volume of its own, of limited size. Unmounted with its store.
fn volume(size: &str) -> Store {
    let store = Store::local();
    let data = format!("size={size},mode=755");
    mount(Some("tmpfs"), store.directory().unwrap(), Some("tmpfs"), MsFlags::empty(), Some(data.as_str())).unwrap();
    store
}

/// The whole file system, as a kernel does that has met an error on its disk.
fn remount(directory: &Path, flags: MsFlags) {
    let none: Option<&str> = None;
    mount(none, directory, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
}

fn preempt(running: &Running, ticks_before: u64) -> i32 {
    running.wait_for_line(&format!("tick {} ", ticks_before + 3));
    running.signal(Signal::SIGTERM);
    running.wait()
}

/// Without a save the workload has had its SIGTERM, and the last words say why.
fn stopped_unsaved(running: &Running, previous: &str) {
    let said = running.stderr();
    assert!(running.stdout().ends_with("terminated\n"), "the workload was not told to end: {said}");
    assert!(said.contains("the workload was stopped without a new checkpoint"), "{said}");
    assert!(said.contains(&format!("the next container will continue from generation {previous}")), "{said}");
    assert!(said.contains("why:") && said.contains("next:") && said.contains("exit code 201"), "{said}");
}

#[test]
fn a_volume_that_became_read_only() {
    let store = volume("256m");
    let directory = store.directory().unwrap();
    let first = counter(&store).start();
    assert_eq!(preempt(&first, 0), 200);
    let second = counter(&store).start();
    second.wait_for_stderr_line("continued from generation 1-1");
    second.wait_for_line("tick ");
    remount(directory, MsFlags::MS_RDONLY);
    assert_eq!(preempt(&second, ticks(&first).last()), 201);
    stopped_unsaved(&second, "1-1");

    // Still read-only at the start: waiting would not mend that. It says so and fails; it does not begin anew.
    let third = counter(&store).start();
    assert_eq!(third.wait(), 205);
    assert_eq!(third.stdout(), "");
    assert!(third.stderr().contains("mount the volume read-write"), "{}", third.stderr());

    remount(directory, MsFlags::empty());
    let fourth = counter(&store).start();
    fourth.wait_for_line(&format!("tick {} ", ticks(&first).last() + 3));
    ticks(&first).then(ticks(&fourth)).assert_unbroken();
}

#[test]
fn a_volume_that_is_full() {
    let store = volume("8m");
    let first = counter(&store).start();
    assert_eq!(preempt(&first, 0), 200);
    let filler = store.directory().unwrap().join("filler");
    let full = std::fs::write(&filler, vec![0; 16 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(nix::libc::ENOSPC));
    let second = counter(&store).env("REVENANT_STORE_PATIENCE", "0").start();
    // A full volume has no room for a claim: nothing is started, nothing is lost.
    assert_eq!(second.wait(), 205);
    assert_eq!(second.stdout(), "");
    assert!(second.stderr().contains("no space left"), "{}", second.stderr());
    std::fs::remove_file(&filler).unwrap();

    let third = counter(&store).start();
    third.wait_for_line(&format!("tick {} ", ticks(&first).last() + 2));
    std::fs::write(&filler, vec![0; 16 << 20]).unwrap_err();
    third.signal(Signal::SIGTERM);
    assert_eq!(third.wait(), 201);
    stopped_unsaved(&third, "1-1");
    assert!(third.stderr().contains("no space left"), "{}", third.stderr());
}

#[test]
fn a_server_that_is_away() {
    let store = Store::seaweed();
    let first = counter(&store).start();
    assert_eq!(preempt(&first, 0), 200);
    let second = counter(&store).start();
    second.wait_for_stderr_line("continued from generation 1-1");
    second.wait_for_line("tick ");
    store.server().stop();
    assert_eq!(preempt(&second, ticks(&first).last()), 201);
    stopped_unsaved(&second, "1-1");

    let third = counter(&store).env("REVENANT_STORE_PATIENCE", "7s").start();
    assert_eq!(third.wait(), 205);
    assert_eq!(third.stdout(), "");
    assert!(third.stderr().contains("trying again"), "{}", third.stderr());

    // It comes back while a container waits for it.
    let fourth = counter(&store).env("REVENANT_STORE_PATIENCE", "5m").start();
    fourth.wait_for_stderr_line("trying again");
    store.server().resume();
    fourth.wait_for_line(&format!("tick {} ", ticks(&first).last() + 3));
    ticks(&first).then(ticks(&fourth)).assert_unbroken();
}

#[test]
fn a_request_says_what_failed_and_the_workload_runs_on() {
    let store = volume("256m");
    let running = counter(&store).start();
    running.wait_for_line("tick 3 ");
    remount(store.directory().unwrap(), MsFlags::MS_RDONLY);
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 205, "{}", asked.stderr);
    assert!(asked.stderr.contains("why:") && asked.stderr.contains("next:"), "{}", asked.stderr);
    let last = ticks(&running).last();
    running.wait_for_line(&format!("tick {} ", last + 3));
    remount(store.directory().unwrap(), MsFlags::empty());
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    ticks(&running).assert_unbroken();
}

#[test]
fn a_request_on_a_full_volume_says_so_and_the_workload_runs_on() {
    let store = volume("24m");
    let running = counter(&store).start();
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    let filler = store.directory().unwrap().join("filler");
    std::fs::write(&filler, vec![0; 32 << 20]).unwrap_err();
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 205, "{}", asked.stderr);
    assert!(asked.stderr.contains("is full") && asked.stderr.contains("enlarge the volume"), "{}", asked.stderr);
    let last = ticks(&running).last();
    running.wait_for_line(&format!("tick {} ", last + 5));
    // Room again: the next one succeeds, and what the failed one has left goes.
    std::fs::remove_file(&filler).unwrap();
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    ticks(&running).assert_unbroken();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
    let mut verify = std::process::Command::new(env!("CARGO_BIN_EXE_revenant"));
    verify.args(["verify", "--read-data", "--json", "--job", "failing", "--store"]);
    let output = verify.arg(format!("file://{}", store.directory().unwrap().display())).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["damages"], serde_json::json!([]));
    assert_eq!(report["unreferenced_packs"], 0);
}
