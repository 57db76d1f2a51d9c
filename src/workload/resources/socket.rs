//! Which sockets are connected, and to whom.

use super::unix_peers::{self, UnixSocket};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The sockets of a network namespace.
#[derive(Debug, Clone, Default)]
pub struct Sockets {
    /// Unix sockets by inode; none if the kernel did not tell.
    pub unix: Option<HashMap<u64, UnixSocket>>,
    /// Established TCP connections by inode.
    pub tcp: BTreeMap<u64, Endpoint>,
}

/// The two ends of a TCP connection, as the kernel prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// This end, `ADDRESS:PORT` in hexadecimal.
    pub local: String,
    /// The other end.
    pub remote: String,
}

impl Endpoint {
    /// The other end as people write it.
    pub fn remote_text(&self) -> String {
        address(&self.remote).unwrap_or_else(|| self.remote.clone())
    }
}

/// The kernel prints an address as words in the byte order of the machine.
fn address(text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = (0..address.len()).step_by(8);
    let words = words.map(|at| u32::from_str_radix(address.get(at..at + 8)?, 16).ok()).collect::<Option<Vec<_>>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, port).to_string())
}

/// `TCP_ESTABLISHED` to `TCP_CLOSING` without `TCP_CLOSE` (7) and `TCP_LISTEN` (10), of `include/net/tcp_states.h`:
/// connections that have a state worth keeping.
const CONNECTED: [&str; 7] = ["01", "02", "03", "04", "05", "08", "0B"];

impl Sockets {
    /// Those that a process sees.
    pub fn of(pid: i32) -> Self {
        let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")));
        Self {
            // The job shares this container's network; in another one nothing could be said.
            unix: unix_peers::all().ok(),
            tcp: tables.iter().flatten().flat_map(|text| established(text)).collect(),
        }
    }
}

fn established(table: &str) -> Vec<(u64, Endpoint)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, remote, state, inode) = (fields.get(1)?, fields.get(2)?, fields.get(3)?, fields.get(9)?);
        let connected = CONNECTED.contains(state);
        let ends = Endpoint { local: (*local).to_owned(), remote: (*remote).to_owned() };
        connected.then(|| inode.parse().ok()).flatten().map(|inode: u64| (inode, ends))
    };
    table.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0 20 4 30 10 -1\n\
            2: 0100007F:D431 0100007F:1F90 06 00000000:00000000 03:00001707 00000000     0        0 0 3 0\n";
        let found = established(table);
        assert_eq!(found.iter().map(|(inode, _)| *inode).collect::<Vec<_>>(), [101]);
        assert_eq!(found[0].1.remote_text(), "127.0.0.1:54321");
        let six = Endpoint { local: String::new(), remote: "0000000000000000FFFF00000100007F:0050".into() };
        assert_eq!(six.remote_text(), "127.0.0.1:80");
    }

    #[test]
    fn sees_a_real_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let port = format!(":{:04X}", client.local_addr().unwrap().port());
        assert!(Sockets::of(me).tcp.values().any(|ends| ends.local.ends_with(&port)));
    }
}
