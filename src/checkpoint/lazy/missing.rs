//! Which pages of one address space have not arrived, and where in the image each lies. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// Pages that are still to be brought. Both addresses and offsets are in bytes, on page boundaries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// First address → length, and offset of the first byte in the image.
    runs: BTreeMap<u64, (u64, u64)>,
    bytes: u64,
}

/// Consecutive pages that lie side by side in the image too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Where they begin in the image.
    pub offset: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.address + self.length
    }

    /// Whether the other one is a part of it, in memory and in the image.
    pub fn holds(&self, other: &Self) -> bool {
        other.address >= self.address
            && other.end() <= self.end()
            && other.offset.checked_sub(self.offset) == Some(other.address - self.address)
    }

    /// Behind its last byte in the image.
    pub fn image_end(&self) -> u64 {
        self.offset + self.length
    }
}

impl Missing {
    /// Adds pages that are in no run yet; joins them with what lies directly before them.
    pub fn add(&mut self, piece: Piece) {
        if piece.length == 0 {
            return;
        }
        self.bytes += piece.length;
        if let Some((&start, (length, offset))) = self.runs.range_mut(..piece.address).next_back()
            && start + *length == piece.address
            && *offset + *length == piece.offset
        {
            *length += piece.length;
            return;
        }
        self.runs.insert(piece.address, (piece.length, piece.offset));
    }

    /// How much is missing, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether everything is there.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What is missing of these addresses.
    pub fn within(&self, range: Range<u64>) -> Vec<Piece> {
        self.from(range.start).take_while(|piece| piece.address < range.end).map(|piece| cut(piece, &range)).collect()
    }

    /// The run that holds this address.
    pub fn around(&self, address: u64) -> Option<Piece> {
        self.from(address).next().filter(|piece| piece.address <= address)
    }

    /// What comes next from an address on, as much as lies within `span` bytes of the image.
    pub fn batch(&self, from: u64, span: u64) -> Vec<Piece> {
        let mut batch: Vec<Piece> = Vec::new();
        for piece in self.from(from) {
            let piece = cut(piece, &(from..u64::MAX));
            let begin = batch.first().map_or(piece.offset, |first| first.offset);
            let expected = batch.last().map_or(piece.offset, Piece::image_end);
            if piece.offset < expected || piece.offset >= begin + span {
                break;
            }
            let length = piece.length.min(begin + span - piece.offset);
            batch.push(Piece { length, ..piece });
            if length < piece.length {
                break;
            }
        }
        batch
    }

    /// The addresses of what is missing of these parts of the image, which are in order.
    pub fn addresses(&self, parts: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut addresses = Vec::new();
        for piece in self.from(0) {
            let first = parts.partition_point(|part| part.end <= piece.offset);
            for part in parts[first..].iter().take_while(|part| part.start < piece.image_end()) {
                let (start, end) = (part.start.max(piece.offset), part.end.min(piece.image_end()));
                let at = |offset: u64| piece.address + (offset - piece.offset);
                addresses.push(at(start)..at(end));
            }
        }
        addresses
    }

    /// They are there, or nobody will ever ask for them.
    pub fn remove(&mut self, range: Range<u64>) {
        for piece in self.within(range) {
            self.cut_out(piece);
        }
    }

    /// Pages have moved to another address; what was expected there is not any more.
    pub fn moved(&mut self, from: u64, to: u64, length: u64) {
        let pieces = self.within(from..from.saturating_add(length));
        self.remove(from..from.saturating_add(length));
        self.remove(to..to.saturating_add(length));
        for piece in pieces {
            self.add(Piece { address: piece.address - from + to, ..piece });
        }
    }

    fn cut_out(&mut self, piece: Piece) {
        let Some(whole) = self.around(piece.address) else { return };
        self.runs.remove(&whole.address);
        self.bytes -= piece.length;
        if whole.address < piece.address {
            self.runs.insert(whole.address, (piece.address - whole.address, whole.offset));
        }
        if piece.end() < whole.end() {
            self.runs.insert(piece.end(), (whole.end() - piece.end(), piece.image_end()));
        }
    }

