//! Where a stream of pages is cut: on page boundaries chosen by the pages' content.
//!
//! A page whose hash falls under a threshold ends its chunk. So equal runs of pages are cut alike
//! wherever they appear in a stream, and pages that appear or vanish move no boundary beyond the
//! next one. Runs of zero pages are cut out: they cost an entry in the recipe, nothing else.

use super::block::PAGE;
pub use super::format::Chunking;
use xxhash_rust::xxh3::xxh3_64;

impl Default for Chunking {
    fn default() -> Self {
        Self::for_memory(0)
    }
}

impl Chunking {
    /// The largest chunk that any repository may ask for, in pages: 16 MiB.
    pub const LIMIT_PAGES: u32 = 4096;

    /// Sizes for a job of about this much memory. Small chunks store least after a small change (measured,
    /// new bytes for each dirtied byte: runs of 1 MiB 1.05 at 32 KiB and 1.1 at 64 KiB, runs of 256 KiB
    /// 1.2 and 1.4, single pages 7 and 13); larger ones keep the table of known chunks within its memory bound.
    pub fn for_memory(bytes: u64) -> Self {
        let average_pages = match bytes >> 30 {
            0..=31 => 8,
            32..=63 => 16,
            64..=127 => 32,
            128..=255 => 64,
            _ => 128,
        };
        Self { min_pages: average_pages / 4, average_pages, max_pages: average_pages * 4 }
    }

    /// With the average and the longest length that somebody wants, in bytes; rounded down to pages,
    /// and kept within what a repository may have.
    #[must_use]
    pub fn asked_for(self, average: Option<u64>, longest: Option<u64>) -> Self {
        let pages = |bytes: u64| u32::try_from(bytes / PAGE as u64).unwrap_or(u32::MAX).clamp(1, Self::LIMIT_PAGES);
        let average_pages = average.map_or(self.average_pages, pages);
        let max_pages = longest.map_or(average_pages.saturating_mul(4).min(Self::LIMIT_PAGES), pages);
        let average_pages = average_pages.min(max_pages);
        Self { min_pages: (average_pages / 4).max(1), average_pages, max_pages }
    }

    /// Bytes in the largest chunk.
    pub fn max_bytes(self) -> usize {
        self.max_pages as usize * PAGE
    }

    /// A run of at least this many zero pages is cut out of the data.
    fn zero_run(self) -> usize {
        2 * self.min_pages as usize
    }

    /// A page ends its chunk when its hash is below this: probability 1 / (average − min).
    fn threshold(self) -> u64 {
        u64::MAX / u64::from((self.average_pages - self.min_pages).max(1))
    }
}

/// A piece of a stream, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// A chunk of this many bytes.
    Data(usize),
    /// This many zero bytes.
    Zero(usize),
}

impl Span {
    /// Bytes of the stream that it covers.
    pub fn len(self) -> usize {
        match self {
            Self::Data(n) | Self::Zero(n) => n,
        }
    }

    /// Never: a span covers at least one byte.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Cuts one stream. Bytes are looked at once; what is not yet decided is handed back to be carried
/// in front of the next bytes, so that a chunk always lies in one piece.
#[derive(Debug, Clone)]
pub struct Chunker {
    chunking: Chunking,
    threshold: u64,
    /// Pages of the undecided tail that were looked at.
    seen: usize,
    /// Zero pages at its end.
    zeros: usize,
}

impl Chunker {
    /// A chunker at the start of a stream.
    pub fn new(chunking: Chunking) -> Self {
        Self { chunking, threshold: chunking.threshold(), seen: 0, zeros: 0 }
    }

    /// The most that [`Chunker::cut`] leaves undecided, in bytes, besides an incomplete page.
    pub fn max_carry(&self) -> usize {
        self.chunking.max_bytes()
    }

    /// Cuts `data`, which starts with what the last call left undecided. Appends spans and returns
    /// the bytes they cover; the rest must come again at the start of the next call. With `last`,
    /// everything is decided.
    pub fn cut(&mut self, data: &[u8], last: bool, spans: &mut Vec<Span>) -> usize {
        let mut start = 0;
        loop {
            let decided = self.cut_next(&data[start..], spans);
            start += decided;
            if decided == 0 {
                break;
            }
        }
        if last {
            if self.seen > 0 && self.seen == self.zeros && start + self.seen * PAGE == data.len() {
                start += self.take_zeros(spans);
            }
            if start < data.len() {
                spans.push(Span::Data(data.len() - start));
                start = data.len();
            }
            (self.seen, self.zeros) = (0, 0);
        }
        start
    }

