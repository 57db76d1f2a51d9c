//! Small pages into huge ones, when all memory has arrived and until a save is asked for.
//!
//! `process_madvise(2)` with `MADV_COLLAPSE` (Linux 6.1) needs the capability `SYS_NICE` for another process. Without it,
//! and where it is refused, the kernel's khugepaged does the same in its own time: nobody is told.
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
/// Huge pages that are asked for at once. Each call has the kernel wait for all cores for a moment; a save waits for one call.
const TOGETHER: u64 = 16;
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

/// Makes huge pages of what is worth it, some at a time, unless told to `stop`.
pub fn collapse(places: &[Places], stop: impl Fn() -> bool) {
    let mut refused = 0;
    for places in places {
        // It may have ended.
        let Ok(process) = Process::open(places) else { continue };
        let parts = places.ranges.iter().flat_map(|range| {
            let starts = range.clone().step_by(narrow(TOGETHER * places.size));
            starts.map(|start| start..range.end.min(start + TOGETHER * places.size))
        });
        for part in parts {
            if stop() || refused == ENOUGH {
                tracing::debug!(refused, "no more huge pages are made");
                return;
            }
            match process.collapse(part) {
                Ok(()) => refused = 0,
                Err(Errno::ESRCH) => break,
                // Not by this process, not by this kernel; or not for want of memory, of the machine or (EBUSY) of the
                // container: each attempt would make it give up more of its cache.
                Err(errno @ (Errno::EPERM | Errno::ENOSYS | Errno::ENOMEM | Errno::EBUSY)) => {
                    tracing::debug!(%errno, "huge pages are left to the kernel");
                    return;
                }
                Err(_) => refused += 1,
            }
        }
    }
    tracing::debug!("huge pages were made");
}

/// Whether PID 1 has closed this process's standard input: it wants a save.
pub fn is_told_to_stop() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_err() || fds[0].any().unwrap_or(true)
}

fn narrow(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A process and its pages.
struct Process {
    handle: OwnedFd,
    pagemap: File,
    /// Bytes of a huge page.
    size: u64,
}

impl Process {
    fn open(places: &Places) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, places.pid, 0) };
        let handle = i32::try_from(handle).map_err(io::Error::other)?;
        if handle < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        let handle = unsafe { OwnedFd::from_raw_fd(handle) };
        Ok(Self { handle, pagemap: File::open(format!("/proc/{}/pagemap", places.pid))?, size: places.size })
    }

    /// What is worth it of these addresses.
    fn collapse(&self, part: Range<u64>) -> Result<(), Errno> {
        let unknown = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let pages = self.pages(&part).map_err(unknown)?;
        let mut result = Ok(());
        for run in huge::runs(&pages, narrow(self.size / super::PAGE)) {
            let place = |number: u64| part.start + number * self.size;
            result = match self.ask(place(run.start)..place(run.end)) {
                // The kernel may have ended at one that it does not want to make.
                Err(Errno::EAGAIN | Errno::EINVAL) if run.end - run.start > 1 => {
                    run.map(|number| self.ask(place(number)..place(number + 1))).fold(Err(Errno::EAGAIN), Result::or)
                }
                result => result,
            };
        }
        result
    }

    fn ask(&self, range: Range<u64>) -> Result<(), Errno> {
        let length = narrow(range.end - range.start);
        let range = libc::iovec { iov_base: range.start as *mut libc::c_void, iov_len: length };
        let (handle, flags) = (self.handle.as_raw_fd(), 0);
        // SAFETY: the range is one of another process, whose memory keeps its content.
        let done = unsafe { libc::syscall(libc::SYS_process_madvise, handle, &raw const range, 1, COLLAPSE, flags) };
        if done < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    /// An entry for each page.
    fn pages(&self, part: &Range<u64>) -> io::Result<Vec<u64>> {
        const ENTRY: usize = size_of::<u64>();
        let (first, count) = (part.start / super::PAGE, (part.end - part.start) / super::PAGE);
        let mut bytes = vec![0; narrow(count) * ENTRY];
        self.pagemap.read_exact_at(&mut bytes, first * ENTRY as u64)?;
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        Ok(entries.iter().map(|entry| u64::from_ne_bytes(*entry)).collect())
    }
}
