//! A job that is killed long after its last save continues from there, and its files end as if nothing had
//! happened: what it appended, rewrote, made, renamed and removed since then is undone first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Scratch, Store};
use std::collections::BTreeMap;
use std::path::Path;

fn job(name: &str, store: &Store, data: &Path) -> Container {
    Container::of(name)
        .store(store)
        .env("REVENANT_LEASE", "1s")
        .options(&["--volume", "/data=copy", "--on-complete", "keep"])
        .mount(data, "/data")
        .workload("ledger.py", &["/data"])
}

/// Every file with its content, but for what was moved aside.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

fn private(running: &Running) -> String {
    running.stdout_lines().into_iter().find(|line| line.starts_with("private ")).expect("the job has not ended")
}

fn undisturbed() -> (BTreeMap<String, Vec<u8>>, String) {
    let (store, data) = (Store::local(), Scratch::new());
    let running = job("undisturbed", &store, data.path()).start();
    assert_eq!(running.wait(), 0);
    (files(data.path()), private(&running))
}

#[test]
fn a_kill_after_a_save_leaves_the_files_of_an_undisturbed_run() {
    let expected = undisturbed();
    for (saved, killed) in [(12, 40), (35, 64), (61, 119)] {
        let (store, data) = (Store::local(), Scratch::new());
        let container = job("ledger", &store, data.path());
        let first = container.start();
        first.wait_for_line(&format!("step {saved}"));
        let asked = first.exec(&["revenant", "checkpoint"]);
        assert_eq!(asked.code, 0, "{}", asked.stderr);
        first.wait_for_line(&format!("step {killed}"));
        first.kill9();
        let next = container.start();
        assert_eq!(next.wait(), 0, "{}", next.stderr());
        assert_eq!(private(&next), expected.1, "the file in /tmp");
        let found = files(data.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.0.keys().collect::<Vec<_>>());
        for (name, content) in &expected.0 {
            assert!(found[name] == *content, "{name} differs, saved at {saved}, killed at {killed}");
        }
    }
}

#[test]
fn nothing_that_was_written_after_the_save_is_deleted() {
    let (store, data) = (Store::local(), Scratch::new());
    let container = job("aside", &store, data.path());
    let first = container.start();
    first.wait_for_line("step 5");
    assert_eq!(first.exec(&["revenant", "checkpoint"]).code, 0);
    first.wait_for_line("step 20");
    first.kill9();
    let written = std::fs::read(data.path().join("result-0020.txt")).unwrap();
    let next = container.start();
    next.wait_for_line("step 30");
    next.kill9();
    let aside = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains(".revenant-aside-")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(aside[0].join("result-0020.txt")).unwrap(), written);
}