    /// As [`Chunker::cut`] in the middle of a stream, but returns with the first decision: a chunk, a
    /// part of a run of zeros, or both.
    pub fn cut_next(&mut self, data: &[u8], spans: &mut Vec<Span>) -> usize {
        let mut position = self.seen * PAGE;
        while let Some(page) = data.get(position..position + PAGE) {
            position += PAGE;
            self.seen += 1;
            if is_zero(page) {
                self.zeros += 1;
                // A run that fills the whole tail grows until something else comes: its length costs nothing.
                if self.zeros == self.seen && self.zeros >= self.chunking.zero_run() {
                    return self.take_zeros(spans);
                }
                if self.zeros == self.chunking.zero_run() {
                    return self.take_data(self.seen - self.zeros, spans) + self.take_zeros(spans);
                }
                if self.seen == self.chunking.max_pages as usize {
                    return self.take_data(self.seen, spans);
                }
                continue;
            }
            self.zeros = 0;
            let full = self.seen == self.chunking.max_pages as usize;
            if full || (self.seen >= self.chunking.min_pages as usize && xxh3_64(page) < self.threshold) {
                return self.take_data(self.seen, spans);
            }
        }
        0
    }

    /// Whether everything that was looked at is decided.
    pub fn is_between_chunks(&self) -> bool {
        self.seen == 0
    }

    fn take_data(&mut self, pages: usize, spans: &mut Vec<Span>) -> usize {
        if pages > 0 {
            spans.push(Span::Data(pages * PAGE));
        }
        self.seen -= pages;
        self.zeros = self.zeros.min(self.seen);
        pages * PAGE
    }

