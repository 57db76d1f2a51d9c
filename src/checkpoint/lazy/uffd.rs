//! What userfaultfd(2) and its `ioctl`s offer, as far as it is used here.
#![allow(unsafe_code)] // System calls on the memory of other processes have no safe form.

use nix::errno::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const API: u64 = 0xAA;
/// `UFFD_FEATURE_EVENT_FORK`, `_REMAP`, `_REMOVE` and `_UNMAP`: what CRIU asks for.
const FEATURES: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;
/// Bytes of `struct uffd_msg`.
const MESSAGE: usize = 32;
/// Messages that are taken at once.
const MESSAGES: usize = 64;

#[repr(C)]
struct ApiCall {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeCall {
    start: u64,
    length: u64,
}

#[repr(C)]
struct CopyCall {
    to: u64,
    from: u64,
    length: u64,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct ZeroCall {
    start: u64,
    length: u64,
    mode: u64,
    done: i64,
}

nix::ioctl_readwrite!(uffdio_api, 0xAA, 0x3F, ApiCall);
nix::ioctl_readwrite!(uffdio_copy, 0xAA, 0x03, CopyCall);
nix::ioctl_readwrite!(uffdio_zeropage, 0xAA, 0x04, ZeroCall);
nix::ioctl_read!(uffdio_wake, 0xAA, 0x02, RangeCall);

/// What the kernel tells of one address space.
#[derive(Debug)]
pub enum Told {
    /// A thread waits for the page of this address.
    Fault(u64),
    /// A child was born whose memory is like its parent's at this moment.
    Fork(Uffd),
    /// Pages were moved.
    Moved {
        /// Their first address before.
        from: u64,
        /// And now.
        to: u64,
        /// Bytes.
        length: u64,
    },
    /// Nobody wants what was in these addresses.
    Dropped(std::ops::Range<u64>),
}

/// The missing pages of one address space. As long as one descriptor of it is open, whoever touches such a page
/// waits; when the last one is closed he finds zeros.
#[derive(Debug)]
pub struct Uffd(File);

impl Uffd {
    /// As CRIU hands it over.
    pub fn new(fd: OwnedFd) -> Self {
        Self(File::from(fd))
    }

    /// Puts bytes in place and wakes who waits for them. Returns how many bytes were put, at least a page.
    pub fn copy(&self, to: u64, bytes: &[u8]) -> Result<u64, Errno> {
        let mut call = CopyCall { to, from: bytes.as_ptr() as u64, length: bytes.len() as u64, mode: 0, done: 0 };
        // SAFETY: the kernel reads `length` bytes of `bytes`, which live through the call; what it writes is another
        // process's memory.
        let result = unsafe { uffdio_copy(self.0.as_raw_fd(), &raw mut call) };
        done(result, call.done, call.length)
    }

    /// The same with zeros.
    pub fn zero(&self, start: u64, length: u64) -> Result<u64, Errno> {
        let mut call = ZeroCall { start, length, mode: 0, done: 0 };
        // SAFETY: the structure lives through the call; what the kernel writes is another process's memory.
        let result = unsafe { uffdio_zeropage(self.0.as_raw_fd(), &raw mut call) };
        done(result, call.done, call.length)
    }

    /// Wakes who waits for pages that are there.
    pub fn wake(&self, start: u64, length: u64) {
        let mut call = RangeCall { start, length };
        // SAFETY: the structure lives through the call. A process that is gone waits no more.
        let _ = unsafe { uffdio_wake(self.0.as_raw_fd(), &raw mut call) };
    }

    /// What was told since the last time. Whoever caused an event goes on at this moment.
    pub fn read(&self) -> io::Result<Vec<Told>> {
        let mut buffer = [0u8; MESSAGE * MESSAGES];
        let mut told = Vec::new();
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(0) => return Ok(told),
                Ok(length) => told.extend(buffer[..length].chunks_exact(MESSAGE).filter_map(parse)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(told),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn done(result: nix::Result<i32>, done: i64, all: u64) -> Result<u64, Errno> {
    match result {
        Ok(_) => Ok(all),
        // In part: the rest is a call of its own, which says what is in the way.
        Err(_) if done > 0 => Ok(done.unsigned_abs()),
        Err(errno) => Err(errno),
    }
}

/// `struct uffd_msg`: an event, seven reserved bytes, and up to three words.
fn parse(message: &[u8]) -> Option<Told> {
    let word = |number: usize| {
        let bytes = message.get(8 + 8 * number..16 + 8 * number)?;
        bytes.try_into().ok().map(u64::from_ne_bytes)
    };
    Some(match message.first()? {
        0x12 => Told::Fault(word(1)?),
        0x13 => {
            let fd = i32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            Told::Fork(Uffd::new(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        0x14 => Told::Moved { from: word(0)?, to: word(1)?, length: word(2)? },
        0x15 | 0x16 => Told::Dropped(word(0)?..word(1)?),
        _ => return None,
    })
}

/// Whether this userfaultfd tells of all that a process may do to its memory. (`/proc/PID/fdinfo`: `API: aa:FEATURES:…`.)
pub fn tells_all(uffd: &OwnedFd) -> bool {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", uffd.as_raw_fd())).unwrap_or_default();
    features(&text).is_some_and(|features| features & FEATURES == FEATURES)
}

fn features(fdinfo: &str) -> Option<u64> {
    let api = fdinfo.lines().find_map(|line| line.strip_prefix("API:"))?;
    u64::from_str_radix(api.trim().split(':').nth(1)?, 16).ok()
}

/// Whether the kernel lets this process have what a lazy restore needs.
pub fn available() -> io::Result<()> {
    open().map(drop)
}

/// A userfaultfd for this process's own memory.
pub(super) fn open() -> io::Result<Uffd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    let uffd = Uffd::new(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut call = ApiCall { api: API, features: FEATURES, ioctls: 0 };
    // SAFETY: the structure lives through the call.
    unsafe { uffdio_api(uffd.0.as_raw_fd(), &raw mut call) }?;
    Ok(uffd)
}
