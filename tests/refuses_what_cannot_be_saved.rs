//! What CRIU cannot save is found before anything is frozen, and is told with process, descriptor and remedy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};
use serde_json::Value;

fn holder(store: &Store, kind: &str) -> Container {
    Container::of(kind).store(store).env("REVENANT_LEASE", "1s").workload("kinds.py", &[kind])
}

fn status(running: &Running) -> Value {
    serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap()
}

/// A save on request fails without a freeze, and says `what`; the workload runs on.
fn is_refused(kind: &str, what: &str) {
    let store = Store::local();
    let running = holder(&store, kind).start();
    running.wait_for_line("step 2");
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_ne!(asked.code, 0, "{}", asked.stdout);
    assert!(asked.stderr.contains(what), "{}", asked.stderr);
    assert!(asked.stderr.contains("it was not frozen") && asked.stderr.contains("next:"), "{}", asked.stderr);
    let status = status(&running);
    assert_eq!((&status["saves"], &status["failed_saves"], &status["frozen_ms"]), (&0.into(), &1.into(), &0.into()));
    let finding = &status["not_carried"][0];
    assert!(["prevents", "spoils"].map(Value::from).contains(&finding["effect"]), "{status}");
    assert!(finding["pid"].as_i64().is_some() && finding["remedy"].as_str().is_some_and(|text| !text.is_empty()));
    let page = running.exec(&["revenant", "status"]).stdout;
    assert!(page.contains("unsaveable") && page.contains(what), "{page}");
    let now = running.stdout_lines().len();
    running.wait_for_line(&format!("step {}", now + 3));
}

#[test]
fn an_io_uring() {
    is_refused("io-uring", "a kernel object of the kind io_uring");
}

#[test]
fn a_userfaultfd() {
    is_refused("userfaultfd", "a kernel object of the kind userfaultfd");
}

#[test]
fn a_process_that_is_traced() {
    is_refused("traced-process", "traced by process");
}

/// CRIU would hold all others still for ten seconds before it gave up.
#[test]
fn a_process_that_waits_in_the_kernel() {
    is_refused("program-that-has-not-begun", "waits in the kernel and cannot be stopped");
}

#[test]
fn a_process_whose_first_thread_has_ended() {
    is_refused("main-thread-that-has-ended", "a process whose first thread has ended while others go on");
}

#[test]
fn a_posix_message_queue() {
    is_refused("posix-message-queue", "the POSIX message queue /fidelity");
}

#[test]
fn system_v_shared_memory() {
    is_refused("system-v-shared-memory", "System V shared memory");
}

#[test]
fn a_connection_inside_the_job_that_could_not_be_kept() {
    is_refused("tcp-connection", "inside the job");
}

#[test]
fn a_file_that_would_come_back_as_two() {
    is_refused("file-whose-name-was-removed", "which still has another name");
}

#[test]
fn what_would_come_back_as_something_else_is_not_saved_at_the_end_either() {
    let store = Store::local();
    let running = holder(&store, "tcp-connection").start();
    running.wait_for_line("step 2");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 201, "{}", running.report());
    assert!(running.stderr().contains("--tcp close"), "{}", running.stderr());
}

#[test]
fn a_seccomp_filter_without_the_right_to_set_it_aside() {
    is_refused("seccomp-filter", "a seccomp filter of its own");
}

#[test]
fn a_unix_connection_to_another_container() {
    let store = Store::local();
    let volume = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(volume.path().join("outside-stream")).unwrap();
    let accepting = std::thread::spawn(move || listener.accept().unwrap());
    let container = holder(&store, "unix-stream-to-the-outside").mount(volume.path(), "/volume");
    let running = container.start();
    running.wait_for_line("step 2");
    let peer = accepting.join().unwrap();
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_ne!(asked.code, 0, "{}", asked.stdout);
    assert!(asked.stderr.contains("descriptor 3: a Unix connection to a process outside the job"), "{}", asked.stderr);
    drop(peer);
}

#[test]
fn it_is_told_early_without_a_save_and_only_once() {
    let store = Store::local();
    let container = holder(&store, "io-uring").own_network().env("REVENANT_HTTP", "127.0.0.1:9102");
    let running = container.env("REVENANT_LOOK_AFTER", "1s").start();
    let line = running.wait_for_stderr_line("this workload cannot be saved as it is");
    assert!(line.contains("descriptor 3") && line.contains("io_uring"), "{line}");
    let status = status(&running);
    assert_eq!(status["not_carried"][0]["descriptor"], 3, "{status}");
    assert_eq!(status["failed_saves"], 0);
    let scrape = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9102/metrics').read().decode())";
    let metrics = running.exec(&["python3", "-c", scrape]).stdout;
    let counted = "revenant_not_carried{revenant_job=\"io-uring\",effect=\"prevents\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
    let pid = status["root_pid"].to_string();
    let doctor = running.exec(&["revenant", "doctor", "--pid", &pid, "--store", "none", "--no-trial"]);
    assert_ne!(doctor.code, 0, "{}", doctor.stdout);
    assert!(doctor.stdout.contains("FAILED   workload") && doctor.stdout.contains("io_uring"), "{}", doctor.stdout);
    assert!(doctor.stdout.contains("but not this one as it is"), "{}", doctor.stdout);
    assert_ne!(running.exec(&["revenant", "checkpoint"]).code, 0);
    assert_eq!(running.stderr().matches("this workload cannot be saved as it is").count(), 1, "{}", running.stderr());
}

/// It is no reason not to save, but nobody shall wonder afterwards.
#[test]
fn what_a_restore_will_lose_is_told_before() {
    let store = Store::local();
    let running = holder(&store, "processors-that-it-may-run-on").env("REVENANT_LOOK_AFTER", "1s").start();
    let line = running.wait_for_stderr_line("a checkpoint will not carry this");
    assert!(line.contains("bound to some of this machine's processors"), "{line}");
    let saved = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    running.kill9();
}

#[test]
fn at_the_end_it_is_tried_all_the_same_and_the_reason_is_told() {
    let store = Store::local();
    let running = holder(&store, "userfaultfd").start();
    running.wait_for_line("step 2");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 201);
    assert!(running.stderr().contains("a kernel object of the kind userfaultfd"), "{}", running.stderr());
}
