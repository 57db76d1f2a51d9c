//! The little HTTP that a metadata service needs: one request for each connection, short answers, no TLS.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 256 << 10;
/// From connecting to the last byte. Azure's first answer takes up to two minutes; later ones are fast.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a metadata service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// A header that a request carries.
pub type Header<'a> = (&'a str, &'a str);

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its text.
    pub body: String,
}

impl Endpoint {
    /// From `http://HOST[:PORT]`.
    pub fn parse(url: &str) -> Result<Self, String> {
        let refuse =
            || format!("{url:?} is no address of a metadata service; write for example http://169.254.169.254");
        let rest = url.strip_prefix("http://").ok_or_else(refuse)?.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| refuse())?),
            None => (rest, 80),
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Asks for a path.
    pub async fn get(&self, path: &str, headers: &[Header<'_>]) -> Result<Answer, String> {
        self.ask("GET", path, headers).await
    }

    /// Asks for a token.
    pub async fn put(&self, path: &str, headers: &[Header<'_>]) -> Result<Answer, String> {
        self.ask("PUT", path, headers).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[Header<'_>]) -> Result<Answer, String> {
        let asking = async {
            let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
            for (name, value) in headers {
                request.extend([name, ": ", value, "\r\n"]);
            }
            if method == "PUT" {
                request.push_str("Content-Length: 0\r\n");
            }
            request.push_str("\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(LONGEST).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await.map_err(|_| "no answer in time".to_owned())?;
        parse(&answer.map_err(|error| error.to_string())?).ok_or_else(|| "the answer is not HTTP".to_owned())
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let chunked = headers.any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
    });
    let body = &bytes[end + 4..];
    let body = if chunked { unchunked(body)? } else { body.to_vec() };
    Some(Answer { status, body: String::from_utf8(body).ok()? })
}

/// A body in chunks, as one.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim();
        let length = usize::from_str_radix(length, 16).ok()?;
        rest = &rest[end + 2..];
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers_whole_and_in_chunks() {
        let answer = |text: &str| parse(text.as_bytes()).map(|answer| (answer.status, answer.body));
        assert_eq!(answer("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n"), Some((404, String::new())));
        assert_eq!(answer("HTTP/1.0 200 OK\r\n\r\nTRUE"), Some((200, "TRUE".to_owned())));
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(answer(chunks), Some((200, "abcde".to_owned())));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\na",
        ] {
            assert_eq!(answer(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_checked() {
        assert!(Endpoint::parse("http://169.254.169.254").is_ok());
        assert_eq!(Endpoint::parse("http://127.0.0.1:8080/").unwrap().port, 8080);
        for bad in ["https://x", "169.254.169.254", "http://", "http://a b", "http://a:b"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
