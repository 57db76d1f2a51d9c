//! How each cause is made to happen, and what is then seen.

use crate::announcers::clouds;
use crate::announcers::cluster::{Cluster, event, node, pod};
use crate::harness::{Container, Running, Signal, Store};
use crate::table::Seen;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// Between scheduled saves, where the end is not announced.
pub const INTERVAL_SECONDS: f64 = 3.0;
const EVERY: [&str; 2] = ["--every", "3s"];
const MIB: u64 = 1 << 20;
/// Of a limit of 384 MiB.
const SQUEEZE: [&str; 4] = ["--most", "192", "--squeeze", "/control/large"];

/// Steps by their numbers, of either workload.
pub fn ticks(running: &Running) -> Vec<u64> {
    let lines = running.stdout_lines();
    lines.iter().filter_map(|line| line.strip_prefix("tick ")?.split(' ').next()?.parse().ok()).collect()
}

pub struct Job {
    store: Store,
    pub folder: TempDir,
    begun: Instant,
}

impl Job {
    pub fn new() -> Self {
        Self { store: Store::local(), folder: tempfile::tempdir().unwrap(), begun: Instant::now() }
    }

    pub fn container(&self, options: &[&str]) -> Container {
        let container = Container::of("survivor").store(&self.store).env("REVENANT_LEASE", "1s").options(options);
        container.mount(self.folder.path(), "/control")
    }

    pub fn counter(&self, options: &[&str]) -> Running {
        ready(self.container(options).workload("counter.py", &[]).start())
    }

    fn grower(&self, container: Container, workload: &[&str]) -> Running {
        ready(container.workload("grower.py", &[&["--grow-at", "/control/grow"], workload].concat()).start())
    }

    fn grow(&self) {
        std::fs::write(self.folder.path().join("grow"), "").unwrap();
    }

    /// The container has ended: what the next one finds.
    pub fn ended(&self, first: &Running) -> Seen {
        self.ended_and_told(first, "continued from generation")
    }

    /// The same, and the next one says this.
    fn ended_and_told(&self, first: &Running, words: &str) -> Seen {
        let code = first.wait();
        let took = self.begun.elapsed().as_secs_f64();
        let next = self.container(&[]).workload("counter.py", &[]).start();
        next.wait_for_stderr_line(words);
        next.wait_until("first step", || !ticks(&next).is_empty());
        seen(first, &format!("exit code {code}"), took, *ticks(&next).first().unwrap())
    }

    /// A save is durable; now the container is killed.
    pub fn saved(&self, first: &Running) -> Seen {
        first.wait_for_stderr_line("saved generation 1-1");
        first.signal(Signal::SIGKILL);
        self.ended(first)
    }
}

pub fn ready(running: Running) -> Running {
    running.wait_until("third step", || ticks(&running).len() >= 3);
    running
}

pub fn seen(first: &Running, end: &str, took: f64, continued_with: u64) -> Seen {
    let all = ticks(first);
    let last = *all.last().unwrap();
    let ticks_lost = (last + 1).saturating_sub(continued_with);
    assert!(continued_with <= last + 1, "it skipped from {last} to {continued_with}");
    let mut saves: Vec<String> = Vec::new();
    for line in first.stderr().lines() {
        let Some(reason) = line.split("saving (").nth(1).and_then(|rest| rest.strip_suffix(')')) else { continue };
        if saves.last().is_none_or(|last| last != reason) {
            saves.push(reason.to_owned());
        }
    }
    let saves = saves.join("; ");
    let did = if saves.is_empty() { end.to_owned() } else { format!("saved: {saves}; {end}") };
    #[allow(clippy::cast_precision_loss)]
    Seen { did, ticks_lost, seconds_lost: ticks_lost as f64 * took / last as f64 }
}

pub fn warned(options: &[&str], make: fn(&Running, &TempDir)) -> Seen {
    let job = Job::new();
    let first = job.counter(options);
    make(&first, &job.folder);
    job.saved(&first)
}

