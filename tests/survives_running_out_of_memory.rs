//! Real limits of real containers: a save before memory runs out, and what follows an OOM kill.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Store};
use revenant::workload::cgroup::Group;
use revenant::workload::cgroup::memory::Memory;
use std::fs;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A container with a limit, whose workload takes memory once it finds `grow` in a folder of the host.
struct Limited {
    store: Store,
    folder: tempfile::TempDir,
}

impl Limited {
    fn new() -> Self {
        Self { store: Store::local(), folder: tempfile::tempdir().unwrap() }
    }

    fn start(&self, limit: u64, options: &[&str], workload: &[&str]) -> Running {
        let log = self.folder.path().join("termination-log");
        fs::write(&log, "").unwrap();
        Container::of("limited")
            .store(&self.store)
            .memory_limit(limit)
            .mount(self.folder.path(), "/control")
            .mount(&log, "/dev/termination-log")
            .options(options)
            .workload("grower.py", &[&["--grow-at", "/control/grow"], workload].concat())
            .start()
    }

    fn grow(&self) {
        fs::write(self.grow_file(), "").unwrap();
    }

    fn grow_file(&self) -> PathBuf {
        self.folder.path().join("grow")
    }

    fn last_words(&self) -> String {
        fs::read_to_string(self.folder.path().join("termination-log")).unwrap()
    }
}

fn ticks(running: &Running) -> Vec<u64> {
    let lines = running.stdout_lines();
    lines.iter().filter_map(|line| line.strip_prefix("tick ")?.split(' ').next()?.parse().ok()).collect()
}

/// A save must not be what brings the container over its limit.
#[test]
fn a_save_with_little_memory_left_takes_less_and_says_so() {
    let limited = Limited::new();
    let running = limited.start(224 * MIB, &["--lease", "1s"], &[]);
    running.wait_for_line("tick 3 ");
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    let said = running.wait_for_stderr_line("of memory are left below the container's limit");
    assert!(said.ends_with("saving with smaller buffers"), "{said}");
    running.kill9();
}

#[test]
fn a_save_is_made_before_memory_runs_out() {
    let limited = Limited::new();
    let running =
        limited.start(1024 * MIB, &["--memory-threshold", "70", "--lease", "1s"], &["--most", "736", "--step", "8"]);
    running.wait_for_line("tick 3 ");
    limited.grow();
    running.wait_for_stderr_line("of its memory limit)");
    running.wait_for_stderr_line("saved generation 1-1");
    // Pressure lasts, and causes no second save.
    let seen = ticks(&running).last().copied().unwrap();
    running.wait_for_line(&format!("tick {} held 736", seen + 120));
    let status: serde_json::Value =
        serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap();
    assert_eq!((&status["saves"], &status["triggers"]["fired"]["memory"]), (&1.into(), &1.into()), "{status}");
    let readings = status["triggers"]["readings"].as_array().unwrap();
    let memory = readings.iter().find(|reading| reading["source"] == "memory").unwrap();
    assert!(memory["value"].as_f64().unwrap() > 0.7, "{memory}");
    // Killed from outside: the next container says so.
    running.kill9();
    let next = limited.start(1024 * MIB, &["--lease", "1s"], &[]);
    next.wait_for_stderr_line("continued from generation 1-1");
    // At three quarters of its limit it was probably not killed for want of memory, and that is not said.
    assert!(next.stderr().contains("the container before this one ended without warning"), "{}", next.stderr());
}

