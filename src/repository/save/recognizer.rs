//! Cuts a stream that is mostly what was read before (ahead, or in an earlier save): the next chunk is
//! expected, and recognized by its fingerprint, before anything else is tried.
//!
//! Where the expectation fails the chunker decides, as it does without one; a chunk that it cuts is
//! looked up by its fingerprint, and from there on the expectation holds again.

use super::recollection::{Remembered, Seen};
use crate::repository::block::PAGE;
use crate::repository::chunker::{Chunker, Span, is_zero};
use std::sync::Arc;

/// After so many failed expectations in a row only the chunker decides, until a chunk is found.
const PATIENCE: u32 = 4;

/// A piece of a stream. Lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Zeros.
    Zero(usize),
    /// A chunk whose name has to be computed.
    Unnamed(usize),
    /// A chunk that was read before.
    Known(Seen),
}

impl Piece {
    pub fn len(self) -> usize {
        match self {
            Self::Zero(length) | Self::Unnamed(length) => length,
            Self::Known(seen) => seen.length as usize,
        }
    }
}

impl From<Span> for Piece {
    fn from(span: Span) -> Self {
        match span {
            Span::Zero(length) => Self::Zero(length),
            Span::Data(length) => Self::Unnamed(length),
        }
    }
}

/// The expectation of one stream.
#[derive(Debug)]
pub(super) struct Recognizer {
    remembered: Arc<Remembered>,
    /// The place in the order of what is expected next.
    next: usize,
    failed: u32,
    spans: Vec<Span>,
}

impl Recognizer {
    pub fn new(remembered: Arc<Remembered>) -> Self {
        Self { remembered, next: 0, failed: 0, spans: Vec::new() }
    }

    /// As [`Chunker::cut`]: returns the bytes that are decided.
    pub fn cut(&mut self, chunker: &mut Chunker, data: &[u8], last: bool, pieces: &mut Vec<Piece>) -> usize {
        let mut start = 0;
        loop {
            let rest = &data[start..];
            match self.expect(chunker, rest) {
                Expectation::Met(seen) => {
                    pieces.push(Piece::Known(seen));
                    start += seen.length as usize;
                    continue;
                }
                Expectation::Open if !last => return start,
                Expectation::Open | Expectation::Failed => {}
            }
            self.spans.clear();
            let decided =
                if last { chunker.cut(rest, true, &mut self.spans) } else { chunker.cut_next(rest, &mut self.spans) };
            if decided == 0 {
                return start;
            }
            let mut at = start;
            for span in std::mem::take(&mut self.spans) {
                let piece = self.look_up(span, &data[at..at + span.len()]);
                at += span.len();
                push(pieces, piece);
            }
            start += decided;
        }
    }

    /// Whether the next chunk is the one that is expected.
    fn expect(&mut self, chunker: &Chunker, rest: &[u8]) -> Expectation {
        // Zeros are the chunker's: a run may be of any length.
        if self.failed >= PATIENCE || !chunker.is_between_chunks() || rest.get(..PAGE).is_none_or(is_zero) {
            return Expectation::Failed;
        }
        let Some(expected) = self.remembered.at(self.next) else { return Expectation::Failed };
        let Some(chunk) = rest.get(..expected.length as usize) else { return Expectation::Open };
        self.next += 1;
        if self.remembered.key.of(chunk) == Some(expected.fingerprint) {
            self.failed = 0;
            return Expectation::Met(*expected);
        }
        self.failed += 1;
        Expectation::Failed
    }

    /// A chunk that the chunker cut may be one that was read ahead, at another place.
    fn look_up(&mut self, span: Span, content: &[u8]) -> Piece {
        let fingerprint = match span {
            Span::Zero(_) => None,
            Span::Data(_) => self.remembered.key.of(content),
        };
        let Some(fingerprint) = fingerprint else { return span.into() };
        // What recurs is first looked for where it is expected.
        let here = self.remembered.at(self.next).filter(|seen| seen.fingerprint == fingerprint);
        let found = here.map(|seen| (self.next, seen)).or_else(|| self.remembered.find(&fingerprint));
        let Some((place, seen)) = found else { return span.into() };
        let seen = *seen;
        (self.next, self.failed) = (place + 1, 0);
        // Of pages of equal number and content. (The length is part of the fingerprint.)
        if seen.length as usize == content.len() { Piece::Known(seen) } else { span.into() }
    }
}

enum Expectation {
    /// It is.
    Met(Seen),
    /// Not enough is there to tell.
    Open,
    /// It is not, or there is none.
    Failed,
}