pub fn by_signal(signal: Signal, options: &[&str]) -> Seen {
    let job = Job::new();
    let first = job.counter(options);
    first.signal(signal);
    job.ended(&first)
}

pub fn stopped_by_request() -> Seen {
    let job = Job::new();
    let first = job.counter(&[]);
    assert_eq!(first.exec(&["revenant", "checkpoint", "--stop"]).code, 0);
    job.ended(&first)
}

const TOKEN: &str = "a token that nobody guesses";

pub fn with_http(query: &str, end: fn(&Job, &Running) -> Seen) -> Seen {
    let job = Job::new();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let container = job.container(&["--http", &format!("127.0.0.1:{port}")]).env("REVENANT_HTTP_TOKEN", TOKEN);
    let first = ready(container.workload("counter.py", &[]).start());
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let head = "HTTP/1.1\r\nHost: here\r\nConnection: close\r\nAuthorization: Bearer";
    write!(stream, "POST /checkpoint{query} {head} {TOKEN}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    end(&job, &first)
}

pub fn stopped_by_http() -> Seen {
    with_http("?stop=true", Job::ended)
}

pub fn asked_by_http() -> Seen {
    with_http("", Job::saved)
}

pub fn flag() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let flag = Arc::new(AtomicBool::new(false));
    (flag.clone(), flag)
}

pub fn cloud(name: &str, url: &str) -> (Job, Running) {
    let job = Job::new();
    let first = job.counter(&["--cloud", name, "--cloud-endpoint", url]);
    (job, first)
}

pub fn spot() -> Seen {
    let (announce, announced) = flag();
    let server = clouds::aws_spot(announced, SystemTime::now() + Duration::from_secs(20));
    let (job, first) = cloud("aws", &server.url());
    announce.store(true, Ordering::Relaxed);
    job.ended(&first)
}

pub fn rebalance() -> Seen {
    let (announce, announced) = flag();
    let server = clouds::aws_rebalance(announced);
    let (job, first) = cloud("aws", &server.url());
    announce.store(true, Ordering::Relaxed);
    job.saved(&first)
}

pub fn preempted() -> Seen {
    let (announce, announced) = flag();
    let server = clouds::google_preemption(announced);
    let (job, first) = cloud("gcp", &server.url());
    announce.store(true, Ordering::Relaxed);
    job.ended(&first)
}

pub fn azure() -> Seen {
    let (announce, announced) = flag();
    let server = clouds::azure_reboot(announced);
    let (job, first) = cloud("azure", &server.url());
    announce.store(true, Ordering::Relaxed);
    job.saved(&first)
}

pub fn azure_dated() -> Seen {
    let (announce, announced) = flag();
    let server = clouds::azure_preemption(announced, SystemTime::now() + Duration::from_secs(20));
    let (job, first) = cloud("azure", &server.url());
    announce.store(true, Ordering::Relaxed);
    job.ended(&first)
}

pub fn maintained() -> Seen {
    let (announce, announced) = flag();
    let server = clouds::google_maintenance(announced);
    let (job, first) = cloud("gcp", &server.url());
    announce.store(true, Ordering::Relaxed);
    job.saved(&first)
}

/// A job in a cluster: the container is the cluster's, the next one is not.
pub fn in_cluster() -> (Cluster, Running, Instant) {
    let (cluster, begun) = (Cluster::new(true), Instant::now());
    let first = ready(cluster.start());
    cluster.wait_for_watches();
    (cluster, first, begun)
}

pub fn ended_in_cluster(cluster: &Cluster, first: &Running, begun: Instant) -> Seen {
    let code = first.wait();
    let took = begun.elapsed().as_secs_f64();
    let next = cluster.start();
    next.wait_for_stderr_line("continued from generation");
    next.wait_until("first step", || !ticks(&next).is_empty());
    seen(first, &format!("exit code {code}"), took, *ticks(&next).first().unwrap())
}

