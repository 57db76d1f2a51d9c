//! Space, files, and processes of a container, each with a real limit: a save is made before there are none left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Store};
use serde_json::Value;

const MIB: u64 = 1 << 20;

struct Job {
    store: Store,
    folder: tempfile::TempDir,
}

impl Job {
    fn new() -> Self {
        Self { store: Store::local(), folder: tempfile::tempdir().unwrap() }
    }

    fn container(&self, options: &[&str]) -> Container {
        let container = Container::of("scarce").store(&self.store).env("REVENANT_LEASE", "1s").options(options);
        container.mount(self.folder.path(), "/control")
    }

    /// Starts it; takes once the source was read, as what is so from the start is no reason; and expects this word.
    fn is_saved(&self, container: Container, workload: &[&str], source: &str, of: &str, because: &str) {
        let running = container.workload("grower.py", &[&["--grow-at", "/control/grow"], workload].concat()).start();
        running.wait_for_line("tick 3 ");
        running.wait_until(&format!("reading of {source}"), || reading(&running, source, of).is_some());
        std::fs::write(self.folder.path().join("grow"), "").unwrap();
        let said = running.wait_for_stderr_line("saving (");
        assert!(said.contains(because), "{said}");
        running.wait_for_stderr_line("saved generation 1-1");
        let status = status(&running);
        assert_eq!(status["triggers"]["fired"][source], 1, "{status}");
        running.kill9();
        let next = self.container(&[]).workload("counter.py", &[]).start();
        next.wait_for_stderr_line("continued from generation 1-1");
        next.wait_for_line("tick ");
    }
}

fn status(running: &Running) -> Value {
    serde_json::from_str(&running.exec(&["revenant", "status", "--json"]).stdout).unwrap_or_default()
}

fn reading(running: &Running, source: &str, of: &str) -> Option<Value> {
    let readings = status(running)["triggers"]["readings"].as_array().cloned()?;
    readings.into_iter().find(|reading| reading["source"] == source && reading["of"] == of)
}

#[test]
fn space_on_the_disk() {
    let job = Job::new();
    let container = job.container(&["--spool", "/spool"]).tmpfs_of("/spool", 64 * MIB);
    let fills = ["--full", "/spool/full", "--step", "4", "--most", "60"];
    job.is_saved(container, &fills, "disk", "/spool", "of its space left");
}

#[test]
fn files_on_the_disk() {
    let job = Job::new();
    let container = job.container(&["--spool", "/spool"]).tmpfs_for_files("/spool", 2000);
    let fills = ["--inodes", "/spool", "--step", "100", "--most", "1900"];
    job.is_saved(container, &fills, "inodes", "/spool", "of its inodes left");
}

#[test]
fn processes_and_threads() {
    let job = Job::new();
    let container = job.container(&[]).pids_limit(200);
    job.is_saved(container, &["--threads", "175"], "pids", "", "of the processes and threads that it may have");
}

/// The real node's: the kubelet is said to evict where a little more than now is used.
#[test]
fn memory_of_the_node() {
    let available = || {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    };
    // Others use the node too: where they took that little before the first look, it is tried again.
    for _ in 0..5 {
        let job = Job::new();
        let eviction = format!("{}MiB", (available() - 768 * MIB) / 2 / MIB);
        let container = job.container(&["--eviction-memory", &eviction]);
        let running = container.workload("grower.py", &["--grow-at", "/control/grow", "--most", "4000"]).start();
        running.wait_for_line("tick 3 ");
        running.wait_until("reading of the node", || reading(&running, "node-memory", "").is_some());
        let first = reading(&running, "node-memory", "").unwrap();
        if running.stderr().contains("since before the start") || running.stderr().contains("saving (") {
            running.kill9();
            continue;
        }
        assert_eq!((&first["low"], &first["unit"]), (&true.into(), &"bytes".into()), "{first}");
        std::fs::write(job.folder.path().join("grow"), "").unwrap();
        let said = running.wait_for_stderr_line("saving (");
        assert!(said.contains("of memory left, near the kubelet's eviction threshold"), "{said}");
        running.wait_for_stderr_line("saved generation 1-1");
        assert_eq!(status(&running)["triggers"]["fired"]["node-memory"], 1);
        return running.kill9();
    }
    panic!("the node's memory is never at rest");
}