/// Zeros that follow zeros are one run.
fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (Some(Piece::Zero(before)), Piece::Zero(more)) => *before += more,
        _ => pieces.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recollection::Recollection;
    use super::*;
    use crate::repository::chunker::Chunking;
    use crate::repository::crypto::ChunkId;
    use proptest::prelude::*;

    const CHUNKING: Chunking = Chunking { min_pages: 2, average_pages: 4, max_pages: 8 };

    /// Pages by number: 0 is the zero page, every other number a page of its own.
    fn stream(pages: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; pages.len() * PAGE];
        for (page, number) in bytes.chunks_mut(PAGE).zip(pages) {
            if *number != 0 {
                blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(page);
            }
        }
        bytes
    }

    fn name(chunk: &[u8]) -> ChunkId {
        ChunkId(*blake3::hash(chunk).as_bytes())
    }

    fn remember(bytes: &[u8]) -> Option<Remembered> {
        let recollection = Recollection::new(1 << 20, None)?;
        let mut spans = Vec::new();
        Chunker::new(CHUNKING).cut(bytes, true, &mut spans);
        let mut at = 0;
        let mut seen = Vec::new();
        for span in spans {
            let content = &bytes[at..at + span.len()];
            at += span.len();
            if let (Span::Data(length), Some(fingerprint)) = (span, recollection.key().of(content)) {
                seen.push(Seen { fingerprint, id: name(content), length: u32::try_from(length).unwrap() });
            }
        }
        recollection.add(0, 0, &seen);
        Some(recollection.close())
    }

    /// Cuts in reads of this many bytes; checks that every piece is what it says, and returns them.
    fn recognize(remembered: Remembered, bytes: &[u8], read: usize) -> Vec<Piece> {
        let mut recognizer = Recognizer::new(Arc::new(remembered));
        let mut chunker = Chunker::new(CHUNKING);
        let mut pieces = Vec::new();
        let (mut start, mut end) = (0, 0);
        while end < bytes.len() {
            end = (end + read).min(bytes.len());
            start += recognizer.cut(&mut chunker, &bytes[start..end], false, &mut pieces);
            assert!(end - start <= chunker.max_carry() + PAGE, "carries {} bytes", end - start);
        }
        start += recognizer.cut(&mut chunker, &bytes[start..], true, &mut pieces);
        assert_eq!(start, bytes.len());
        let mut at = 0;
        for piece in &pieces {
            let content = &bytes[at..at + piece.len()];
            at += piece.len();
            match piece {
                Piece::Zero(_) => assert!(content.iter().all(|byte| *byte == 0)),
                Piece::Known(seen) => assert_eq!(seen.id, name(content)),
                Piece::Unnamed(length) => assert!(*length <= chunker.max_carry()),
            }
        }
        assert_eq!(at, bytes.len());
        pieces
    }

    fn unnamed(pieces: &[Piece]) -> usize {
        pieces.iter().filter(|piece| matches!(piece, Piece::Unnamed(_))).map(|piece| piece.len()).sum()
    }

    #[test]
    fn what_has_not_changed_is_recognized_whole() {
        let pages: Vec<u16> = (1..200).chain([0; 40]).chain(200..300).collect();
        let bytes = stream(&pages);
        for read in [1000, PAGE, 100_000, bytes.len()] {
            let Some(remembered) = remember(&bytes) else { return };
            assert_eq!(unnamed(&recognize(remembered, &bytes, read)), 0, "reads of {read}");
        }
    }

    #[test]
    fn a_changed_page_costs_its_chunk_and_one_that_comes_or_goes_little_more() {
        let pages: Vec<u16> = (1..300).collect();
        let most = 4 * CHUNKING.max_bytes();
        let mut changed = pages.clone();
        changed[150] = 5000;
        let mut longer = pages.clone();
        longer.splice(100..100, 6000..6003);
        let mut shorter = pages.clone();
        shorter.drain(40..45);
        let mut zeroed = pages.clone();
        zeroed[200..230].fill(0);
        for other in [changed, longer, shorter, zeroed] {
            let Some(remembered) = remember(&stream(&pages)) else { return };
            let bytes = stream(&other);
            let new = unnamed(&recognize(remembered, &bytes, 64 << 10));
            assert!(new <= most, "{new} bytes were not recognized");
        }
    }

    proptest! {
        #[test]
        fn any_stream_after_any_other_comes_out_whole(
            before in proptest::collection::vec(0u16..6, 0..80),
            after in proptest::collection::vec(0u16..6, 0..80),
            tail in 0usize..PAGE,
            read in 1usize..40_000,
        ) {
            let Some(remembered) = remember(&stream(&before)) else { return Ok(()) };
            let mut bytes = stream(&after);
            bytes.extend(vec![7; tail]);
            recognize(remembered, &bytes, read);
        }
    }
}