    /// Runs that end behind an address, in order.
    fn from(&self, address: u64) -> impl Iterator<Item = Piece> {
        let whole = |(&address, &(length, offset)): (&u64, &(u64, u64))| Piece { address, length, offset };
        let before = self.runs.range(..address).next_back().map(whole).filter(|piece| piece.end() > address);
        before.into_iter().chain(self.runs.range(address..).map(whole))
    }
}

/// The part of a piece that lies in these addresses.
fn cut(piece: Piece, range: &Range<u64>) -> Piece {
    let start = piece.address.max(range.start);
    let end = piece.end().min(range.end);
    Piece { address: start, length: end - start, offset: piece.offset + (start - piece.address) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn piece(address: u64, length: u64, offset: u64) -> Piece {
        Piece { address, length, offset }
    }

    #[test]
    fn neighbours_in_memory_and_image_are_one_run() {
        let mut missing = Missing::default();
        missing.add(piece(100, 50, 1000));
        missing.add(piece(150, 50, 1050));
        missing.add(piece(200, 50, 5000));
        assert_eq!(missing.within(0..u64::MAX), [piece(100, 100, 1000), piece(200, 50, 5000)]);
        assert_eq!((missing.bytes(), missing.around(199)), (150, Some(piece(100, 100, 1000))));
        assert_eq!(missing.around(250), None);
    }

    #[test]
    fn a_batch_spans_gaps_of_the_image_but_no_more_than_it_may() {
        let mut missing = Missing::default();
        for start in [piece(0, 10, 0), piece(20, 10, 12), piece(40, 100, 24), piece(300, 10, 500)] {
            missing.add(start);
        }
        assert_eq!(missing.batch(0, 40), [piece(0, 10, 0), piece(20, 10, 12), piece(40, 16, 24)]);
        assert_eq!(missing.batch(56, 1000), [piece(56, 84, 40), piece(300, 10, 500)]);
        assert_eq!(missing.batch(310, 40), []);
        // What was moved may lie before its neighbours in the image.
        missing.moved(300, 0, 10);
        assert_eq!(missing.batch(0, 40), [piece(0, 10, 500)]);
    }

    #[test]
    fn parts_of_the_image_are_found_where_they_are_missing() {
        let mut missing = Missing::default();
        for start in [piece(0, 10, 100), piece(20, 10, 110), piece(40, 10, 130)] {
            missing.add(start);
        }
        assert_eq!(missing.addresses(&[95..103, 108..112, 120..131]), [0..3, 8..10, 20..22, 40..41]);
        assert_eq!(missing.addresses(&[]), []);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Remove(u64, u64),
        Move(u64, u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u64..60, 0u64..20).prop_map(|(start, length)| Step::Remove(start, length)),
            (0u64..30, 30u64..60, 0u64..20).prop_map(|(from, to, length)| Step::Move(from, to, length)),
            (40u64..60, 0u64..20, 0u64..20).prop_map(|(from, to, length)| Step::Move(from, to, length)),
        ];
        proptest::collection::vec(step, 0..20)
    }

    proptest! {
        /// Each address on its own, in a plain table, says the same.
        #[test]
        fn is_what_a_table_of_single_addresses_is(steps in steps()) {
            let (mut missing, mut table) = (Missing::default(), BTreeMap::new());
            for start in [0u64, 10, 25, 40] {
                missing.add(piece(start, 10, start * 100));
                table.extend((0..10).map(|n| (start + n, start * 100 + n)));
            }
            for step in steps {
                match step {
                    Step::Remove(start, length) => {
                        missing.remove(start..start + length);
                        table.retain(|address, _| !(start..start + length).contains(address));
                    }
                    Step::Move(from, to, length) => {
                        missing.moved(from, to, length);
                        let there: Vec<_> = table.range(from..from + length).map(|(a, o)| (a - from + to, *o)).collect();
                        table.retain(|a, _| !(from..from + length).contains(a) && !(to..to + length).contains(a));
                        table.extend(there);
                    }
                }
            }
            let flat: BTreeMap<u64, u64> = missing
                .within(0..u64::MAX)
                .into_iter()
                .flat_map(|piece| (0..piece.length).map(move |n| (piece.address + n, piece.offset + n)))
                .collect();
            prop_assert_eq!(missing.bytes(), table.len() as u64);
            prop_assert_eq!(flat, table);
        }
    }
}
