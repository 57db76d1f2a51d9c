//! Resources of many kinds, each held by a program that checks itself, go from container to container twice.
//! `make fidelity` measures all kinds under three sets of capabilities; here is what must never break.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};

fn holder(store: &Store, volume: &std::path::Path, kind: &str) -> Container {
    Container::of(kind)
        .store(store)
        .env("REVENANT_LEASE", "1s")
        .env("REVENANT_GRACE", "60s")
        .mount(volume, "/volume")
        .workload("kinds.py", &[kind])
}

fn steps(running: &Running) -> usize {
    let lines = running.stdout_lines();
    let last = lines.iter().rev().find_map(|line| line.strip_prefix("step ")?.parse().ok());
    last.unwrap_or(0)
}

/// Saves and restores twice; the program ends with 99 when it misses something.
fn is_carried(kind: &str, adapt: impl Fn(Container) -> Container) {
    let store = Store::local();
    let volume = tempfile::tempdir().unwrap();
    let container = adapt(holder(&store, volume.path(), kind));
    let mut reached = 0;
    for _ in 0..2 {
        let running = container.start();
        running.wait_for_line(&format!("step {}", reached + 2));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{kind}: {}", running.report());
        reached = steps(&running);
    }
    let last = container.start();
    last.wait_for_line(&format!("step {}", reached + 3));
}

macro_rules! carried {
    ($($name:ident: $kind:literal),* $(,)?) => {
        $(#[test] fn $name() { is_carried($kind, |container| container); })*
    };
}

carried! {
    memory_shared_by_processes: "shared-anonymous-memory",
    a_deleted_file_and_its_mapping: "mapping-of-a-deleted-file",
    posix_shared_memory: "posix-shared-memory",
    a_file_lock_of_the_whole_file: "flock",
    data_in_a_pipe: "pipe-with-data",
    data_in_a_socket: "socket-pair-with-data",
    a_unix_connection_inside_the_job: "unix-connection-inside",
    a_listener: "tcp-listener",
    a_timer_whose_period_is_shorter_than_the_freeze: "timerfd",
    a_watched_directory_of_the_layer: "inotify",
    a_watched_directory_on_a_volume: "inotify-on-a-volume",
    a_zombie: "zombie",
    a_stopped_process: "stopped-process",
    a_terminal_of_its_own: "pseudo-terminal-of-its-own",
    a_process_of_another_user: "process-of-another-user",
    groups_of_its_own: "groups",
    threads_that_wait_in_many_ways: "threads-in-odd-states",
    a_stack_for_signals: "alternate-signal-stack",
    limits_umask_and_priority: "limits-umask-and-priority",
}

#[test]
fn a_connection_inside_the_job_goes_on_where_the_container_may_keep_it() {
    is_carried("tcp-connection", |container| container.add_capability("NET_ADMIN"));
}

#[test]
fn a_connection_that_cannot_be_kept_can_be_opened_again() {
    is_carried("tcp-connection-that-is-opened-again", |container| container.options(&["--tcp", "close"]));
}

#[test]
fn system_v_objects_where_the_job_may_have_a_namespace_of_its_own() {
    for kind in ["system-v-shared-memory", "system-v-semaphores"] {
        is_carried(kind, |container| container.add_capability("SYS_ADMIN"));
    }
}

#[test]
fn with_the_least_capabilities() {
    is_carried("unix-connection-inside", |container| container.capabilities(&["CHECKPOINT_RESTORE", "SETPCAP"]));
}
