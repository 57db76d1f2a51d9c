//! What the user says about files: what is left out, how much may travel, and how volumes are treated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Scratch, Signal, Store};
use std::path::Path;

fn job(name: &str, store: &Store) -> Container {
    Container::of(name).store(store).env("REVENANT_LEASE", "1s").env("REVENANT_GRACE", "60s")
}

#[test]
fn ignored_paths_stay_behind_and_others_travel() {
    let script = "mkdir -p /var/work /cache; echo kept > /var/work/file; head -c 2000000 /dev/urandom > /cache/big
        n=0; while sleep 0.05; do n=$((n + 1)); echo tick $n $(cat /var/work/file) $(ls /cache | wc -l); done";
    let store = Store::local();
    let container = job("ignoring", &store).options(&["--ignore", "/cache"]).command(&["/bin/bash", "-c", script]);
    let first = container.start();
    first.wait_for_line("tick 3 kept 1");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.report());
    let second = container.start();
    second.wait_for_lines("tick ", 3);
    // Of the first one, it may have looked before it was saved.
    assert!(second.stdout_lines().iter().skip(1).all(|line| line.ends_with(" kept 0")), "{}", second.report());
    second.kill9();
}

#[test]
fn more_than_the_limit_is_refused_by_name_and_less_is_saved_again() {
    let script = "head -c 4194304 /dev/urandom > /var/large; echo small > /var/small
        n=0; while sleep 0.05; do n=$((n + 1)); echo tick $n; done";
    let store = Store::local();
    let container = job("limited", &store).options(&["--file-limit", "1MiB"]).command(&["/bin/bash", "-c", script]);
    let running = container.start();
    running.wait_for_line("tick 2");
    let refused = running.exec(&["revenant", "checkpoint"]);
    assert_ne!(refused.code, 0, "{}", running.report());
    for said in ["the limit is 1 MiB", "/var/large", "--file-limit", "--ignore"] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    let seen = running.stdout_lines().len();
    running.wait_for_lines("tick ", seen + 3);
    assert_eq!(running.exec(&["rm", "/var/large"]).code, 0);
    let saved = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    running.kill9();
}

/// What the job has not written is not the checkpoint's, unless it is kept: then it comes back.
#[test]
fn a_file_that_is_kept_comes_back_when_it_is_gone_and_is_not_missed_else() {
    let script =
        "n=0; while sleep 0.05; do n=$((n + 1)); echo tick $n $(cat /data/reference 2>/dev/null || echo gone); done";
    for (options, then) in [(&["--keep", "/data/reference"][..], "given"), (&[], "gone")] {
        let (store, data) = (Store::local(), Scratch::new());
        std::fs::write(data.path().join("reference"), "given").unwrap();
        let container = job("kept", &store).mount(data.path(), "/data").options(options);
        let container = container.command(&["/bin/bash", "-c", script]);
        let first = container.start();
        first.wait_for_line("tick 3 given");
        first.signal(Signal::SIGTERM);
        assert_eq!(first.wait(), 200, "{}", first.report());
        std::fs::remove_file(data.path().join("reference")).unwrap();
        let second = container.start();
        second.wait_for_lines("tick ", 2);
        assert!(second.stdout_lines().last().unwrap().ends_with(then), "{}", second.report());
        second.kill9();
    }
}

/// Deleted after the checkpoint: by default small files were copied; where they were only recorded, it is said by name.
#[test]
fn a_file_that_the_job_wrote_and_that_is_gone_is_restored_or_reported() {
    let script = "echo mine > /data/result; exec 3>>/data/log; n=0
        while sleep 0.05; do n=$((n + 1)); echo line $n >&3; echo tick $n $(cat /data/result); done";
    for (options, code) in [(&[][..], 0), (&["--volume", "/data=record"], 202)] {
        let (store, data) = (Store::local(), Scratch::new());
        let container = job("gone", &store).mount(data.path(), "/data").options(options);
        let container = container.command(&["/bin/bash", "-c", script]);
        let first = container.start();
        first.wait_for_line("tick 3 mine");
        first.signal(Signal::SIGTERM);
        assert_eq!(first.wait(), 200, "{}", first.report());
        std::fs::remove_file(data.path().join("result")).unwrap();
        std::fs::write(data.path().join("neighbour"), "another job's").unwrap();
        let second = container.start();
        if code == 0 {
            second.wait_for_lines("tick ", 2);
            assert!(second.stdout_lines().iter().all(|line| line.ends_with(" mine")), "{}", second.report());
            let told =
                "left as found: /data/neighbour appeared or changed after the checkpoint beside the job's own files";
            assert!(second.stderr().contains(told), "{}", second.report());
            assert_eq!(std::fs::read_to_string(data.path().join("neighbour")).unwrap(), "another job's");
            second.kill9();
        } else {
            assert_eq!(second.wait(), code, "{}", second.report());
            assert!(second.stderr().contains("/data/result was deleted after the checkpoint"), "{}", second.report());
        }
    }
}

