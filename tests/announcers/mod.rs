//! Servers on loopback that speak the documented protocols of clouds and of the Kubernetes API server.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

pub mod clouds;
pub mod cluster;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What to say.
pub enum Say {
    /// Status, content type, text.
    Whole(u16, &'static str, String),
    /// Lines as they come, until the server is dropped: a watch.
    Lines(Arc<Feed>),
}

/// Lines for a watch.
#[derive(Default)]
pub struct Feed {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Feed {
    pub fn push(&self, line: String) {
        self.lines.lock().unwrap().push(line);
        self.more.notify_all();
    }
}

/// A server, and all that it was asked.
pub struct Announcer {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Announcer {
    /// Answers by this function, each request in a thread of its own.
    pub fn start(answer: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { port, asked }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Say) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    // A client may keep its connection and ask again.
    while let Some(asked) = read(&mut reader) {
        seen.lock().unwrap().push(asked.clone());
        match answer(&asked) {
            Say::Whole(status, kind, body) => {
                let head = format!(
                    "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(head.as_bytes()).is_err() {
                    return;
                }
            }
            Say::Lines(feed) => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                if stream.write_all(head.as_bytes()).is_err() {
                    return;
                }
                let mut next = 0;
                loop {
                    let lines = feed.lines.lock().unwrap();
                    let (lines, _) = feed.more.wait_timeout(lines, Duration::from_millis(200)).unwrap();
                    let new: Vec<String> = lines[next..].to_vec();
                    next = lines.len();
                    drop(lines);
                    for line in new {
                        if write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1).is_err() {
                            return;
                        }
                    }
                }
            }
        }
        if asked.headers.get("connection").is_some_and(|value| value == "close") {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body: String::from_utf8(body).ok()? })
}
