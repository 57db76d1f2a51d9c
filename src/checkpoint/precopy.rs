//! Reading the workload's memory while it runs, ahead of the dump, so that the frozen pass finds
//! most chunks known.
//!
//! Where an earlier save has told what it read, reading is what takes the time, and two threads do it, a stretch each at a
//! time. Where everything is new, compression takes far longer, and one thread keeps neighbours together in the packs.
//! Stretches end at fixed addresses, so that the next save cuts its chunks at the same places.

use crate::repository::save::{Save, SaveError, WarmStream};
use crate::workload::{memory, tree};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Chunks of average size in a stretch: what is cut at its end is one in so many.
const CHUNKS: u64 = 512;
/// Threads that read what is mostly known.
const READERS: usize = 2;
const PAGE: u64 = 4096;

/// Memory of one process that is read in order.
struct Stretch {
    pid: i32,
    ranges: Vec<Range<u64>>,
}

/// Sends the private memory of every process below `root` ahead. A process that ends or unmaps
/// meanwhile is no failure: this is a forecast, and the dump has the last word.
pub fn send_ahead(root: i32, save: &Save) -> Result<(), SaveError> {
    let long = CHUNKS * u64::from(save.chunking().average_pages) * PAGE;
    let mut stretches = VecDeque::new();
    for process in tree::below(root).unwrap_or_default() {
        let Ok(ranges) = memory::private_pages(process.pid) else { continue };
        let parts = divide(ranges, long);
        stretches.extend(parts.into_iter().map(|ranges| Stretch { pid: process.pid, ranges }));
    }
    let readers = if save.recalls() { READERS.min(stretches.len()) } else { 1 };
    let stretches = Mutex::new(stretches);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..readers).map(|_| scope.spawn(|| read_all(&stretches, save))).collect();
        let mine = read_all(&stretches, save);
        let joined =
            others.into_iter().map(|other| other.join().unwrap_or(Err(SaveError::Internal("a reader panicked"))));
        joined.fold(mine, Result::and)
    })
}

/// One reader's part.
fn read_all(stretches: &Mutex<VecDeque<Stretch>>, save: &Save) -> Result<(), SaveError> {
    loop {
        let (Stretch { pid, ranges }, mut stream) = {
            let mut stretches = stretches.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(next) = stretches.pop_front() else { return Ok(()) };
            // The order of the streams is that of the memory.
            (next, save.warm()?)
        };
        for range in ranges {
            read_range(pid, range, &mut stream)?;
        }
        stream.end()?;
    }
}

/// Reads straight into the save's own buffers.
fn read_range(pid: i32, mut range: Range<u64>, stream: &mut WarmStream) -> Result<(), SaveError> {
    while range.start < range.end {
        match memory::read(pid, range.clone(), stream.space()?) {
            Ok(count) if count > 0 => {
                stream.advance(count);
                range.start += count as u64;
            }
            // Unmapped, or gone: the rest of this range is not to be had.
            _ => break,
        }
    }
    Ok(())
}

/// Memory in stretches that end at multiples of `long`; what is not longer than that all together is one.
fn divide(ranges: Vec<Range<u64>>, long: u64) -> Vec<Vec<Range<u64>>> {
    if ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= long {
        return vec![ranges];
    }
    let mut parts: Vec<Vec<Range<u64>>> = Vec::new();
    let mut open = None;
    for mut range in ranges {
        while range.start < range.end {
            let number = range.start / long;
            let end = range.end.min((number + 1) * long);
            let piece = range.start..end;
            match parts.last_mut() {
                Some(part) if open == Some(number) => part.push(piece),
                _ => parts.push(vec![piece]),
            }
            open = Some(number);
            range.start = end;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends of ranges, to be compared.
    fn ends(parts: &[Vec<Range<u64>>]) -> Vec<Vec<(u64, u64)>> {
        parts.iter().map(|part| part.iter().map(|range| (range.start, range.end)).collect()).collect()
    }

    #[test]
    fn little_memory_is_one_stretch_and_much_is_divided_at_fixed_addresses() {
        assert_eq!(ends(&divide(vec![5..10, 300..310], 100)), [[(5, 10), (300, 310)]]);
        assert_eq!(
            ends(&divide(vec![5..10, 20..30, 90..210, 250..260, 700..710], 100)),
            [vec![(5, 10), (20, 30), (90, 100)], vec![(100, 200)], vec![(200, 210), (250, 260)], vec![(700, 710)]]
        );
        assert_eq!(ends(&divide(Vec::new(), 100)), [Vec::new()]);
    }
}
