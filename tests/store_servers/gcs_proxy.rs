//! Between `object_store`, which writes with Google's XML API, and fake-gcs-server, which knows writes
//! with preconditions only in Google's JSON API: says the one in words of the other. Everything else
//! passes unchanged; the conditions are judged by the server alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Long and random enough that no content holds it.
const BOUNDARY: &str = "b7c1f5e09a3d4b6f8e2a";

/// Starts the proxy, for the life of the test program, and returns its port.
pub fn start(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || pass(client, server));
        }
    });
    port
}

/// One request and its answer; then the connection ends.
fn pass(mut client: TcpStream, server: u16) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        head.iter().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let generation = header("x-goog-if-generation-match");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;

    let is_write = head[0].starts_with("PUT ");
    if is_write {
        let path = head[0].split(' ').nth(1)?.to_owned();
        let (bucket, object) = path.strip_prefix('/')?.split_once('/')?;
        let condition = generation.map(|number| format!("&ifGenerationMatch={number}")).unwrap_or_default();
        head[0] =
            format!("POST /upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={object}{condition} HTTP/1.1");
        head.retain(|line| !line.to_ascii_lowercase().starts_with("content-"));
        let name = object.replace("%2F", "/").replace("%2D", "-").replace("%2E", ".").replace("%5F", "_");
        let mut parts = format!(
            "--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{{\"name\":\"{name}\"}}\r\n\
             --{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        parts.append(&mut body);
        parts.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        body = parts;
        head.push(format!("Content-Type: multipart/related; boundary={BOUNDARY}"));
        head.push(format!("Content-Length: {}", body.len()));
    }
    head.retain(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        name != "connection" && name != "host"
    });
    let mut upstream = TcpStream::connect(("127.0.0.1", server)).ok()?;
    let head = format!("{}\r\nHost: 127.0.0.1:{server}\r\nConnection: close\r\n\r\n", head.join("\r\n"));
    upstream.write_all(head.as_bytes()).ok()?;
    upstream.write_all(&body).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    // A write is answered with the object's tag in XML, and without it in JSON.
    if is_write
        && answer.starts_with(b"HTTP/1.1 200")
        && !String::from_utf8_lossy(&answer).to_lowercase().contains("\netag:")
    {
        let end_of_status = answer.windows(2).position(|w| w == b"\r\n")? + 2;
        answer.splice(end_of_status..end_of_status, b"ETag: \"unknown\"\r\n".iter().copied());
    }
    client.write_all(&answer).ok()
}