pub fn deleted() -> Seen {
    let (cluster, first, begun) = in_cluster();
    let mut deleted = pod();
    let at = SystemTime::now() + Duration::from_secs(20);
    deleted["metadata"]["deletionTimestamp"] = json!(humantime::format_rfc3339_seconds(at).to_string());
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(20);
    cluster.pod.push(event("MODIFIED", &deleted));
    ended_in_cluster(&cluster, &first, begun)
}

pub fn evicted() -> Seen {
    let (cluster, first, begun) = in_cluster();
    let mut evicted = pod();
    evicted["status"]["conditions"] =
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]);
    cluster.pod.push(event("MODIFIED", &evicted));
    first.wait_for_stderr_line("saved generation 1-1");
    std::thread::sleep(Duration::from_secs(1));
    first.signal(Signal::SIGTERM);
    ended_in_cluster(&cluster, &first, begun)
}

pub fn taint(node: &mut serde_json::Value, key: &str, effect: &str) {
    node["spec"] = json!({"taints": [{"key": key, "effect": effect}]});
}

pub fn condition(node: &mut serde_json::Value, kind: &str, status: &str, message: &str) {
    node["status"]["conditions"] = json!([{"type": kind, "status": status, "message": message}]);
}

pub fn by_node(change: fn(&mut serde_json::Value), words: &str) -> Seen {
    let (cluster, first, begun) = in_cluster();
    let mut changed = node();
    change(&mut changed);
    cluster.node.push(event("MODIFIED", &changed));
    first.wait_for_stderr_line("saved generation 1-1");
    assert!(first.stderr().contains(words), "{}", first.stderr());
    first.signal(Signal::SIGKILL);
    ended_in_cluster(&cluster, &first, begun)
}

pub fn memory() -> Seen {
    let job = Job::new();
    let container = job.container(&["--memory-threshold", "70"]).memory_limit(512 * MIB);
    let first = job.grower(container, &["--most", "368", "--step", "8"]);
    job.grow();
    job.saved(&first)
}

