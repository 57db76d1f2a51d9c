//! A small tree of processes whose progress and memory can be checked, and images kept in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // In a test, failing is the message.
use bytes::Bytes;
use revenant::criu::Criu;
use revenant::criu::options::{Afterwards, DumpOptions, PID_FILE, RestoreOptions};
use revenant::criu::run::CriuProcess;
use revenant::criu::stream::{
    BulkImage, CaptureServer, DrainLimits, FeedLimits, ImageSink, ImageSource, Offer, ServeServer, SmallImage,
    StreamError, drain, feed,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const INSIDE: &str = "REVENANT_TEST_INSIDE";

/// Runs the named test of this program as PID 1 of new PID and mount namespaces.
pub fn in_own_namespaces(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare runs (util-linux, as root)");
    assert!(status.success(), "{test} failed in its namespaces");
}

/// The CRIU under test.
pub fn criu() -> Criu {
    let criu = Criu::locate().unwrap_or_else(|error| panic!("{error}; set REVENANT_CRIU"));
    criu.supported_version().expect("CRIU is new enough");
    criu
}

/// Two processes and a thread: the child counts over a pipe, the parent keeps random memory and
/// writes its count and the memory's digest.
const WORKLOAD: &str = r"
import hashlib, os, sys, threading, time
os.closerange(3, 1024)  # what the caller of the tests left open is not part of the tree
progress, size = sys.argv[1], int(sys.argv[2])
memory = os.urandom(size)
r, w = os.pipe()
if os.fork() == 0:
    i = 0
    while True:
        i += 1
        os.write(w, i.to_bytes(8, 'little'))
        time.sleep(0.005)
ticks = [0]
def tick():
    while True:
        ticks[0] += 1
        time.sleep(0.005)
threading.Thread(target=tick, daemon=True).start()
while True:
    count = int.from_bytes(os.read(r, 8), 'little')
    digest = hashlib.sha256(memory).hexdigest()[:16]
    with open(progress, 'a') as out:
        out.write(f'{count} {ticks[0]} {digest}\n')
";

/// One line of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub count: u64,
    pub ticks: u64,
    pub digest: String,
}

/// The tree and its private directory.
pub struct Tree {
    root: i32,
    directory: tempfile::TempDir,
}

impl Tree {
    /// Bytes of random memory that the root keeps.
    pub const MEMORY: usize = 4 << 20;

    #[allow(clippy::zombie_processes)] // The PID namespace of the test reaps it.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // `setsid` makes it a session leader, as revenant does: CRIU refuses a session from outside.
        let child = Command::new("setsid")
            .args(["python3", "-c", WORKLOAD])
            .arg(directory.path().join("progress"))
            .arg(Self::MEMORY.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setsid and python3 run");
        Self { root: i32::try_from(child.id()).unwrap(), directory }
    }

    pub fn root(&self) -> i32 {
        self.root
    }

    /// Root first.
    pub fn pids(&self) -> Vec<i32> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.root)).unwrap();
        std::iter::once(self.root).chain(children.split_whitespace().map(|pid| pid.parse().unwrap())).collect()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(self.directory.path().join("progress")).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap().to_owned();
            Line { count: word().parse().unwrap(), ticks: word().parse().unwrap(), digest: word() }
        };
        complete.lines().map(parse).collect()
    }

    pub fn last(&self) -> Line {
        self.lines().pop().expect("the workload has begun")
    }

    /// Waits until the tree has come further than now.
    pub fn wait_for_progress(&self, patience: Duration) -> Line {
        let (now, deadline) = (self.lines().len(), Instant::now() + patience);
        while self.lines().len() < now + 5 {
            assert!(Instant::now() < deadline, "the workload does not continue");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.last()
    }

    /// Every count is one more than the one before, and the thread never fell back.
    pub fn assert_never_went_back(&self) {
        for pair in self.lines().windows(2) {
            assert_eq!(pair[0].count + 1, pair[1].count, "the count skipped or went back");
            assert!(pair[0].ticks <= pair[1].ticks, "the thread went back");
            assert_eq!(pair[0].digest, pair[1].digest, "the memory changed");
        }
    }
}

/// The state letter in `/proc/PID/stat`.
pub fn state(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap()
}

