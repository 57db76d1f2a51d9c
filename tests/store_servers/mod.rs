//! Real servers on loopback, started by the tests and ended with them. `scripts/store-servers.sh`
//! installs them.

mod gcs_proxy;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Settings of a child process.
pub type Environment = Vec<(String, String)>;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Runs the suite in a child process with that environment.
pub fn in_child(environment: &Environment) {
    let output = child("the_suite_on_the_store_that_the_environment_names", environment);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
}

/// Runs one test of this program in a child process.
pub fn child(test: &str, environment: &[(String, String)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]);
    for (name, _) in std::env::vars() {
        if [
            "AWS_",
            "GOOGLE_",
            "AZURE_",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "http_proxy",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().cloned()).output().unwrap()
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tool(path: &str) -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("REVENANT_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("revenant")))
        .or_else(|| Some(set("HOME")?.join(".cache/revenant")))
        .unwrap();
    let tool = cache.join(path);
    assert!(tool.exists(), "{} is missing: run `make store-servers`", tool.display());
    tool
}

/// A server process; killed when dropped.
struct Server {
    process: Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start(program: &Path, port: u16, arguments: impl Fn(&Path) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(program)
            .args(arguments(directory.path()))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { process, directory };
        server.wait_for(port);
        server
    }

    fn wait_for(&mut self, port: u16) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(60), "{ended:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("{}", &log[log.len().saturating_sub(4000)..]);
        }
    }
}

/// One HTTP request; returns the status, or none when the server is not ready to talk.
fn request(port: u16, head: &str, headers: &[String], body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let extra = headers.join("\r\n") + if headers.is_empty() { "" } else { "\r\n" };
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n{extra}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1)?.parse().ok()
}

/// Repeats a request until the server is up and does it.
fn insist(server: &Server, what: &str, attempt: impl Fn() -> Option<u16>) {
    let begun = Instant::now();
    loop {
        let status = attempt();
        if status.is_some_and(|status| status < 300 || status == 409) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {status:?}\n{}", server.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// S3: `weed server -s3`, with one identity and the bucket `conformance`.
pub struct SeaweedFs {
    _server: Server,
    port: u16,
}

impl SeaweedFs {
    pub fn start() -> Self {
        let ports: Vec<u16> = (0..8).map(|_| free_port()).collect();
        let port = ports[0];
        let identities = r#"{"identities":[{"name":"test","credentials":[{"accessKey":"test-key","secretKey":"test-secret"}],
            "actions":["Read","Write","List","Tagging"]}]}"#;
        let server = Server::start(&tool("seaweedfs/bin/weed"), port, |directory| {
            std::fs::write(directory.join("s3.json"), identities).unwrap();
            let mut arguments: Vec<String> = [
                "server",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-filer",
                "-s3",
                "-volume.max=20",
                "-master.volumeSizeLimitMB=64",
            ]
            .map(str::to_owned)
            .into();
            arguments.push(format!("-dir={}", directory.display()));
            arguments.push(format!("-s3.config={}", directory.join("s3.json").display()));
            for (n, name) in [
                "s3.port",
                "filer.port",
                "filer.port.grpc",
                "master.port",
                "master.port.grpc",
                "volume.port",
                "volume.port.grpc",
                "s3.port.grpc",
            ]
            .iter()
            .enumerate()
            {
                arguments.push(format!("-{name}={}", ports[n]));
            }
            arguments
        });
        insist(&server, "make the bucket", || request(ports[1], "POST /buckets/conformance/", &[], ""));
        // The S3 gateway may still be learning where the volumes are: one object must get through.
        insist(&server, "reach a volume", || request(ports[1], "PUT /buckets/conformance/ready", &[], "ready"));
        Self { _server: server, port }
    }

    pub fn environment(&self, url: &str) -> Environment {
        environment(&[
            ("REVENANT_CONFORMANCE_STORE", url),
            ("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", self.port)),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test-key"),
            ("AWS_SECRET_ACCESS_KEY", "test-secret"),
        ])
    }
}

/// Google Cloud Storage: fake-gcs-server in memory, with the bucket `conformance`, behind a proxy.
pub struct FakeGcs {
    _server: Server,
    port: u16,
}

impl FakeGcs {
    pub fn start() -> Self {
        let port = free_port();
        let server = Server::start(&tool("fake-gcs-server/bin/fake-gcs-server"), port, |_| {
            let host = format!("127.0.0.1:{port}");
            let port = port.to_string();
            ["-scheme", "http", "-host", "127.0.0.1", "-port", &port, "-public-host", &host, "-backend", "memory"]
                .map(str::to_owned)
                .into()
        });
        insist(&server, "make the bucket", || {
            let json = ["Content-Type: application/json".to_owned()];
            request(port, "POST /storage/v1/b?project=test", &json, r#"{"name":"conformance"}"#)
        });
        Self { _server: server, port: gcs_proxy::start(port) }
    }

    pub fn environment(&self, url: &str) -> Environment {
        environment(&[
            ("REVENANT_CONFORMANCE_STORE", url),
            ("GOOGLE_BASE_URL", &format!("http://127.0.0.1:{}", self.port)),
            (
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                r#"{"disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}"#,
            ),
        ])
    }
}

/// The account of Azurite that everybody knows.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Azure: Azurite in memory, with the container `conformance`.
pub struct Azurite {
    _server: Server,
    port: u16,
}

impl Azurite {
    pub fn start() -> Self {
        let port = free_port();
        let server = Server::start(&tool("azurite/node_modules/.bin/azurite-blob"), port, |_| {
            let port = port.to_string();
            [
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port,
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--silent",
            ]
            .map(str::to_owned)
            .into()
        });
        insist(&server, "make the container", || Self::make_container(port));
        Self { _server: server, port }
    }

    /// Signed with the account's key ("Authorize with Shared Key", Azure Storage REST API).
    fn make_container(port: u16) -> Option<u16> {
        let date = httpdate(std::time::SystemTime::now());
        let resource = format!("/{ACCOUNT}/{ACCOUNT}/conformance\nrestype:container");
        let signed = format!("PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n{resource}");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &STANDARD.decode(ACCOUNT_KEY).unwrap());
        let signature = STANDARD.encode(ring::hmac::sign(&key, signed.as_bytes()));
        let headers = [
            format!("x-ms-date: {date}"),
            "x-ms-version: 2021-08-06".to_owned(),
            format!("Authorization: SharedKey {ACCOUNT}:{signature}"),
        ];
        request(port, &format!("PUT /{ACCOUNT}/conformance?restype=container"), &headers, "")
    }

    pub fn environment(&self, url: &str) -> Environment {
        let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", self.port);
        environment(&[
            ("REVENANT_CONFORMANCE_STORE", url),
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY),
        ])
    }
}

/// RFC 9110's date, for example `Sun, 06 Nov 1994 08:49:37 GMT`.
fn httpdate(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let rfc3339 = humantime::format_rfc3339_seconds(time).to_string();
    let (year, month, day) = (&rfc3339[..4], rfc3339[5..7].parse::<usize>().unwrap(), &rfc3339[8..10]);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(seconds / 86400 % 7).unwrap()];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    format!("{weekday}, {day} {} {year} {} GMT", months[month - 1], &rfc3339[11..19])
}