    fn take_zeros(&mut self, spans: &mut Vec<Span>) -> usize {
        let bytes = self.zeros * PAGE;
        match spans.last_mut() {
            Some(Span::Zero(before)) => *before += bytes,
            _ => spans.push(Span::Zero(bytes)),
        }
        (self.seen, self.zeros) = (0, 0);
        bytes
    }
}

/// Whether a page holds only zeros. Gives up at the first 64 bytes that do not.
pub(super) fn is_zero(page: &[u8]) -> bool {
    page.chunks(64).all(|line| line.iter().fold(0u8, |all, &b| all | b) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pages by number: 0 is the zero page, every other number a page of its own.
    fn stream(pages: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &n in pages {
            let mut page = [0u8; PAGE];
            if n != 0 {
                let mut state = u64::from(n);
                for word in page.chunks_mut(8) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
                }
            }
            bytes.extend_from_slice(&page);
        }
        bytes
    }

    /// Cuts with reads of the given sizes, as a reader with a carry would.
    fn cut_in_reads(chunking: Chunking, bytes: &[u8], reads: &[usize]) -> Vec<Span> {
        let mut chunker = Chunker::new(chunking);
        let mut spans = Vec::new();
        let (mut start, mut end) = (0, 0);
        let mut reads = reads.iter().cycle();
        while end < bytes.len() {
            end = (end + reads.next().copied().unwrap_or(PAGE).max(1)).min(bytes.len());
            start += chunker.cut(&bytes[start..end], false, &mut spans);
            assert!(end - start < chunker.max_carry() + PAGE, "carries {} bytes", end - start);
        }
        start += chunker.cut(&bytes[start..], true, &mut spans);
        assert_eq!(start, bytes.len());
        merged(&spans)
    }

    /// Zero runs may be reported in pieces; joined they are one.
    fn merged(spans: &[Span]) -> Vec<Span> {
        let mut out: Vec<Span> = Vec::new();
        for &span in spans {
            match (out.last_mut(), span) {
                (Some(Span::Zero(before)), Span::Zero(more)) => *before += more,
                _ => out.push(span),
            }
        }
        out
    }

    fn chunks<'a>(bytes: &'a [u8], spans: &[Span]) -> Vec<&'a [u8]> {
        let mut at = 0;
        let mut out = Vec::new();
        for span in spans {
            if matches!(span, Span::Data(_)) {
                out.push(&bytes[at..at + span.len()]);
            } else {
                assert!(bytes[at..at + span.len()].iter().all(|&b| b == 0), "a zero span holds data");
            }
            at += span.len();
        }
        assert_eq!(at, bytes.len());
        out
    }

    #[test]
    fn lengths_that_are_asked_for_stay_usable() {
        let sizes = |average, longest| Chunking::default().asked_for(average, longest);
        assert_eq!(sizes(None, None), Chunking::default());
        assert_eq!(sizes(Some(64 << 10), None), Chunking { min_pages: 4, average_pages: 16, max_pages: 64 });
        assert_eq!(sizes(Some(64 << 10), Some(96 << 10)).max_pages, 24);
        for (average, longest) in [(0, 0), (1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), (1 << 20, 4096)] {
            assert!(sizes(Some(average), Some(longest)).is_usable(), "{average} {longest}");
        }
    }

    #[test]
    fn average_is_near_what_was_asked() {
        let chunking = Chunking::default();
        let bytes = stream(&(1..8001).collect::<Vec<_>>());
        let spans = cut_in_reads(chunking, &bytes, &[1 << 20]);
        assert!((8000 / 10..8000 / 6).contains(&spans.len()), "{} chunks of 8000 pages", spans.len());
    }

    #[test]
    fn sizes_for_every_job_are_usable() {
        for gib in [0, 1, 63, 64, 100, 200, 1024, 100_000] {
            assert!(Chunking::for_memory(gib << 30).is_usable(), "{gib} GiB");
        }
    }

    #[test]
    fn a_changed_run_of_pages_changes_little_else() {
        let pages: Vec<u16> = (1..4001).collect();
        let mut dirty = pages.clone();
        for (n, page) in dirty[1000..1256].iter_mut().enumerate() {
            *page = 10_000 + u16::try_from(n).unwrap();
        }
        let (before, after) = (stream(&pages), stream(&dirty));
        let known: std::collections::HashSet<_> =
            chunks(&before, &cut_in_reads(Chunking::default(), &before, &[1 << 20])).into_iter().collect();
        let spans = cut_in_reads(Chunking::default(), &after, &[1 << 20]);
        let new: usize = chunks(&after, &spans).iter().filter(|c| !known.contains(*c)).map(|c| c.len()).sum();
        assert!(new <= (256 + 2 * 64) * PAGE, "{} pages are new after 256 changed", new / PAGE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn boundaries_do_not_depend_on_read_sizes(
            pages in proptest::collection::vec(prop_oneof![Just(0u16), 1u16..500], 0..300),
            reads in proptest::collection::vec(1usize..200_000, 1..20),
            tail in 0usize..PAGE,
        ) {
            let mut bytes = stream(&pages);
            bytes.extend(std::iter::repeat_n(7, tail));
            let whole = cut_in_reads(Chunking::default(), &bytes, &[bytes.len().max(1)]);
            prop_assert_eq!(cut_in_reads(Chunking::default(), &bytes, &reads), whole.clone());
            for chunk in chunks(&bytes, &whole) {
                prop_assert!(chunk.len() <= Chunking::default().max_bytes() + PAGE);
            }
        }

        #[test]
        fn resynchronizes_after_pages_come_and_go(
            zero in any::<bool>(), insert in 0usize..500, count in 1usize..20, remove in 0usize..900,
        ) {
            let pages: Vec<u16> = (1..2001).collect();
            let mut changed = pages.clone();
            changed.drain(remove..remove + count);
            changed.splice(insert..insert, (0..count).map(|n| if zero { 0 } else { 20_000 + u16::try_from(n).unwrap() }));
            let (before, after) = (stream(&pages), stream(&changed));
            let first = cut_in_reads(Chunking::default(), &before, &[1 << 20]);
            let second = cut_in_reads(Chunking::default(), &after, &[1 << 20]);
            let known: std::collections::HashSet<_> = chunks(&before, &first).into_iter().collect();
            // Everything well behind the last change is found again.
            let mut at = 0;
            for chunk in chunks(&after, &second) {
                if at > (1000 + 20 + 4 * 64) * PAGE {
                    prop_assert!(known.contains(chunk), "page {} is cut differently", at / PAGE);
                }
                at += chunk.len();
            }
        }
    }
}
