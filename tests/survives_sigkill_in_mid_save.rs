//! A save that dies in the middle harms neither the workload nor the checkpoint before it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store, Ticks};
use revenant::failpoint::{During, steps};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

const LEASE: &str = "1s";

fn counter(store: &Store, arguments: &[&str]) -> Container {
    Container::of("killed").store(store).env("REVENANT_LEASE", LEASE).workload("counter.py", arguments)
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

/// The first generation: its last tick is the least that must survive.
fn saved_once(container: &Container) -> Ticks {
    let running = container.start();
    running.wait_for_line("tick 3 ");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
    ticks(&running)
}

/// The engine dies at this step of the final save: the workload is told to end by itself, and the
/// next container continues from this generation.
fn engine_dies_at(step: &str, continues_from: &str) {
    let store = Store::local();
    let on_term = ["--on-term", "9"];
    let saved = saved_once(&counter(&store, &on_term));
    let dying = counter(&store, &on_term).env("REVENANT_FAILPOINT", step).start();
    dying.wait_for_line(&format!("tick {} ", saved.last() + 2));
    dying.signal(Signal::SIGTERM);
    assert_eq!(dying.wait(), 201);
    let said = dying.stderr();
    assert!(said.contains(&format!("failpoint {step} reached")), "{said}");
    assert!(said.contains("the save failed; earlier checkpoints stand"), "{said}");
    assert!(dying.stdout().ends_with("terminated\n"), "the workload was not told");
    saved.clone().then(ticks(&dying)).assert_unbroken();

    let next = counter(&store, &on_term).start();
    next.wait_for_stderr_line(&format!("continued from generation {continues_from}"));
    next.wait_for_line(&format!("tick {} ", ticks(&dying).last() + 3));
    ticks(&dying).assert_continues(&ticks(&next), saved.last());
    ticks(&next).assert_true(&[]);
}

#[test]
fn an_engine_that_dies_before_its_data_is_durable() {
    engine_dies_at("save.images.packed", "1-1");
}

#[test]
fn an_engine_that_dies_between_data_and_index() {
    engine_dies_at("save.packs.durable", "1-1");
}

#[test]
fn an_engine_that_dies_before_the_manifest() {
    engine_dies_at("commit-before-manifest", "1-1");
}

#[test]
fn an_engine_that_dies_after_the_manifest() {
    engine_dies_at("commit-after-manifest", "2-1");
}

/// Every generation that exists verifies, byte by byte.
fn assert_sound(store: &Store, context: &str) {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_revenant"));
    verify.args(["verify", "--read-data", "--json", "--job", "killed", "--store"]);
    let output = verify.arg(format!("file://{}", store.directory().unwrap().display())).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["damages"], serde_json::json!([]), "{context}");
    assert_eq!(report["good"], report["generations"], "{context}");
}

/// A save is requested and its engine dies at this step; the workload runs on.
fn requested_save_dies_at(step: &str, running: &Running) {
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_ne!(asked.code, 0, "{step}");
    assert!(asked.stderr.contains("the engine ended before its work was done"), "{step}: {}", asked.stderr);
    running.wait_for_stderr_line(&format!("failpoint {step} reached"));
    let last = ticks(running).last();
    running.wait_for_line(&format!("tick {} ", last + 3));
}

/// At each step that the code names; then the container is killed too, and the next one continues
/// from the old generation or the new one.
#[test]
fn a_workload_runs_on_wherever_the_engine_of_a_requested_save_dies() {
    let arguments = ["--threads", "1"];
    let store = Store::local();
    let saved = saved_once(&counter(&store, &arguments));
    let mut before = saved.clone();
    for step in steps(During::Save) {
        let running = counter(&store, &arguments).env("REVENANT_FAILPOINT", step).start();
        running.wait_for_line("tick ");
        running.wait_for_line(&format!("tick {} ", ticks(&running).first() + 2));
        before.assert_continues(&ticks(&running), saved.last());
        requested_save_dies_at(step, &running);
        running.kill9();
        assert_sound(&store, step);
        before = ticks(&running);
        before.assert_true(&arguments);
    }
    let next = counter(&store, &arguments).start();
    next.wait_for_stderr_line("continued from generation");
    next.wait_for_line("tick ");
    before.assert_continues(&ticks(&next), saved.last());
    next.signal(Signal::SIGTERM);
    assert_eq!(next.wait(), 200);
    assert_sound(&store, "the last save");
}

#[test]
fn a_workload_runs_on_wherever_a_save_with_a_spool_dies() {
    let arguments = ["--mib", "96", "--interval", "0.2"];
    for step in steps(During::SpooledSave) {
        let store = Store::local();
        let container = |limit: &str| {
            let spooling = counter(&store, &arguments).tmpfs("/spool").env("REVENANT_SPOOL", "/spool");
            spooling.env("REVENANT_UPLOAD_LIMIT", limit)
        };
        let running = container("4MiB").env("REVENANT_FAILPOINT", step).start();
        running.wait_for_line("tick 2 ");
        requested_save_dies_at(step, &running);
        ticks(&running).assert_unbroken();
        running.kill9();
        assert_sound(&store, step);
        // What the killed one has left is in nobody's way.
        let next = container("200MiB").start();
        next.wait_for_line("tick 2 ");
        let asked = next.exec(&["revenant", "checkpoint"]);
        assert_eq!(asked.code, 0, "{step}: {}", asked.stderr);
        assert_sound(&store, step);
    }
}

/// A container dies while it takes its job; the next one continues all the same.
#[test]
fn a_container_that_dies_while_it_takes_its_job() {
    let store = Store::local();
    let saved = saved_once(&counter(&store, &[]));
    for step in steps(During::Begin) {
        let dying = counter(&store, &[]).env("REVENANT_FAILPOINT", step).start();
        assert_ne!(dying.wait(), 0, "{step}");
        assert!(dying.stderr().contains(&format!("failpoint {step} reached")), "{step}: {}", dying.stderr());
        assert_eq!(dying.stdout(), "", "{step}");
    }
    let next = counter(&store, &[]).start();
    next.wait_for_line(&format!("tick {} ", saved.last() + 3));
    saved.then(ticks(&next)).assert_unbroken();
}

/// The container is killed so many milliseconds after `begin`; the next one continues from a whole
/// generation, and nothing that was durable before is lost.
fn killed_after(delays: &[u64], begin: fn(&Running)) {
    let store = Store::local();
    let large = ["--mib", "24", "--children", "1", "--interval", "0.1"];
    let container = counter(&store, &large);
    let saved = saved_once(&container);
    let mut before = saved.clone();
    for delay in delays {
        let running = container.start();
        running.wait_for_stderr_line("continued from generation");
        running.wait_for_line("tick ");
        let first = ticks(&running).first();
        running.wait_for_line(&format!("tick {} ", first + 2));
        begin(&running);
        sleep(Duration::from_millis(*delay));
        running.signal(Signal::SIGKILL);
        let code = running.wait();
        assert!(code == 137 || code == 200, "ended with {code}");
        let now = ticks(&running);
        before.assert_continues(&now, saved.last());
        now.assert_true(&large);
        before = now;
    }
}

#[test]
fn a_container_that_is_killed_in_a_final_save() {
    killed_after(&[20, 150, 300, 600, 1000], |running| running.signal(Signal::SIGTERM));
}

#[test]
fn a_container_that_is_killed_in_a_requested_save() {
    killed_after(&[100, 250, 500, 900], |running| drop(running.exec_in_background(&["revenant", "checkpoint"])));
}
