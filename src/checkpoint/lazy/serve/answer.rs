//! Bringing pages: the one that somebody waits for, with its neighbours; or a batch that nobody waits for yet.

use super::Service;
use super::order::{Batch, Next};
use crate::checkpoint::lazy::PAGE;
use crate::checkpoint::lazy::missing::Piece;
use crate::checkpoint::lazy::space::{Awaited, Put, Space};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a fault brings with it: a chunk or two from a directory; from a server, where a request costs more than bytes, more.
const NEIGHBOURS: u64 = 64 << 10;
const NEIGHBOURS_FAR: u64 = 512 << 10;
/// While a process changes its memory, nothing can be put there: mostly for microseconds.
const CHANGING: Duration = Duration::from_micros(50);
/// A fault in memory that changes for so long is told anew.
const TOLD_ANEW: u32 = 2000;

impl Service {
    pub(super) fn answer(&self, space: &Space, page: u64, buffer: &mut Vec<u8>) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let window = if self.opened.is_local() { NEIGHBOURS } else { NEIGHBOURS_FAR };
        for attempt in 0.. {
            let put = match space.awaited(page) {
                Awaited::Answered(put @ (Put::Done(_) | Put::Gone)) => return self.count(put),
                Awaited::Answered(put) => put,
                Awaited::Page(run) => {
                    if let Some(pid) = space.pid.filter(|_| attempt == 0) {
                        self.recorder.waited(pid, page);
                    }
                    let piece = around(run, page, window);
                    if self.load(&space.image, piece.offset, piece.length, buffer, false).is_none() {
                        return;
                    }
                    space.put(piece, buffer)
                }
            };
            self.count(put);
            if matches!(put, Put::Changing | Put::NoMemory) {
                if attempt > TOLD_ANEW {
                    return space.wake(page);
                }
                std::thread::sleep(CHANGING);
            }
            if self.state().over.is_some() {
                return;
            }
        }
    }

    pub(super) fn bring(&self, batch: &Batch, buffer: &mut Vec<u8>) {
        let Batch { space, pieces, next, .. } = batch;
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return };
        if self
            .load(&space.image, first.offset, last.image_end() - first.offset, buffer, *next == Next::Behind)
            .is_none()
        {
            return;
        }
        for piece in pieces.iter() {
            let narrow = |offset: u64| usize::try_from(offset - first.offset).unwrap_or(usize::MAX);
            let bytes = buffer.get(narrow(piece.offset)..narrow(piece.image_end())).unwrap_or_default();
            let put = space.put(*piece, bytes);
            self.count(put);
            if put == Put::Gone {
                return;
            }
        }
    }
}

/// The part of a run that is brought for one of its pages.
fn around(run: Piece, page: u64, window: u64) -> Piece {
    let at = run.offset + (page - run.address);
    let start = (at / window * window).max(run.offset);
    let end = (at / window * window + window).min(run.image_end()).max(at + PAGE);
    Piece { address: run.address + (start - run.offset), length: end - start, offset: start }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_brings_its_neighbours_of_the_same_run() {
        let run = Piece { address: 0x10_0000, length: 0x20_0000, offset: 0x3000 };
        let near = around(run, 0x10_0000, 0x10000);
        assert_eq!(near, Piece { address: 0x10_0000, length: 0xd000, offset: 0x3000 });
        let inside = around(run, 0x10_e000, 0x10000);
        assert_eq!(inside, Piece { address: 0x10_d000, length: 0x10000, offset: 0x10000 });
        let last = around(run, 0x2f_f000, 0x10000);
        assert_eq!(last, Piece { address: 0x2f_d000, length: 0x3000, offset: 0x20_0000 });
    }
}
