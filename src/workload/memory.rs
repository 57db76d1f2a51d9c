//! The private memory of a running process: which pages hold data, and reading them without
//! stopping it. Used to send memory ahead of a save.
#![allow(unsafe_code)] // One ioctl that no crate wraps, on a struct of plain integers.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// `struct pm_scan_arg` of `linux/fs.h` (kernel 6.7 and later).
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of `linux/fs.h`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// One past the last address of user space with four-level page tables.
const USER_SPACE_END: u64 = 0x7fff_ffff_f000;

#[allow(missing_docs)] // The macro writes a public function without one.
mod ioctl {
    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, super::ScanArg);
}

/// The pages of a process that hold data of their own: private, present or swapped out, and not
/// the shared zero page. These are the pages that a dump writes into the process's page image, in
/// the same order.
pub fn private_pages(pid: i32) -> io::Result<Vec<Range<u64>>> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut regions = vec![PageRegion::default(); 1024];
    let mut start = 0;
    while start < USER_SPACE_END {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start,
            end: USER_SPACE_END,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..ScanArg::default()
        };
        // SAFETY: `arg` is a valid pm_scan_arg that says its own size; `vec` and `vec_len` describe
        // `regions`, which outlives the call.
        let count = unsafe { ioctl::pagemap_scan(pagemap.as_raw_fd(), &raw mut arg) }?;
        let count = usize::try_from(count).unwrap_or(0);
        for region in regions.iter().take(count) {
            match found.last_mut() {
                Some(last) if last.end == region.start => last.end = region.end,
                _ => found.push(region.start..region.end),
            }
        }
        if arg.walk_end <= start {
            break;
        }
        start = arg.walk_end;
    }
    Ok(found)
}

/// Reads memory of another process, as much of `range` as fits into `buffer`. Returns how many
/// bytes could be read; fewer when the process has unmapped the rest meanwhile.
pub fn read(pid: i32, range: Range<u64>, buffer: &mut [u8]) -> io::Result<usize> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(buffer.len());
    let base = usize::try_from(range.start).map_err(io::Error::other)?;
    let mut local = [IoSliceMut::new(&mut buffer[..len])];
    Ok(process_vm_readv(Pid::from_raw(pid), &mut local, &[RemoteIoVec { base, len }])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_and_reads_its_own_pages_but_not_untouched_ones() {
        const PAGE: usize = 4096;
        let mut area = nix_area(16 * PAGE);
        let base = area.as_ptr() as u64;
        for page in [2usize, 3, 7] {
            area[page * PAGE] = u8::try_from(page).unwrap();
        }
        let pid = i32::try_from(std::process::id()).unwrap();
        let end = base + (16 * PAGE) as u64;
        let inside: Vec<_> = private_pages(pid)
            .unwrap()
            .into_iter()
            .map(|r| r.start.max(base)..r.end.min(end))
            .filter(|r| r.start < r.end)
            .map(|r| (r.start - base) / 4096..(r.end - base) / 4096)
            .collect();
        assert_eq!(inside, [2..4, 7..8]);
        let mut page = vec![0; PAGE];
        assert_eq!(read(pid, base + 7 * 4096..base + 8 * 4096, &mut page).unwrap(), PAGE);
        assert_eq!(page[0], 7);
    }

    /// An anonymous mapping of its own, never touched, without huge pages.
    fn nix_area(len: usize) -> memmap2::MmapMut {
        let area = memmap2::MmapOptions::new().len(len).map_anon().unwrap();
        area.advise(memmap2::Advice::NoHugePage).unwrap();
        area
    }
}
