//! Programs and signals around saves and restores: they are told what happens, and never cost a save.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store, Ticks};
use std::fs;
use tempfile::TempDir;

/// A counter whose hooks write into a folder of the host.
struct Hooked {
    store: Store,
    folder: TempDir,
}

impl Hooked {
    fn new() -> Self {
        Self { store: Store::local(), folder: tempfile::tempdir().unwrap() }
    }

    fn container(&self, options: &[&str]) -> Container {
        Container::of("hooked").store(&self.store).mount(self.folder.path(), "/control").options(options)
    }

    fn start(&self, options: &[&str]) -> Running {
        let running = self.container(options).workload("counter.py", &[]).start();
        running.wait_for_line("tick ");
        running
    }

    fn said(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("said")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn wait_for(&self, running: &Running, line: &str) {
        running.wait_until(&format!("line {line:?} of a hook"), || self.said().iter().any(|said| said == line));
    }
}

fn has_process(running: &Running, words: &str) -> bool {
    running.processes().into_iter().any(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").starts_with(words)
    })
}

#[test]
fn hooks_are_told_what_happens_and_the_last_one_may_finish() {
    let hooked = Hooked::new();
    let options = [
        "--before-save",
        "echo before $REVENANT_JOB $REVENANT_HOOK_REASON final $REVENANT_HOOK_FINAL after ${REVENANT_HOOK_GENERATION:-none} >> /control/said; \
         ls /proc/$$/fd > /control/descriptors; env > /control/environment",
        "--after-save",
        "sleep 1; echo after $REVENANT_HOOK_GENERATION $REVENANT_HOOK_OUTCOME >> /control/said",
        "--after-restore",
        "echo restored $REVENANT_HOOK_GENERATION $REVENANT_HOOK_REASON >> /control/said",
    ];
    let first = hooked.start(&options);
    assert_eq!(first.exec(&["revenant", "checkpoint"]).code, 0);
    hooked.wait_for(&first, "after 1-1 durable");
    // It has no descriptor of revenant's; the shell keeps its own from 10 on.
    let descriptors = fs::read_to_string(hooked.folder.path().join("descriptors")).unwrap();
    assert!(descriptors.lines().all(|number| number.len() > 1 || "012".contains(number)), "{descriptors}");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    let all = [
        "before hooked request final false after none",
        "after 1-1 durable",
        "before hooked SIGTERM final true after 1-1",
        "after 1-2 durable",
    ];
    assert_eq!(hooked.said(), all);
    let environment = fs::read_to_string(hooked.folder.path().join("environment")).unwrap();
    let deadline = environment.lines().find_map(|line| line.strip_prefix("REVENANT_HOOK_DEADLINE=")).unwrap();
    assert!(deadline.parse::<f64>().unwrap() > 1_700_000_000.0, "{environment}");

    let next = hooked.start(&options);
    hooked.wait_for(&next, "restored 1-2 new container");
    let last = Ticks::of(&first.stdout_lines());
    next.wait_for_line(&format!("tick {} ", last.last() + 2));
    last.then(Ticks::of(&next.stdout_lines())).assert_unbroken();
    // And once more: no hook has taken a process ID that the restore needs.
    assert_eq!(next.exec(&["revenant", "checkpoint", "--stop"]).code, 0);
    assert_eq!(next.wait(), 200);
    let third = hooked.start(&options);
    third.wait_for_stderr_line("continued from generation 2-1");
}

#[test]
fn a_hook_that_hangs_or_fails_costs_no_save() {
    let hooked = Hooked::new();
    let hangs =
        ["--before-save", "sleep 1001 & sleep 1002", "--after-save", "exit 7", "--hook-timeout", "1s", "--lease", "1s"];
    let first = hooked.start(&hangs);
    assert_eq!(first.exec(&["revenant", "checkpoint"]).code, 0, "{}", first.stderr());
    first.wait_for_stderr_line(
        "the before-save hook has not ended in time and was killed; the save is made all the same",
    );
    first.wait_for_stderr_line("the after-save hook failed with code 7");
    // With everything that it has begun.
    first.wait_until("end of the hook's processes", || !has_process(&first, "sleep 100"));
    first.kill9();
    let next =
        hooked.container(&["--lease", "1s", "--before-save", "[\"/bin/false\"]"]).workload("counter.py", &[]).start();
    next.wait_for_stderr_line("continued from generation 1-1");
    next.signal(Signal::SIGTERM);
    assert_eq!(next.wait(), 200, "{}", next.stderr());
    assert!(next.stderr().contains("the before-save hook failed with code 1 "), "{}", next.stderr());
}

