//! Probes, metrics and status over HTTP, for kubelets and Prometheus.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` `/readyz` `/startupz` | 200 or 503, and one line why |
//! | `/metrics` | Prometheus' text |
//! | `/status` | what `revenant status --json` prints |
//! | `POST /checkpoint` | with a token only: asks for a save; `?stop=true` ends the workload after it |
//!
//! It runs on PID 1's own thread, so everything is bounded: connections, the size of a request, and the time
//! that each may take. A request's body is never read.

mod answer;
mod serve;
mod token;

pub use serve::listen;
pub use token::{Token, TokenError};

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where and for whom.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may ask for saves; none: nobody.
    pub token: Option<Token>,
}

/// `0.0.0.0:9102`, `[::1]:9102`, or `:9102` for all addresses. Names are not looked up.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let refuse = || format!("{text:?} is no address; write for example :9102 or 127.0.0.1:9102");
    match text.trim().strip_prefix(':') {
        Some(port) => Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port.parse().map_err(|_| refuse())?)),
        None => text.trim().parse().map_err(|_| refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        assert_eq!(address(":9102").unwrap(), "[::]:9102".parse().unwrap());
        assert_eq!(address("127.0.0.1:80").unwrap(), "127.0.0.1:80".parse().unwrap());
        for bad in ["9102", "localhost:9102", ":", "1.2.3.4", ""] {
            assert!(address(bad).unwrap_err().contains("write for example"), "{bad}");
        }
    }
}
