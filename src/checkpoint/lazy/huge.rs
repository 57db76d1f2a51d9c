//! Which memory gets huge pages again: where the process would have got them, and every page of one is there. Pure.
//!
//! What is put in place through a userfaultfd is small pages, one by one. A huge page takes no more memory than they do, so
//! where some are missing, shared or nothing but zeros, that is left to the kernel's own time.

use crate::criu::images::{Mm, Vma};
use std::ops::Range;

/// `MADV_HUGEPAGE` and `MADV_NOHUGEPAGE`.
const WANTED: u64 = 1 << 14;
const UNWANTED: u64 = 1 << 15;

/// `MAP_PRIVATE` and `MAP_ANONYMOUS`.
const PRIVATE: u32 = 0x02 | 0x20;

/// Bits of `/proc/PID/pagemap`: there; nobody else has it; of a file, or shared memory.
const PRESENT: u64 = 1 << 63;
const EXCLUSIVE: u64 = 1 << 56;
const OF_FILE: u64 = 1 << 61;

/// To whom the kernel gives huge pages (`/sys/kernel/mm/transparent_hugepage/enabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// To all who have not refused.
    Always,
    /// To those who have asked.
    Asked,
    /// To nobody.
    Never,
}

impl Given {
    /// As the kernel says it: the one in brackets.
    pub fn parse(text: &str) -> Self {
        match text.split_whitespace().find(|word| word.starts_with('[')) {
            Some("[always]") => Self::Always,
            Some("[madvise]") => Self::Asked,
            _ => Self::Never,
        }
    }

    fn has(self, vma: &Vma) -> bool {
        match self {
            Self::Always => vma.advice & UNWANTED == 0,
            Self::Asked => vma.advice & WANTED != 0,
            Self::Never => false,
        }
    }
}

/// Where a process may have huge pages of this size, in bytes. From the first place where one fits to the end of the last one.
pub fn places(mm: &Mm, given: Given, size: u64) -> Vec<Range<u64>> {
    let may = mm.vmas.iter().filter(|vma| vma.flags & PRIVATE == PRIVATE && given.has(vma));
    may.filter_map(|vma| {
        let (start, end) = (vma.start.checked_next_multiple_of(size)?, vma.end / size * size);
        (start < end).then_some(start..end)
    })
    .collect()
}

/// Which huge pages are to be made of these pages (`/proc/PID/pagemap`), `each` of which become one: runs of them, by number.
pub fn runs(pages: &[u64], each: usize) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (number, _) in (0..).zip(pages.chunks_exact(each)).filter(|(_, pages)| is_worth_it(pages)) {
        match runs.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// Whether one huge page for all of these takes no more memory than they do, nearly.
fn is_worth_it(pages: &[u64]) -> bool {
    let own = pages.iter().filter(|page| *page & EXCLUSIVE != 0).count();
    // Pages of zeros take no memory and are nobody's own; neither are those that a fork has shared.
    own > pages.len() / 2 && pages.iter().all(|page| page & PRESENT != 0 && page & OF_FILE == 0)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // Some lists of ranges have one.
mod tests {
    use super::*;

    const SIZE: u64 = 2 << 20;

    fn vma(range: Range<u64>, flags: u32, advice: u64) -> Vma {
        Vma { start: range.start, end: range.end, flags, advice, ..Vma::default() }
    }

    #[test]
    fn only_whole_huge_pages_of_private_memory_that_may_have_them() {
        let mm = Mm {
            vmas: vec![
                vma(SIZE - 4096..4 * SIZE + 4096, PRIVATE, WANTED),
                vma(5 * SIZE..7 * SIZE, PRIVATE, 0),
                vma(7 * SIZE..9 * SIZE, PRIVATE, UNWANTED),
                vma(10 * SIZE + 4096..12 * SIZE - 4096, PRIVATE, WANTED),
                vma(13 * SIZE..14 * SIZE, 0x01 | 0x20, WANTED),
                vma(15 * SIZE..16 * SIZE, 0x02, WANTED),
                vma(u64::MAX - 4095..u64::MAX, PRIVATE, WANTED),
            ],
            ..Mm::default()
        };
        assert_eq!(places(&mm, Given::Asked, SIZE), [SIZE..4 * SIZE]);
        assert_eq!(places(&mm, Given::Always, SIZE), [SIZE..4 * SIZE, 5 * SIZE..7 * SIZE]);
        assert_eq!(places(&mm, Given::Never, SIZE), []);
    }

    #[test]
    fn the_kernels_word_is_the_one_in_brackets() {
        assert_eq!(Given::parse("always [madvise] never\n"), Given::Asked);
        assert_eq!(Given::parse("[always] madvise never\n"), Given::Always);
        assert_eq!(Given::parse("always madvise [never]\n"), Given::Never);
        assert_eq!(Given::parse(""), Given::Never);
    }

    #[test]
    fn what_is_dropped_shared_or_mostly_zeros_stays_as_it_is() {
        let own = PRESENT | EXCLUSIVE;
        assert!(is_worth_it(&[own; 512]));
        // Zeros among them.
        assert!(is_worth_it(&[[own; 300].as_slice(), &[PRESENT; 212]].concat()));
        assert!(!is_worth_it(&[[own; 256].as_slice(), &[PRESENT; 256]].concat()));
        assert!(!is_worth_it(&[PRESENT; 512]), "shared by a fork, or all zeros");
        assert!(!is_worth_it(&[[own; 511].as_slice(), &[0]].concat()), "a page was given back");
        assert!(!is_worth_it(&[[own; 511].as_slice(), &[own | OF_FILE]].concat()));
        assert!(!is_worth_it(&[]));
    }

    #[test]
    fn those_that_lie_side_by_side_are_made_together() {
        let (own, zero) = ([PRESENT | EXCLUSIVE; 4], [PRESENT; 4]);
        let pages = [own, own, zero, own, zero, zero, own, own].concat();
        assert_eq!(runs(&pages, 4), [0..2, 3..4, 6..8]);
        // A rest is none.
        assert_eq!(runs(&pages[..30], 4), [0..2, 3..4, 6..7]);
        assert_eq!(runs(&[], 4), []);
    }
}