#[test]
fn an_oom_kill_goes_back_to_the_last_checkpoint_in_the_same_container() {
    let limited = Limited::new();
    let running = limited.start(768 * MIB, &["--on-pressure", "false"], &["--step", "32"]);
    running.wait_for_line("tick 3 ");
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    limited.grow();
    let said = running.wait_for_stderr_line("going back to generation 1-1");
    assert!(said.contains("the limit is 768 MiB, the peak was 768 MiB"), "{said}");
    running.wait_for_stderr_line("continued from generation 1-1");
    let before = ticks(&running);
    running.wait_for_line(&format!("tick {} held 0", before.iter().max().unwrap() + 5));
    // It went back once, to the save, and from there without a gap.
    let all = ticks(&running);
    let back = all.windows(2).position(|pair| pair[1] <= pair[0]).expect("it went back");
    assert!(all[back + 1] > 3, "{all:?}");
    assert!(all[back + 1..].windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
    // It is supervised like any other: saved, stopped, continued elsewhere.
    running.signal(harness::Signal::SIGTERM);
    assert_eq!(running.wait(), 200, "{}", running.stderr());
    assert!(limited.last_words().starts_with("saved and stopped (exit code 200)"), "{}", limited.last_words());
    let next = limited.start(768 * MIB, &[], &[]);
    next.wait_for_line(&format!("tick {} ", ticks(&running).last().unwrap() + 2));
}

/// The status once the workload was killed for want of memory.
fn last_oom(running: &Running) -> serde_json::Value {
    running.wait_for_stderr_line("continued from generation 1-1");
    let status: serde_json::Value =
        serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap();
    let known = status["triggers"]["last_oom"].clone();
    assert_eq!(known["limit"], 512 * MIB, "{status}");
    assert!(known["peak"].as_u64().unwrap() > 500 * MIB, "{known}");
    known
}

/// It grows so slowly that it is looked at several times between half of the limit and the limit, on any machine.
#[test]
fn an_oom_kill_tells_how_much_more_was_asked_for() {
    let limited = Limited::new();
    let running = limited.start(512 * MIB, &["--memory-threshold", "99"], &["--step", "1", "--reserve", "2048"]);
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    limited.grow();
    let said = running.wait_for_stderr_line("going back to generation 1-1");
    assert!(said.contains("its processes had asked for 2."), "{said}");
    let known = last_oom(&running);
    // What it has asked for and not used, and up to the limit what it held besides.
    let excess = known["excess"]["bytes"].as_u64().unwrap();
    assert_eq!(known["excess"]["basis"], "asked", "{known}");
    assert!((1536 * MIB..2200 * MIB).contains(&excess), "{known}");
    let page = running.exec(&["revenant", "status"]).stdout;
    assert!(page.contains("OUT OF MEMORY") && page.contains("which exceeds the limit by"), "{page}");
}

#[test]
fn an_oom_kill_of_a_workload_that_grows_tells_how_fast() {
    let limited = Limited::new();
    let running = limited.start(512 * MIB, &["--memory-threshold", "99"], &["--step", "1"]);
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    limited.grow();
    let said = running.wait_for_stderr_line("going back to generation 1-1");
    assert!(said.contains(" a second, so it exceeds the limit by "), "{said}");
    assert!(said.contains("raise the limit to 640 MiB or more"), "{said}");
    let known = last_oom(&running);
    assert_eq!(known["excess"]["basis"], "growth", "{known}");
    // A MiB in each step, of which there are twenty a second at most.
    assert!((1..=40 * MIB).contains(&known["excess"]["bytes"].as_u64().unwrap()), "{known}");
}

#[test]
fn a_command_that_fails_with_its_killed_child_comes_back_too() {
    let limited = Limited::new();
    let running = limited.start(512 * MIB, &[], &["--by-child"]);
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    limited.grow();
    running.wait_for_line("the child ended with -9");
    running.wait_for_stderr_line("going back to generation");
    running.wait_for_stderr_line("continued from generation");
}

#[test]
fn the_policy_exit_ends_as_the_workload_did_and_says_why() {
    let limited = Limited::new();
    let running = limited.start(512 * MIB, &["--on-oom", "exit", "--on-pressure", "false"], &[]);
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    limited.grow();
    assert_eq!(running.wait(), 137);
    assert!(running.stderr().contains("memory limit is too small"), "{}", running.stderr());
    let words = limited.last_words();
    assert!(words.starts_with("the workload was killed for want of memory (exit code 137)"), "{words}");
    assert!(Path::new(&limited.store.directory().unwrap().join("limited")).exists());
}

/// A container that is killed as a whole cannot say why: its last beat has to.
#[test]
fn a_container_killed_near_its_limit_is_told_of_by_the_next() {
    let limited = Limited::new();
    let options = ["--memory-threshold", "50", "--lease", "1s"];
    let running = limited.start(384 * MIB, &options, &["--step", "16", "--most", "320"]);
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    limited.grow();
    let told = |text: &str| text.split("\"memory\":").nth(1)?.split([',', '}']).next()?.trim().parse::<f64>().ok();
    running.wait_until("beat that tells of it", || {
        let beats = limited.store.files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "beat"));
        let texts = beats.map(|beat| String::from_utf8_lossy(&fs::read(beat).unwrap_or_default()).into_owned());
        texts.filter_map(|text| told(&text)).any(|part| part > 0.82)
    });
    running.kill9();
    let next = limited.start(384 * MIB, &["--lease", "1s"], &[]);
    next.wait_for_stderr_line("so it was probably killed for want of memory (OOM); raise the pod's memory limit");
    next.wait_for_stderr_line("continued from generation");
}

