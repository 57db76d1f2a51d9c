//! Control groups of version 1 tell of memory by eventfd, where a container may ask for it, and are looked at elsewhere.
//! Where this machine's memory is of version 2, PSI is what tells, and nothing here applies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Store};
use revenant::workload::cgroup;
use revenant::workload::cgroup::event_control::{Bell, Pressure};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Far more than it takes on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A group below this process's own, removed at the end.
struct Group(PathBuf);

impl Group {
    fn limited_to(name: &str, bytes: u64) -> Option<Self> {
        let own = cgroup::of("memory").filter(|group| !group.unified)?;
        let folder = own.folder.join(format!("revenant-test-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("memory.limit_in_bytes"), bytes.to_string()).unwrap();
        Some(Self(folder))
    }

    /// Runs this there.
    fn run(&self, script: &str) -> Child {
        let script = format!("echo $$ > {}/cgroup.procs && exec {script}", self.0.display());
        Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process may be on its way out.
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Nobody looks: only the kernel can end the wait.
#[tokio::test]
async fn the_kernel_rings_at_a_threshold_and_when_it_cannot_free_anything() {
    let Some(group) = Group::limited_to("rings", 64 * MIB) else { return };
    let half = Bell::at_use(&group.0, 32 * MIB).unwrap();
    let never = Bell::at_use(&group.0, 1024 * MIB).unwrap();
    let critical = Bell::at_pressure(&group.0, Pressure::Critical).unwrap();
    let mut child = group.run("python3 -c 'import time; held = b\"x\" * (40 << 20); time.sleep(600)'");
    let rung = tokio::time::timeout(PATIENCE, half.rings()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    rung.expect("the threshold was passed in silence");
    assert!(half.take() > 0);
    assert_eq!((never.take(), critical.take()), (0, 0));
    // Killed for want of memory: before that, the kernel has tried all that it could.
    let mut child = group.run("python3 -c 'held = [b\"x\" * (1 << 20) for _ in range(200)]'");
    assert!(!child.wait().unwrap().success(), "a limit of 64 MiB has let 200 MiB through");
    tokio::time::timeout(PATIENCE, critical.rings()).await.expect("the end of memory came in silence");
    assert!(critical.take() > 0);
    assert_eq!(never.take(), 0);
}

fn reading(running: &Running, source: &str) -> Value {
    let mut found = Value::Null;
    running.wait_until(&format!("reading of {source}"), || {
        let said = running.exec(&["revenant", "status", "--json"]).stdout;
        let status: Value = serde_json::from_str(&said).unwrap_or_default();
        let readings = status["triggers"]["readings"].as_array().cloned().unwrap_or_default();
        found = readings.into_iter().find(|reading| reading["source"] == source).unwrap_or_default();
        !found.is_null()
    });
    found
}

/// Takes memory, and says so once it walks through the file that does not fit.
fn squeeze(running: &Running, folder: &tempfile::TempDir) {
    fs::write(folder.path().join("grow"), "").unwrap();
    let large = folder.path().join("large");
    running.wait_until("file of 400 MiB", || fs::metadata(&large).is_ok_and(|seen| seen.len() == 400 * MIB));
    running.wait_for_line("held 192 MiB");
}

fn is_version_1() -> bool {
    cgroup::of("memory").is_some_and(|group| !group.unified)
}

#[test]
fn a_workload_that_squeezes_the_kernel_is_saved_before_it_is_killed() {
    if !is_version_1() {
        return;
    }
    let (store, folder) = (Store::local(), tempfile::tempdir().unwrap());
    let running = Container::of("squeezed")
        .store(&store)
        .memory_limit(384 * MIB)
        .writable_groups()
        .mount(folder.path(), "/control")
        .options(&["--memory-threshold", "99"])
        .workload("grower.py", &["--grow-at", "/control/grow", "--most", "192", "--squeeze", "/control/large"])
        .start();
    running.wait_for_line("tick 3 ");
    assert_eq!(reading(&running, "memory")["noticed"]["by"], "told");
    assert_eq!(reading(&running, "memory-pressure")["noticed"]["by"], "told");
    let page = running.exec(&["revenant", "status"]).stdout;
    assert!(page.contains("saves above 99 %, the kernel rings"), "{page}");
    squeeze(&running, &folder);
    running.wait_for_stderr_line("saving (the kernel could hardly free any memory of the container in");
    running.wait_for_stderr_line("saved generation 1-1");
    running.kill9();
}

#[test]
fn where_the_groups_are_read_only_status_says_that_they_are_looked_at() {
    if !is_version_1() {
        return;
    }
    let store = Store::local();
    let container = Container::of("looked-at").store(&store).memory_limit(512 * MIB);
    let running = container.workload("counter.py", &[]).start();
    running.wait_for_line("tick 3 ");
    let memory = reading(&running, "memory");
    assert_eq!(memory["noticed"]["by"], "looked", "{memory}");
    if fs::File::options().write(true).open("/proc/pressure/memory").is_ok() {
        // The node's stalls need no control group.
        assert_eq!(reading(&running, "node-stall")["noticed"]["by"], "told");
    }
    let page = running.exec(&["revenant", "status"]).stdout;
    assert!(page.contains("looked at every few seconds (cgroup.event_control: Read-only file system"), "{page}");
    assert!(!page.contains("memory-pressure"), "{page}");
}

/// Stalls are counted by control groups of version 2, beside which memory may still be of version 1. How much of its time
/// a workload loses depends on what else the machine does; that one is saved for it is shown by `make survival`.
#[test]
fn stalls_of_a_container_are_read_and_the_kernel_rings_for_them() {
    let unified = std::path::Path::new("/sys/fs/cgroup/unified");
    if !is_version_1() || !unified.join("cgroup.procs").exists() {
        return;
    }
    let (store, folder) = (Store::local(), tempfile::tempdir().unwrap());
    let running = Container::of("stalled")
        .store(&store)
        .memory_limit(384 * MIB)
        .mount(folder.path(), "/control")
        // As a runtime shows them where nothing is left of version 1; writable, as in a privileged container.
        .mount(unified, "/cgroup2")
        .options(&["--memory-threshold", "99"])
        .workload("grower.py", &["--grow-at", "/control/grow", "--most", "192", "--squeeze", "/control/large"])
        .start();
    running.wait_for_line("tick 3 ");
    assert_eq!(reading(&running, "memory-stall")["noticed"]["by"], "told");
    squeeze(&running, &folder);
    running.wait_until("stall", || reading(&running, "memory-stall")["value"].as_f64().unwrap() > 0.0);
    running.kill9();
}
