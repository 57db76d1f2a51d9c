//! Stores for checkpoints: a directory, or a bucket of a real S3 server.

use super::scratch::Scratch;
use super::{PATIENCE, cache};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

const BUCKET: &str = "checkpoints";
const ACCESS_KEY: &str = "tester";
const SECRET_KEY: &str = "tester-secret";

/// Where containers keep their checkpoints. Removed, server and all, when dropped.
pub enum Store {
    /// A directory of the host, mounted at `/checkpoints`.
    Local(Scratch),
    /// A bucket on `SeaweedFS`.
    Seaweed(Seaweed),
}

impl Store {
    /// An empty directory.
    pub fn local() -> Self {
        Self::Local(Scratch::new())
    }

    /// An empty bucket on an S3 server of its own, on loopback.
    pub fn seaweed() -> Self {
        Self::Seaweed(Seaweed::start())
    }

    /// As revenant is told: `REVENANT_STORE`.
    pub fn url(&self) -> String {
        match self {
            Self::Local(_) => "file:///checkpoints".into(),
            Self::Seaweed(_) => format!("s3://{BUCKET}/jobs"),
        }
    }

    /// The variables with which revenant reaches it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![("REVENANT_STORE".to_owned(), self.url())];
        if let Self::Seaweed(server) = self {
            variables.extend(
                [
                    ("AWS_ENDPOINT_URL", server.endpoint().as_str()),
                    ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                    ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
                    ("AWS_REGION", "us-east-1"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
        }
        variables
    }

    /// The directory, if it is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Local(scratch) => Some(scratch.path()),
            Self::Seaweed(_) => None,
        }
    }

    /// Every object of a local store, as paths on the host, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.directory().expect("only a local store has files").to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                    _ => files.push(entry.path()),
                }
            }
        }
        files.sort();
        files
    }

    /// The server behind it, to stop and start it.
    pub fn server(&self) -> &Seaweed {
        match self {
            Self::Seaweed(server) => server,
            Self::Local(_) => panic!("a local store has no server"),
        }
    }
}

/// A `SeaweedFS` that listens on loopback only.
pub struct Seaweed {
    scratch: Scratch,
    ports: Vec<u16>,
    server: Mutex<Option<Child>>,
}

/// In the order in which the ports are kept: HTTP, then gRPC, of each part.
const PARTS: [&str; 4] = ["s3", "filer", "master", "volume"];

impl Seaweed {
    fn start() -> Self {
        let scratch = Scratch::new();
        let identity = serde_json::json!({ "identities": [{
            "name": "tester",
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
        }]});
        std::fs::write(scratch.path().join("s3.json"), identity.to_string()).unwrap();
        std::fs::create_dir(scratch.path().join("data")).unwrap();
        let server = Self { scratch, ports: free_ports(PARTS.len() * 2), server: Mutex::new(None) };
        server.resume();
        server.make_bucket(BUCKET);
        server
    }

    /// `http://127.0.0.1:PORT`, where S3 is spoken.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// Kill it: the store is unreachable, connections are refused. What it holds stays.
    pub fn stop(&self) {
        if let Some(mut child) = self.server.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Start it again at the same address with the same data.
    pub fn resume(&self) {
        let directory = self.scratch.path();
        // It dies with the test program, even one that is killed.
        let mut weed = Command::new("setpriv");
        weed.args(["--pdeathsig", "KILL", "--"]).arg(cache::seaweedfs());
        weed.arg(format!("-logdir={}", directory.display()));
        weed.args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]);
        weed.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-volume.max=64"]);
        weed.args(["-volume.preStopSeconds=0", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=1024"]);
        weed.arg(format!("-dir={}", directory.join("data").display()));
        weed.arg(format!("-s3.config={}", directory.join("s3.json").display()));
        for (index, part) in PARTS.iter().enumerate() {
            weed.arg(format!("-{part}.port={}", self.ports[2 * index]));
            weed.arg(format!("-{part}.port.grpc={}", self.ports[2 * index + 1]));
        }
        for part in ["s3", "filer"] {
            weed.arg(format!("-{part}.localSocket={}", directory.join(part).display()));
        }
        let log = std::fs::File::create(directory.join("log")).unwrap();
        weed.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.server.lock().unwrap() = Some(weed.spawn().expect("setpriv (util-linux) cannot be run"));

        // Ready is when S3 answers, and a volume takes data: an upload by the filer proves the rest.
        let deadline = Instant::now() + PATIENCE;
        while self.http(0, "GET", "/", "").is_none()
            || !matches!(self.http(1, "PUT", "/ready", "ready"), Some(status) if status.starts_with('2'))
        {
            let ended = self.server.lock().unwrap().as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "SeaweedFS does not get ready ({ended:?}):\n{}",
                std::fs::read_to_string(directory.join("log")).unwrap_or_default()
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// A bucket is a directory of the filer.
    pub fn make_bucket(&self, name: &str) {
        let status = self.http(1, "POST", &format!("/buckets/{name}/"), "");
        assert!(status.as_ref().is_some_and(|status| status.starts_with('2')), "no bucket: {status:?}");
    }

    /// One request to a part, and the status of its answer, if there is one.
    fn http(&self, part: usize, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[2 * part])).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        String::from_utf8_lossy(&answer).split(' ').nth(1).map(ToOwned::to_owned)
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ports on which nothing listens. All are held at once, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
