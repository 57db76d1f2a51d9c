//! Messages and descriptors on the wire.

use super::error::StreamError;
use super::pipe::expect_pipe;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use prost::Message;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Longest image name that we accept, in bytes: that of a file.
pub const LONGEST_NAME: usize = 255;
/// Longest message: a name and its protobuf header, with room.
const LONGEST_MESSAGE: usize = 512;

/// `img_streamer_request_entry`: the image that CRIU opens next.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RequestEntry {
    #[prost(string, required, tag = "1")]
    filename: String,
}

/// `img_streamer_reply_entry`: whether it exists.
#[derive(Clone, PartialEq, Eq, Message)]
struct ReplyEntry {
    #[prost(bool, required, tag = "1")]
    exists: bool,
}

/// The next image name, or none when CRIU has closed the socket.
pub fn read_request(mut socket: impl Read) -> Result<Option<String>, StreamError> {
    let mut length = [0u8; 4];
    if !fill(&mut socket, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_MESSAGE {
        return Err(StreamError::Protocol(format!("a message of {length} bytes")));
    }
    let mut message = vec![0; length];
    if !fill(&mut socket, &mut message)? && length > 0 {
        return Err(StreamError::Truncated);
    }
    let request = RequestEntry::decode(message.as_slice())
        .map_err(|error| StreamError::Protocol(format!("a request that does not decode: {error}")))?;
    check_name(request.filename).map(Some)
}

/// Tells CRIU whether the image exists.
pub(super) fn write_reply(mut socket: impl Write, exists: bool) -> Result<(), StreamError> {
    let message = ReplyEntry { exists }.encode_to_vec();
    let mut frame = Vec::with_capacity(4 + message.len());
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&message);
    socket.write_all(&frame).map_err(StreamError::io("replying to CRIU"))
}

/// The pipe that CRIU sends: exactly one descriptor, and a pipe.
pub(super) fn receive_pipe(socket: &UnixStream) -> Result<OwnedFd, StreamError> {
    receive_descriptor(socket).and_then(expect_pipe)
}

/// The descriptor that CRIU sends with one byte: exactly one.
pub(in crate::criu) fn receive_descriptor(socket: &UnixStream) -> Result<OwnedFd, StreamError> {
    let mut data = [0u8; 1];
    let mut control = nix::cmsg_space!(std::os::fd::RawFd);
    let mut received = Vec::new();
    let (bytes, flags) = {
        let mut slices = [IoSliceMut::new(&mut data)];
        let message = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                Err(nix::Error::EINTR) => {}
                other => break other.map_err(StreamError::sys("receiving a descriptor from CRIU"))?,
            }
        };
        for part in message.cmsgs().map_err(StreamError::sys("receiving a descriptor from CRIU"))? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                received.extend(fds.into_iter().map(own));
            }
        }
        (message.bytes, message.flags)
    };
    if bytes == 0 {
        return Err(StreamError::Truncated);
    }
    match (received.pop(), received.is_empty() && !flags.contains(MsgFlags::MSG_CTRUNC)) {
        (Some(descriptor), true) => Ok(descriptor),
        (None, _) => Err(StreamError::Protocol("no descriptor where one was due".into())),
        (Some(_), false) => Err(StreamError::Protocol("more than one descriptor".into())),
    }
}

#[allow(unsafe_code)] // The kernel hands over bare numbers; nix has no owned form of SCM_RIGHTS.
fn own(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A name that is safe as one path component and prints as it is.
fn check_name(name: String) -> Result<String, StreamError> {
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    if fits && name != "." && name != ".." && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        return Ok(name);
    }
    let shown: String = name.escape_default().take(80).collect();
    Err(StreamError::Protocol(format!("an image name that is none: \"{shown}\"")))
}

/// Fills the buffer. False when the other side had closed before the first byte.
pub(in crate::criu) fn fill(mut socket: impl Read, buffer: &mut [u8]) -> Result<bool, StreamError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(StreamError::Truncated),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // CRIU died with unread data of ours in its socket: an end, as by close.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && filled == 0 => return Ok(false),
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(true)
}

fn broken(source: io::Error) -> StreamError {
    StreamError::Io { doing: "reading from CRIU's socket", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use proptest::prelude::*;
    use std::io::IoSlice;
    use std::os::fd::{AsRawFd, RawFd};

    fn frame(name: &str) -> Vec<u8> {
        let message = RequestEntry { filename: name.into() }.encode_to_vec();
        let mut frame = u32::try_from(message.len()).unwrap().to_le_bytes().to_vec();
        frame.extend(message);
        frame
    }

    #[test]
    fn a_request_is_what_criu_sends() {
        // Taken from CRIU 4.2.1: length, field 1 as a string.
        let bytes = b"\x0d\x00\x00\x00\x0a\x0bpages-1.img";
        assert_eq!(read_request(&bytes[..]).unwrap().unwrap(), "pages-1.img");
        assert_eq!(frame("pages-1.img"), bytes);
    }

    #[test]
    fn a_closed_socket_is_the_end_but_not_within_a_message() {
        assert!(read_request(&b""[..]).unwrap().is_none());
        let whole = frame("core-1.img");
        for cut in 1..whole.len() {
            assert!(matches!(read_request(&whole[..cut]), Err(StreamError::Truncated)), "cut at {cut}");
        }
    }

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "/etc/passwd", "a b", "a\n", "ä", "\0", &"x".repeat(256)] {
            assert!(read_request(frame(bad).as_slice()).is_err(), "{bad:?} was accepted");
        }
        for good in ["pages-1.img", "ghost-file-2.img", "tmpfs-dev-31.tar.gz.img"] {
            assert_eq!(read_request(frame(good).as_slice()).unwrap().unwrap(), good);
        }
    }

    #[test]
    fn a_giant_length_is_refused_before_allocation() {
        assert!(matches!(read_request(&[0xff; 64][..]), Err(StreamError::Protocol(_))));
    }

    #[test]
    fn a_reply_is_what_criu_reads() {
        let (mut yes, mut no) = (Vec::new(), Vec::new());
        write_reply(&mut yes, true).unwrap();
        write_reply(&mut no, false).unwrap();
        assert_eq!(yes, b"\x02\x00\x00\x00\x08\x01");
        assert_eq!(no, b"\x02\x00\x00\x00\x08\x00", "a required field is sent even when false");
    }

    fn send(socket: &UnixStream, fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"*")], control, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn exactly_one_pipe_is_received_close_on_exec() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        send(&theirs, &[read.as_raw_fd()]);
        let pipe = receive_pipe(&ours).unwrap();
        nix::unistd::write(&write, b"x").unwrap();
        let mut got = [0; 1];
        assert_eq!(nix::unistd::read(&pipe, &mut got), Ok(1));
        let flags = nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);

        send(&theirs, &[read.as_raw_fd(), write.as_raw_fd()]);
        assert!(matches!(receive_pipe(&ours), Err(StreamError::Protocol(_))));
        send(&theirs, &[]);
        assert!(matches!(receive_pipe(&ours), Err(StreamError::Protocol(_))));
        send(&theirs, &[theirs.as_raw_fd()]);
        assert!(matches!(receive_pipe(&ours), Err(StreamError::Protocol(_))));
        drop(theirs);
        assert!(matches!(receive_pipe(&ours), Err(StreamError::Truncated)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Some(name)) = read_request(bytes.as_slice()) {
                prop_assert!(!name.contains('/') && name.len() <= LONGEST_NAME);
            }
        }
    }
}
