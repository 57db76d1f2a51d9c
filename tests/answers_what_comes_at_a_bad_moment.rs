//! What comes while something else is under way: a second SIGTERM, a notice, a request, the workload's own end. The
//! whole table is docs/state-machine.md and is tested cell by cell where it stands; here its hard cells are met in real
//! containers, with saves that take long because their store is slow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod announcers;
mod harness;

use announcers::clouds;
use harness::{Container, Exec, Running, Signal, Store, Ticks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Some 18 MiB to upload.
const MEMORY: [&str; 4] = ["--mib", "24", "--on-term", "9"];

fn counter(store: &Store, limit: &str) -> Container {
    let container = Container::of("interrupted").store(store).env("REVENANT_LEASE", "1s");
    container.env("REVENANT_UPLOAD_LIMIT", limit).workload("counter.py", &MEMORY)
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

/// A save that is requested and uploads, while the workload runs again.
fn uploading(running: &Running) -> Exec {
    running.wait_for_line("tick 3 ");
    let asked = running.exec_in_background(&["revenant", "checkpoint", "--json"]);
    asked.wait_for_line("\"answer\":\"released\"");
    asked
}

/// The next container begins where the last one left off.
fn continues_exactly(store: &Store, first: &Running) {
    let next = counter(store, "1GiB").start();
    next.wait_for_line(&format!("tick {} ", ticks(first).last() + 2));
    let both = ticks(first).then(ticks(&next));
    both.assert_unbroken();
    both.assert_true(&MEMORY[..2]);
    next.kill9();
}

#[test]
fn a_second_sigterm_ends_the_final_save_and_the_workload_gets_its_own() {
    let store = Store::local();
    let first = counter(&store, "256KiB").options(&["--grace", "10m"]).start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    first.wait_for_stderr_line("saving (SIGTERM)");
    // The tree stands still, and will for a minute.
    first.wait_until("stop of the workload", || {
        let before = ticks(&first).last();
        std::thread::sleep(Duration::from_millis(500));
        ticks(&first).last() == before
    });
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 201, "{}", first.stderr());
    assert!(first.stdout().ends_with("terminated\n"), "the workload was not told: {}", first.stderr());
    assert!(first.stderr().contains("there is no checkpoint"), "{}", first.stderr());
    ticks(&first).assert_unbroken();
}

#[test]
fn a_sigterm_during_a_save_lets_it_finish_and_a_last_one_loses_nothing() {
    let store = Store::local();
    let first = counter(&store, "3MiB").options(&["--grace", "10m"]).start();
    let asked = uploading(&first);
    first.signal(Signal::SIGTERM);
    let asked = asked.wait();
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    assert!(first.stderr().contains("saved generation 1-2"), "{}", first.stderr());
    continues_exactly(&store, &first);
}

#[test]
fn a_notice_during_a_save_lets_it_finish_and_a_last_one_loses_nothing() {
    let store = Store::local();
    let announced = Arc::new(AtomicBool::new(false));
    let server = clouds::aws_spot(announced.clone(), SystemTime::now() + Duration::from_secs(60));
    let first = counter(&store, "3MiB").options(&["--cloud", "aws", "--cloud-endpoint", &server.url()]).start();
    let asked = uploading(&first);
    announced.store(true, Ordering::Relaxed);
    first.wait_for_stderr_line("the end is announced for");
    let asked = asked.wait();
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    // No SIGTERM ever comes.
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    assert!(first.stderr().contains("saving (EC2 takes this spot instance away (terminate))"), "{}", first.stderr());
    continues_exactly(&store, &first);
}

#[test]
fn a_request_to_stop_during_a_save_is_answered_by_a_second_one() {
    let store = Store::local();
    let first = counter(&store, "3MiB").start();
    let asked = uploading(&first);
    let stop = first.exec(&["revenant", "checkpoint", "--stop"]);
    assert_eq!((stop.code, asked.wait().code), (0, 0), "{}", stop.stderr);
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    assert!(first.stderr().contains("saved generation 1-2"), "{}", first.stderr());
    continues_exactly(&store, &first);
}

#[test]
fn a_workload_that_ends_during_a_save_ends_the_container_as_it_wants() {
    let store = Store::local();
    let first = counter(&store, "256KiB").start();
    let command = "python3 /workloads/counter.py --mib 24 --on-term 9";
    let asked = uploading(&first);
    let pid = first.wait_for_process(command);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(first.wait(), 9, "{}", first.stderr());
    let asked = asked.wait();
    assert_ne!(asked.code, 0, "{}{}", asked.stdout, asked.stderr);
    // What was not finished does not exist: the job begins anew.
    let next = counter(&store, "1GiB").start();
    next.wait_for_line("tick 3 ");
    assert_eq!(ticks(&next).first(), 1, "{}", next.stderr());
    next.kill9();
}

/// A workload that is killed from outside in the middle of a save that holds it.
#[test]
fn a_workload_that_is_killed_during_its_final_save_is_not_taken_for_saved() {
    let store = Store::local();
    let first = counter(&store, "256KiB").options(&["--grace", "10m"]).start();
    first.wait_for_line("tick 3 ");
    let command = "python3 /workloads/counter.py --mib 24 --on-term 9";
    let pid = first.wait_for_process(command);
    first.signal(Signal::SIGTERM);
    first.wait_for_stderr_line("saving (SIGTERM)");
    first.wait_for_process_state(command, 't');
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let code = first.wait();
    let said = first.stderr();
    let store_has = store.files().iter().any(|file| file.extension().is_some_and(|end| end == "manifest"));
    // Its state was captured before or not; either way what the exit code says is so.
    assert_eq!(code == 200, store_has, "{code}: {said}");
    assert!([137, 200, 201].contains(&code), "{code}: {said}");
}

/// It comes too early for a save, and is kept for when there is something to save.
#[test]
fn a_notice_during_a_restore_gets_its_last_save_once_the_workload_runs() {
    let store = Store::seaweed();
    let container = Container::of("interrupted").store(&store).workload("counter.py", &[]);
    let first = container.start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    store.server().stop();

    let announced = Arc::new(AtomicBool::new(false));
    let server = clouds::aws_spot(announced.clone(), SystemTime::now() + Duration::from_secs(50));
    let next = container.options(&["--cloud", "aws", "--cloud-endpoint", &server.url()]).start();
    next.wait_for_stderr_line("trying again");
    announced.store(true, Ordering::Relaxed);
    next.wait_for_stderr_line("the end is announced for");
    assert_eq!(next.stdout(), "");
    store.server().resume();
    // No SIGTERM ever comes.
    assert_eq!(next.wait(), 200, "{}", next.report());
    ticks(&first).then(ticks(&next)).assert_unbroken();
}

/// The store is away, so the restore takes as long as this test wants.
#[test]
fn what_comes_during_a_restore_is_refused_or_kept_for_later_and_harms_nothing() {
    let store = Store::seaweed();
    let folder = tempfile::tempdir().unwrap();
    let container = Container::of("interrupted")
        .store(&store)
        .mount(folder.path(), "/control")
        .options(&["--trigger-file", "/control/save"])
        .workload("counter.py", &[]);
    let first = container.start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    store.server().stop();

    let next = container.start();
    next.wait_for_stderr_line("trying again");
    for stop in [&["revenant", "checkpoint"][..], &["revenant", "checkpoint", "--stop"]] {
        let asked = next.exec(stop);
        assert_ne!(asked.code, 0, "{}", asked.stdout);
        assert!(asked.stderr.contains("the workload cannot be saved now"), "{}", asked.stderr);
        assert!(asked.stderr.contains("revenant is beginning"), "{}", asked.stderr);
    }
    next.signal(Signal::SIGUSR1);
    std::fs::write(folder.path().join("save"), "").unwrap();
    next.wait_until("trigger that was held back", || {
        let said = next.exec(&["revenant", "status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        status["triggers"]["held_back"]["file"] == 1
    });
    store.server().resume();
    next.wait_for_line(&format!("tick {} ", ticks(&first).last() + 3));
    ticks(&first).then(ticks(&next)).assert_unbroken();
    // Now it is answered.
    assert_eq!(next.exec(&["revenant", "checkpoint"]).code, 0);
    store.server().stop();
    next.kill9();

    let last = container.start();
    last.wait_for_stderr_line("trying again");
    last.signal(Signal::SIGTERM);
    assert_eq!(last.wait(), 209, "{}", last.stderr());
    assert_eq!(last.stdout(), "");
}
