//! Which Unix socket is connected to which, asked of the kernel: `/proc/net/unix` does not tell.
//!
//! The protocol is `sock_diag(7)`: one request, an answer in several messages.

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use nix::sys::time::TimeVal;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` and `NLMSG_DONE` of `linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `UDIAG_SHOW_PEER` of `linux/unix_diag.h`, and the attribute that answers it.
const SHOW_PEER: u32 = 4;
const PEER: u16 = 2;
/// Lengths of `nlmsghdr`, `unix_diag_req` and `unix_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 24;
const ANSWER: usize = 16;

/// A Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixSocket {
    /// `SOCK_STREAM` 1, `SOCK_DGRAM` 2, `SOCK_SEQPACKET` 5.
    pub kind: u8,
    /// The other end's inode, if there is one.
    pub peer: Option<u64>,
}

/// Every Unix socket of this network namespace, by inode.
pub fn all() -> io::Result<HashMap<u64, UnixSocket>> {
    let link = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    // The kernel answers at once; this is against hanging for ever.
    nix::sys::socket::setsockopt(&link, nix::sys::socket::sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    sendto(link.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut sockets = HashMap::new();
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let length = recv(link.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if take(buffer.get(..length).unwrap_or_default(), &mut sockets)? {
            return Ok(sockets);
        }
    }
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(u32::try_from(HEADER + REQUEST).unwrap_or_default().to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]); // sequence, port
    bytes.extend([1, 0, 0, 0]); // AF_UNIX, protocol, padding
    bytes.extend(u32::MAX.to_ne_bytes()); // all states
    bytes.extend([0; 4]); // any inode
    bytes.extend(SHOW_PEER.to_ne_bytes());
    bytes.extend([0; 8]); // cookie
    bytes
}

/// Takes the messages of one datagram; true after the last.
fn take(mut bytes: &[u8], sockets: &mut HashMap<u64, UnixSocket>) -> io::Result<bool> {
    while bytes.len() >= HEADER {
        let length = word(bytes, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let Some(message) = bytes.get(HEADER..length) else { break };
        match half(bytes, 4) {
            Some(DONE) => return Ok(true),
            Some(ERROR) => {
                let code = word(message, 0).map_or(0, |code| code.cast_signed().wrapping_neg());
                return Err(io::Error::from_raw_os_error(code));
            }
            Some(BY_FAMILY) => drop(answer(message).map(|(inode, socket)| sockets.insert(inode, socket))),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// A `unix_diag_msg` (family, type, state, padding, inode, cookie) and its attributes.
fn answer(message: &[u8]) -> Option<(u64, UnixSocket)> {
    let kind = *message.get(1)?;
    let inode = u64::from(word(message, 4)?);
    let mut attributes = message.get(ANSWER..)?;
    let mut peer = None;
    while let (Some(length), Some(name)) = (half(attributes, 0), half(attributes, 2)) {
        if name == PEER {
            peer = word(attributes, 4).map(u64::from).filter(|inode| *inode != 0);
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    Some((inode, UnixSocket { kind, peer }))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn inode(socket: &impl AsRawFd) -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let text = link.to_string_lossy().into_owned();
        text.strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap().parse().unwrap()
    }

    #[test]
    fn the_kernel_names_both_ends_of_a_connection() {
        let (left, right) = UnixStream::pair().unwrap();
        let alone = UnixDatagram::unbound().unwrap();
        let sockets = all().unwrap();
        assert_eq!(sockets[&inode(&left)], UnixSocket { kind: 1, peer: Some(inode(&right)) });
        assert_eq!(sockets[&inode(&right)], UnixSocket { kind: 1, peer: Some(inode(&left)) });
        assert_eq!(sockets[&inode(&alone)], UnixSocket { kind: 2, peer: None });
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = take(&bytes, &mut HashMap::new());
            let _ = answer(&bytes);
        }
    }
}