/// How many processes of the container the kernel has killed for want of memory, as the host sees it.
fn kills(running: &Running) -> u64 {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", running.pid())).unwrap();
    let of =
        |mark: &str| groups.lines().find_map(|line| Some(line.split_once(mark)?.1.trim_start_matches('/').to_owned()));
    let group = match of(":memory:") {
        Some(path) => Group { folder: Path::new("/sys/fs/cgroup/memory").join(path), unified: false },
        None => Group { folder: Path::new("/sys/fs/cgroup").join(of("0::").unwrap()), unified: true },
    };
    Memory::of(group).kills().expect("the container's memory group")
}

/// A real OOM kill of PID 1, and with it of the container: it is made the kernel's first choice from outside.
#[test]
fn a_container_that_the_kernel_kills_as_a_whole_is_told_of_by_the_next() {
    let limited = Limited::new();
    let options = ["--memory-threshold", "99", "--lease", "1s"];
    let running = limited.start(384 * MIB, &options, &["--step", "1"]);
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    fs::write(format!("/proc/{}/oom_score_adj", running.pid()), "1000").unwrap();
    limited.grow();
    assert_eq!(running.wait(), 137, "{}", running.stderr());
    assert!(!running.stderr().contains("the kernel has killed it"), "PID 1 was to be killed: {}", running.stderr());
    let next = limited.start(384 * MIB, &["--lease", "1s"], &[]);
    next.wait_for_stderr_line("so it was probably killed for want of memory (OOM); raise the pod's memory limit");
    next.wait_for_stderr_line("continued from generation 1-1");
    next.wait_for_line("tick ");
}

/// PID 1 hears of both deaths at once: it is stopped until both have happened.
#[test]
fn a_save_and_its_workload_that_are_killed_at_once_are_told_apart() {
    let limited = Limited::new();
    let again = limited.folder.path().join("again");
    let running = Container::of("limited")
        .store(&limited.store)
        .memory_limit(512 * MIB)
        .mount(limited.folder.path(), "/control")
        // Slow enough that the engine still uploads when memory runs out.
        .env("REVENANT_UPLOAD_LIMIT", "512KiB")
        .options(&["--on-pressure", "false"])
        .workload(
            "grower.py",
            &["--grow-at", "/control/grow", "--most", "64", "--step", "8", "--again-at", "/control/again"],
        )
        .start();
    running.wait_for_line("tick 3 ");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    limited.grow();
    running.wait_for_line("held 64 MiB");
    let asked = running.exec_in_background(&["revenant", "checkpoint", "--json"]);
    asked.wait_for_line("\"answer\":\"released\"");
    running.signal(harness::Signal::SIGSTOP);
    fs::write(&again, "").unwrap();
    running.wait_until("two OOM kills", || kills(&running) >= 2);
    fs::remove_file(&again).unwrap();
    running.signal(harness::Signal::SIGCONT);
    running.wait_for_stderr_line("going back to generation 1-1");
    running.wait_for_stderr_line("continued from generation 1-1");
    assert_ne!(asked.wait().code, 0);
    let before = ticks(&running).len();
    running.wait_until("step after the restore", || ticks(&running).len() > before);
    // The save that failed is not the newest checkpoint.
    let status: serde_json::Value =
        serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap();
    assert_eq!((&status["generation"], &status["saves"]), (&"1-1".into(), &1.into()), "{status}");
}