/// A gauge that is beyond its bound at its first look is no reason; so this waits for the first look.
pub fn wait_for_reading(running: &Running, source: &str, of: &str) {
    running.wait_until(&format!("reading of {source} {of}"), || {
        let said = running.exec(&["revenant", "status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let readings = status["triggers"]["readings"].as_array().cloned().unwrap_or_default();
        readings.iter().any(|reading| reading["source"] == source && (of.is_empty() || reading["of"] == of))
    });
}

pub fn memory_of_the_node() -> Seen {
    let job = Job::new();
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available: u64 = available.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let container = job.container(&["--eviction-memory", &format!("{}MiB", (available / 1024 - 768) / 2)]);
    let first = job.grower(container, &["--most", "4000"]);
    wait_for_reading(&first, "node-memory", "");
    job.grow();
    job.saved(&first)
}

pub fn disk() -> Seen {
    let job = Job::new();
    let container = job.container(&["--spool", "/spool"]).tmpfs_of("/spool", 64 * MIB);
    let first = job.grower(container, &["--full", "/spool/full", "--step", "8", "--most", "60"]);
    wait_for_reading(&first, "disk", "/spool");
    job.grow();
    job.saved(&first)
}

pub fn inodes() -> Seen {
    let job = Job::new();
    let container = job.container(&["--spool", "/spool"]).tmpfs_for_files("/spool", 2000);
    let first = job.grower(container, &["--inodes", "/spool", "--step", "100", "--most", "1900"]);
    wait_for_reading(&first, "inodes", "/spool");
    job.grow();
    job.saved(&first)
}

pub fn pids() -> Seen {
    let job = Job::new();
    let first = job.grower(job.container(&[]).pids_limit(200), &["--threads", "175"]);
    wait_for_reading(&first, "pids", "");
    job.grow();
    job.saved(&first)
}

pub fn stalls() -> Seen {
    let job = Job::new();
    let container = job.container(&["--memory-threshold", "99"]).memory_limit(384 * MIB);
    // Where memory is of version 1, runc does not show the group of version 2, which has the stalls.
    let unified = std::path::Path::new("/sys/fs/cgroup/unified");
    let container = if unified.exists() { container.mount(unified, "/cgroup2") } else { container };
    let first = job.grower(container, &SQUEEZE);
    wait_for_reading(&first, "memory-stall", "");
    job.grow();
    first.wait_for_line("held 192 MiB");
    first.wait_for_stderr_line("saving (the container waits for memory");
    job.saved(&first)
}

/// Version 1's way to say the same.
pub fn squeezed() -> Seen {
    let job = Job::new();
    let container = job.container(&["--memory-threshold", "99"]).memory_limit(384 * MIB).writable_groups();
    let first = job.grower(container, &SQUEEZE);
    wait_for_reading(&first, "memory-pressure", "");
    job.grow();
    first.wait_for_line("held 192 MiB");
    first.wait_for_stderr_line("saving (the kernel could hardly free any memory");
    job.saved(&first)
}

pub fn killed(in_mid_save: bool) -> Seen {
    let job = Job::new();
    let first = job.counter(&EVERY);
    first.wait_for_stderr_line("saved generation 1-2");
    if in_mid_save {
        let saves = || first.stderr().matches("saving (").count();
        let before = saves();
        first.wait_until("another save", || saves() > before);
    } else {
        std::thread::sleep(Duration::from_millis(1500));
    }
    first.signal(Signal::SIGKILL);
    job.ended(&first)
}

pub fn oom_of_the_workload() -> Seen {
    let job = Job::new();
    let container = job.container(&["--on-pressure", "false"]).options(&EVERY).memory_limit(512 * MIB);
    let first = job.grower(container, &["--step", "32"]);
    first.wait_for_stderr_line("saved generation 1-1");
    job.grow();
    gone_back(&job, &first, "saved by schedule; restored in the same container, and told that the limit is too small")
}

/// What was lost where the same container goes on.
pub fn gone_back(job: &Job, first: &Running, did: &str) -> Seen {
    first.wait_for_stderr_line("going back to generation");
    let took = job.begun.elapsed().as_secs_f64();
    let before = ticks(first).len();
    first.wait_for_stderr_line("continued from generation");
    first.wait_until("step after the restore", || ticks(first).len() > before);
    let all = ticks(first);
    let (last, continued_with) = (*all[..before].iter().max().unwrap(), all[before]);
    let ticks_lost = (last + 1).saturating_sub(continued_with);
    #[allow(clippy::cast_precision_loss)]
    Seen { did: did.to_owned(), ticks_lost, seconds_lost: ticks_lost as f64 * took / last as f64 }
}

pub fn oom_of_all() -> Seen {
    let job = Job::new();
    let container = job.container(&["--memory-threshold", "99"]).options(&EVERY).memory_limit(384 * MIB);
    let first = job.grower(container, &["--step", "2"]);
    first.wait_for_stderr_line("saved generation 1-1");
    // The kernel's first choice, as if the workload could not be killed.
    std::fs::write(format!("/proc/{}/oom_score_adj", first.pid()), "1000").unwrap();
    job.grow();
    let mut seen = job.ended_and_told(&first, "so it was probably killed for want of memory");
    seen.did.push_str("; the next container says that it was probably killed for want of memory");
    seen
}

pub fn sigterm_in_mid_save() -> Seen {
    let job = Job::new();
    let container = job.container(&["--grace", "2m"]).env("REVENANT_UPLOAD_LIMIT", "3MiB");
    let first = ready(container.workload("counter.py", &["--mib", "24"]).start());
    let asked = first.exec_in_background(&["revenant", "checkpoint", "--json"]);
    asked.wait_for_line("\"answer\":\"released\"");
    first.signal(Signal::SIGTERM);
    job.ended(&first)
}
