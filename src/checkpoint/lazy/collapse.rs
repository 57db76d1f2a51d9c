//! Small pages into huge ones, when all memory has arrived and until a save is asked for.
//!
//! `process_madvise(2)` with `MADV_COLLAPSE` (Linux 6.1) needs the capability SYS_NICE for another process. Without it, and
//! where it is refused, the kernel's khugepaged does the same in its own time: nobody is told.
#![allow(unsafe_code)] // A system call on the memory of other processes has no safe form.

use super::huge::{self, Given};
use crate::criu::images;
use crate::repository::read::Opened;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// `MADV_COLLAPSE`
const COLLAPSE: libc::c_int = 25;
/// The longest image of a process's mappings that is read, in bytes.
const LONGEST: u64 = 64 << 20;
/// So many refusals one after the other are no accident.
const ENOUGH: u32 = 64;

/// Where a process may have huge pages.
#[derive(Debug)]
pub struct Places {
    pid: i32,
    ranges: Vec<Range<u64>>,
    size: u64,
}

/// Of these processes, as they were saved. None where the kernel gives none, or nobody can tell.
pub fn places(opened: &Opened, pids: &[i32]) -> Vec<Places> {
    let kernel = |name: &str| fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{name}"));
    let given = kernel("enabled").map_or(Given::Never, |text| Given::parse(&text));
    let Some(size) = kernel("hpage_pmd_size").ok().and_then(|text| text.trim().parse().ok()) else { return Vec::new() };
    if given == Given::Never {
        return Vec::new();
    }
    let of = |pid: i32| {
        let mm = images::mm(&opened.read(&format!("mm-{pid}.img"), LONGEST).ok()?).ok()?;
        Some(Places { pid, ranges: huge::places(&mm, given, size), size })
    };
    pids.iter().filter_map(|pid| of(*pid)).filter(|places| !places.ranges.is_empty()).collect()
}

/// Makes huge pages of what is worth it, one at a time, unless told to `stop`.
pub fn collapse(places: &[Places], stop: impl Fn() -> bool) {
    let (mut made, mut refused) = (0u64, 0);
    for places in places {
        // It may have ended.
        let Ok(process) = Process::open(places.pid) else { continue };
        let starts = places.ranges.iter().flat_map(|range| range.clone().step_by(step(places.size)));
        for start in starts {
            if stop() || refused == ENOUGH {
                tracing::debug!(made, refused, "no more huge pages are made");
                return;
            }
            match process.collapse(start, places.size) {
                Ok(true) => (made, refused) = (made + 1, 0),
                Ok(false) => {}
                Err(Errno::ESRCH) => break,
                // Not by this process, not by this kernel, or not for want of memory.
                Err(errno @ (Errno::EPERM | Errno::ENOSYS | Errno::ENOMEM)) => {
                    tracing::debug!(made, %errno, "huge pages are left to the kernel");
                    return;
                }
                Err(_) => refused += 1,
            }
        }
    }
    tracing::debug!(made, "huge pages were made");
}

/// Whether PID 1 has closed this process's standard input: it wants a save.
pub fn is_told_to_stop() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_err() || fds[0].any().unwrap_or(true)
}

fn step(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A process and its pages.
struct Process {
    handle: OwnedFd,
    pagemap: File,
}

impl Process {
    fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let handle = i32::try_from(handle).map_err(io::Error::other)?;
        if handle < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        let handle = unsafe { OwnedFd::from_raw_fd(handle) };
        Ok(Self { handle, pagemap: File::open(format!("/proc/{pid}/pagemap"))? })
    }

    /// Whether there is a huge page now; false where that is not worth it.
    fn collapse(&self, start: u64, size: u64) -> Result<bool, Errno> {
        let unknown = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        if !huge::is_worth_it(&self.pages(start, size).map_err(unknown)?) {
            return Ok(false);
        }
        let range = libc::iovec { iov_base: start as *mut libc::c_void, iov_len: step(size) };
        let (handle, flags) = (self.handle.as_raw_fd(), 0);
        // SAFETY: the range is one of another process, whose memory keeps its content.
        let done = unsafe { libc::syscall(libc::SYS_process_madvise, handle, &raw const range, 1, COLLAPSE, flags) };
        if done < 0 { Err(Errno::last()) } else { Ok(true) }
    }

    /// An entry for each page.
    fn pages(&self, start: u64, size: u64) -> io::Result<Vec<u64>> {
        const ENTRY: usize = size_of::<u64>();
        let first = start / super::PAGE;
        let mut bytes = vec![0; step(size / super::PAGE) * ENTRY];
        self.pagemap.read_exact_at(&mut bytes, first * ENTRY as u64)?;
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        Ok(entries.iter().map(|entry| u64::from_ne_bytes(*entry)).collect())
    }
}