/// Saved, rewritten on, and killed.
fn killed_after_more_writes(container: &Container) {
    let running = container.start();
    running.wait_for_line("step 3");
    let saved = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    let seen = running.stdout_lines().len();
    running.wait_for_lines("step ", seen + 4);
    running.kill9();
}

fn rewriter(name: &str, store: &Store, data: &Path, mode: &str, bytes: &str) -> Container {
    let container = job(name, store).mount(data, "/data").options(&["--volume", mode]);
    container.workload("rewriter.py", &["/data/index", bytes])
}

fn steps(running: &Running) -> usize {
    running.stdout_lines().iter().filter(|line| line.starts_with("step ")).count()
}

#[test]
fn a_large_file_that_is_rewritten_in_place_comes_back_with_a_volume_that_is_copied() {
    let (store, data) = (Store::local(), Scratch::new());
    // More than is copied unasked.
    let container = rewriter("copied", &store, data.path(), "/data=copy", "6000000");
    killed_after_more_writes(&container);
    let next = container.start();
    next.wait_until("steps", || steps(&next) >= 3 || next.exit().is_some());
    assert_eq!(next.exit(), None, "{}", next.report());
    next.kill9();
}

#[test]
fn the_same_on_a_volume_that_is_only_recorded_is_refused_by_name_unless_it_is_accepted() {
    let (store, data) = (Store::local(), Scratch::new());
    let container = rewriter("recorded", &store, data.path(), "/data=record", "1000000");
    killed_after_more_writes(&container);
    let refused = container.start();
    assert_eq!(refused.wait(), 202, "{}", refused.report());
    for said in ["/data/index", "was rewritten after the checkpoint", "--files accept", "--volume PATH=copy"] {
        assert!(refused.stderr().contains(said), "{said}: {}", refused.report());
    }
    // Who accepts it gets memory and files of two moments, which this program notices.
    let accepted = container.options(&["--files", "accept"]).start();
    assert_eq!(accepted.wait(), 99, "{}", accepted.report());
    assert!(accepted.stdout_lines()[0].starts_with("broken step"), "{}", accepted.report());
}

fn firewall(running: &Running) -> Vec<String> {
    let listed = running.exec(&["python3", "/workloads/firewall.py", "list"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    listed.stdout.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn connections_that_are_kept_leave_no_firewall_rule_behind() {
    let (store, volume) = (Store::local(), Scratch::new());
    let container = job("connected", &store)
        .own_network()
        .add_capability("NET_ADMIN")
        .options(&["--tcp", "keep"])
        .mount(volume.path(), "/volume")
        .workload("kinds.py", &["tcp-connection"]);
    let first = container.start();
    first.wait_for_lines("step ", 2);
    // What a rule would look like is seen: this one is the test's own.
    let before = firewall(&first);
    assert_eq!(first.exec(&["python3", "/workloads/firewall.py", "add", "test"]).code, 0);
    let with_one: Vec<String> = before.iter().cloned().chain(["nftables test".to_owned()]).collect();
    assert_eq!(firewall(&first), with_one);
    // A save after which it runs on, and one after which it does not.
    let saved = first.exec(&["revenant", "checkpoint"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    assert_eq!(firewall(&first), with_one);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.report());
    let second = container.start();
    second.wait_for_lines("step ", 2);
    assert_eq!(firewall(&second), before);
    second.kill9();
}