/// Waits until the process is in this state.
pub fn wait_for_state(pid: i32, wanted: char, patience: Duration) {
    let deadline = Instant::now() + patience;
    while state(pid) != wanted {
        assert!(Instant::now() < deadline, "process {pid} is {} and not {wanted}", state(pid));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Images in memory.
#[derive(Default)]
pub struct Images {
    images: Mutex<BTreeMap<String, Bytes>>,
    give_up_after: Option<usize>,
}

/// Why the test's own sink or source failed.
#[derive(Debug)]
pub struct Failed(String);

impl From<StreamError> for Failed {
    fn from(error: StreamError) -> Self {
        Self(error.to_string())
    }
}

impl Images {
    /// Reads this much of a bulky image, then fails.
    pub fn giving_up_after(bytes: usize) -> Self {
        Self { give_up_after: Some(bytes), ..Self::default() }
    }

    pub fn names(&self) -> Vec<String> {
        self.images.lock().unwrap().keys().cloned().collect()
    }

    pub fn bytes(&self, name: &str) -> Bytes {
        self.images.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    fn keep(&self, name: String, bytes: Vec<u8>) {
        let old = self.images.lock().unwrap().insert(name.clone(), bytes.into());
        assert!(old.is_none(), "CRIU opened {name} twice");
    }
}

impl ImageSink for Images {
    type Error = Failed;

    fn small(&self, image: SmallImage) -> Result<(), Failed> {
        self.keep(image.name, image.bytes);
        Ok(())
    }

    fn bulk(&self, image: BulkImage) -> Result<(), Failed> {
        let (name, mut bytes) = (image.name.clone(), Vec::new());
        let limit = self.give_up_after.map_or(u64::MAX, |bytes| bytes as u64);
        image.into_reader().take(limit).read_to_end(&mut bytes).map_err(|error| Failed(error.to_string()))?;
        if self.give_up_after.is_some() {
            return Err(Failed("the test gave up".into()));
        }
        self.keep(name, bytes);
        Ok(())
    }
}

impl ImageSource for Images {
    type Error = Failed;

    fn offer(&self, name: &str) -> Result<Offer, Failed> {
        let images = self.images.lock().unwrap();
        Ok(match images.get(name) {
            None => Offer::Missing,
            Some(bytes) if bytes.len() > 1 << 20 => Offer::Streamed { length: Some(bytes.len() as u64) },
            Some(bytes) => Offer::Whole(bytes.clone()),
        })
    }

    fn stream(&self, name: &str, pipe: OwnedFd) -> Result<(), Failed> {
        File::from(pipe).write_all(&self.bytes(name)).map_err(|error| Failed(error.to_string()))
    }
}

fn failure(directory: &Path, log: &str, what: &str) -> String {
    let read = |name| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    let errors: Vec<String> = read(log).lines().filter(|line| line.contains("Error")).map(str::to_owned).collect();
    format!("{what}\n{}{}", read("criu.out"), errors.join("\n"))
}

/// Dumps the tree into `images`.
pub fn dump(criu: &Criu, root: i32, directory: &Path, afterwards: Afterwards, images: &Images) -> Result<(), String> {
    let server = CaptureServer::bind(directory).map_err(|error| error.to_string())?;
    let mut process =
        CriuProcess::dump(criu, &DumpOptions::new(root, directory, afterwards)).map_err(|e| e.to_string())?;
    let drained = server
        .accept(process.peer(), Duration::from_secs(20))
        .map_err(Failed::from)
        .and_then(|connection| drain(connection, DrainLimits::default(), images));
    let status = process.wait().map_err(|error| error.to_string())?;
    match drained {
        Err(Failed(error)) => Err(failure(directory, "dump.log", &error)),
        Ok(()) if status.success() => Ok(()),
        Ok(()) => Err(failure(directory, "dump.log", &status.to_string())),
    }
}

/// Reaps what a dump has killed, as PID 1: a zombie holds its PID.
fn reap() {
    while nix::sys::wait::wait().is_ok() {}
}

/// Restores the tree from `images` and returns its root.
pub fn restore(criu: &Criu, directory: &Path, images: &Images, streams: usize) -> Result<i32, String> {
    reap();
    let server = ServeServer::bind(directory).map_err(|error| error.to_string())?;
    let _ = std::fs::remove_file(directory.join(PID_FILE));
    let mut process = CriuProcess::restore(criu, &RestoreOptions::new(directory)).map_err(|error| error.to_string())?;
    let fed = server
        .accept(process.peer(), Duration::from_secs(20))
        .map_err(Failed::from)
        .and_then(|connection| feed(connection, FeedLimits { streams }, images));
    let status = process.wait().map_err(|error| error.to_string())?;
    match fed {
        Err(Failed(error)) => Err(failure(directory, "restore.log", &error)),
        Ok(()) if !status.success() => Err(failure(directory, "restore.log", &status.to_string())),
        Ok(()) => Ok(std::fs::read_to_string(directory.join(PID_FILE)).unwrap().trim().parse().unwrap()),
    }
}