#[test]
fn a_hook_leaves_the_last_save_its_part_of_the_grace_period() {
    let hooked = Hooked::new();
    let first = hooked.start(&["--before-save", "sleep 1003", "--hook-timeout", "10m", "--grace", "30s"]);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    assert!(first.stderr().contains("the before-save hook has not ended in time"), "{}", first.stderr());
}

#[test]
fn a_sigterm_while_a_hook_runs_makes_one_save_and_a_second_one_none() {
    let hooked = Hooked::new();
    // It ends when the file is there.
    let waits = [
        "--before-save",
        "echo waits >> /control/said; until [ -e /control/go ]; do sleep 0.1; done",
        "--hook-timeout",
        "5m",
    ];
    let first = hooked.start(&[&waits[..], &["--grace", "10m"]].concat());
    first.signal(Signal::SIGUSR1);
    hooked.wait_for(&first, "waits");
    first.signal(Signal::SIGTERM);
    fs::write(hooked.folder.path().join("go"), "").unwrap();
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    assert!(first.stderr().contains("saving (SIGTERM)") && !first.stderr().contains("1-2"), "{}", first.stderr());

    fs::remove_file(hooked.folder.path().join("go")).unwrap();
    fs::remove_file(hooked.folder.path().join("said")).unwrap();
    let next = hooked.start(&[&waits[..], &["--grace", "10m"]].concat());
    next.signal(Signal::SIGTERM);
    hooked.wait_for(&next, "waits");
    next.signal(Signal::SIGTERM);
    assert_eq!(next.wait(), 201, "{}", next.stderr());
    assert!(next.stderr().contains("generation 1-1"), "the one before it stands: {}", next.stderr());
}

#[test]
fn a_workload_that_ends_while_a_hook_runs_ends_the_container_as_ever() {
    let hooked = Hooked::new();
    let options = ["--before-save", "echo waits >> /control/said; sleep 1004", "--hook-timeout", "5m"];
    let script = "until [ -e /control/end ]; do sleep 0.1; done; exit 3";
    let running = hooked.container(&options).command(&["sh", "-c", script]).start();
    running.wait_for_process("sh -c until [ -e /control/end ]; do sleep 0.1; done; exit 3");
    let asked = running.exec_in_background(&["revenant", "checkpoint"]);
    hooked.wait_for(&running, "waits");
    fs::write(hooked.folder.path().join("end"), "").unwrap();
    assert_eq!(running.wait(), 3, "{}", running.stderr());
    let asked = asked.wait();
    assert_ne!(asked.code, 0);
    assert!(asked.stderr.contains("the save was not made"), "{}", asked.stderr);
}

#[test]
fn a_signal_goes_to_a_command_that_handles_it_and_to_no_other() {
    let hooked = Hooked::new();
    let options = ["--before-save", "signal:USR1,2s", "--after-restore", "signal:USR2", "--after-save", "signal:HUP"];
    let script = "trap 'echo flushed' USR1; trap 'echo back' USR2; echo ready; while :; do sleep 0.05; done";
    let first = hooked.container(&options).command(&["sh", "-c", script]).start();
    first.wait_for_line("ready");
    let asked = first.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    first.wait_for_line("flushed");
    // SIGHUP would end it.
    first.wait_for_stderr_line("the command does not handle SIGHUP, which might end it: not sent");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    let next = hooked.container(&options).command(&["sh", "-c", script]).start();
    next.wait_for_line("back");
}
