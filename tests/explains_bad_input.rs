//! Whatever is wrong with what revenant is given: an own exit code, what, why and what to do, on one
//! screen, and the workload is not started.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks};
use std::os::unix::fs::PermissionsExt;

fn hello(store: &Store) -> Container {
    Container::of("input").store(store).env("REVENANT_STORE_PATIENCE", "0").command(&["echo", "started"])
}

/// Nothing but a message with all of these words, and this code.
fn refuses(container: &Container, code: i32, words: &[&str]) {
    let running = container.start();
    let ended = running.wait();
    let said = running.stderr();
    assert_eq!(ended, code, "{said}");
    assert_eq!(running.stdout(), "", "something was started");
    assert!(said.contains("next:"), "no next step: {said}");
    assert!(said.lines().count() <= 24, "more than a screen: {said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn no_command() {
    let store = Store::local();
    refuses(&hello(&store).command(&[]), 210, &["no command was given", "revenant run -- COMMAND"]);
    assert_eq!(store.files(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn a_command_that_is_not_there_or_cannot_be_executed() {
    let store = Store::local();
    refuses(&hello(&store).command(&["megahti"]), 127, &["megahti", "not found"]);
    refuses(&hello(&store).command(&["/nowhere/tool"]), 127, &["/nowhere/tool"]);
    refuses(&hello(&store).command(&["/etc/passwd"]), 126, &["/etc/passwd", "execut"]);
    refuses(&hello(&store).command(&["/etc"]), 126, &["/etc"]);
}

#[test]
fn arguments_that_make_no_sense() {
    let store = Store::local();
    refuses(&hello(&store).env("REVENANT_JOB", "../other"), 210, &["../other", "letters, digits"]);
    refuses(&hello(&store).options(&["--grace", "soon"]), 210, &["soon", "90s"]);
    let policy = ["--on-restore-failure", "resume-command"];
    refuses(&hello(&store).options(&policy), 210, &["--resume-command"]);
}

#[test]
fn a_store_of_an_unknown_kind() {
    let store = Store::local();
    refuses(&hello(&store).env("REVENANT_STORE", "ftp://server/path"), 210, &["ftp", "s3://"]);
    refuses(&hello(&store).env("REVENANT_STORE", "/checkpoints"), 210, &["/checkpoints", "file:///"]);
}

#[test]
fn a_directory_that_cannot_be_written() {
    let directory = Store::local();
    let container = Container::of("input")
        .env("REVENANT_STORE", "file:///checkpoints")
        .env("REVENANT_STORE_PATIENCE", "0")
        .mount_read_only(directory.directory().unwrap(), "/checkpoints")
        .command(&["echo", "started"]);
    refuses(&container, 205, &["/checkpoints", "read-write"]);
}

#[test]
fn a_bucket_that_is_missing_and_credentials_that_are_wrong() {
    let store = Store::seaweed();
    refuses(&hello(&store).env("REVENANT_STORE", "s3://absent/jobs"), 205, &["absent", "bucket", "does not create"]);
    refuses(&hello(&store).env("AWS_SECRET_ACCESS_KEY", "guessed"), 205, &["AWS_"]);
    refuses(&hello(&store).env("AWS_ACCESS_KEY_ID", "nobody"), 205, &["AWS_"]);
}

#[test]
fn a_criu_that_is_missing_or_too_old() {
    let (store, folder) = (Store::local(), Store::local());
    refuses(&hello(&store).env("REVENANT_CRIU", "/nowhere"), 206, &["/nowhere", "/opt/revenant"]);
    let container = with_criu(hello(&store), &folder, "3.17.1");
    refuses(&container, 206, &["3.17.1", "too old", "4.2"]);
}

/// A CRIU that knows nothing but its version.
fn with_criu(container: Container, folder: &Store, version: &str) -> Container {
    let program = folder.directory().unwrap().join("criu");
    std::fs::write(&program, format!("#!/bin/sh\necho Version: {version}\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    container.mount_read_only(folder.directory().unwrap(), "/other").env("REVENANT_CRIU", "/other/criu")
}

#[test]
fn a_checkpoint_of_a_newer_criu_than_this_images() {
    let (store, folder) = (Store::local(), Store::local());
    let counter = Container::of("input").store(&store).workload("counter.py", &[]);
    let first = counter.start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    let older = with_criu(counter.clone(), &folder, "4.2");
    refuses(&older, 202, &["generation 1-1 was not restored", "was made by CRIU", "here is CRIU 4.2", "image"]);
    // The right image continues as if nothing had been tried.
    let next = counter.start();
    next.wait_for_line(&format!("tick {} ", Ticks::of(&first.stdout_lines()).last() + 2));
    Ticks::of(&first.stdout_lines()).then(Ticks::of(&next.stdout_lines())).assert_unbroken();
}

#[test]
fn a_container_that_lacks_rights() {
    let store = Store::local();
    let lacking = hello(&store).drop_capability("CHECKPOINT_RESTORE");
    refuses(&lacking, 207, &["CHECKPOINT_RESTORE", "capabilities.add", "--store none"]);
    refuses(&hello(&store).seccomp_filter(), 207, &["seccomp", "Unconfined", "--store none"]);
    let ordinary = hello(&store).drop_capability("CHECKPOINT_RESTORE").options(&["--store", "none"]).start();
    assert_eq!(ordinary.wait(), 0);
    assert_eq!(ordinary.stdout(), "started\n");
}

#[test]
fn a_job_that_another_container_runs() {
    let store = Store::local();
    let counter = Container::of("shared").store(&store).env("REVENANT_LEASE", "3s").workload("counter.py", &[]);
    let first = counter.clone().hostname("pod-a").start();
    first.wait_for_line("tick 3 ");
    refuses(&counter.clone().hostname("pod-b"), 203, &["another container is running this job", "pod-a", "--takeover"]);
    // The first one has noticed nothing.
    let last = Ticks::of(&first.stdout_lines()).last();
    first.wait_for_line(&format!("tick {} ", last + 3));
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    Ticks::of(&first.stdout_lines()).assert_unbroken();
}
