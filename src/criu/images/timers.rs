//! Timers that ran out while their process was frozen.
//!
//! The kernel tells a periodic `timerfd` that has expired and was not read as "due in 0", and CRIU (4.2.1) hands
//! that back to the kernel, for which 0 means "off": after a freeze longer than its period, the timer would never
//! ring again. One nanosecond is as good as 0, and rings.

/// Field numbers of `file_entry` and `timerfd_entry` in CRIU's `fdinfo.proto` and `timerfd.proto`.
const TIMER: u64 = 12;
const SECONDS: u64 = 7;
const NANOSECONDS: u64 = 8;
const PERIOD_SECONDS: u64 = 9;
const PERIOD_NANOSECONDS: u64 = 10;

/// The image's kind, two words, before its entries; each entry follows its length.
const HEADER: usize = 8;

/// Sets every such timer of a `files.img` to ring at once; returns how many. The image keeps its length. What is not
/// understood is left as it is: CRIU judges it.
pub fn ring_overdue(image: &mut [u8]) -> usize {
    let mut changed = 0;
    let mut at = HEADER;
    while let Some(length) = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) {
        at += 4;
        let Some(end) = usize::try_from(length).ok().and_then(|length| at.checked_add(length)) else { break };
        let Some(entry) = image.get(at..end) else { break };
        let nanoseconds = find(entry, TIMER).and_then(|(from, to)| overdue(entry.get(from..to)?).map(|n| from + n));
        if let Some(byte) = nanoseconds.and_then(|offset| image.get_mut(at + offset)) {
            *byte = 1;
            changed += 1;
        }
        at = end;
    }
    changed
}

/// Where the nanoseconds of a timer are that is periodic and due in 0.
fn overdue(timer: &[u8]) -> Option<usize> {
    let number = |field| find(timer, field).and_then(|(from, _)| varint(timer, from)).map(|(value, _)| value);
    let periodic = number(PERIOD_SECONDS)? != 0 || number(PERIOD_NANOSECONDS)? != 0;
    let due = number(SECONDS)? == 0 && number(NANOSECONDS)? == 0;
    (periodic && due).then(|| find(timer, NANOSECONDS).map(|(from, _)| from)).flatten()
}

/// Where the value of a field is: the bytes of a message, or of a number.
fn find(message: &[u8], field: u64) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < message.len() {
        let (key, value) = varint(message, at)?;
        let end = match key & 7 {
            0 => (value, varint(message, value)?.1),
            1 => (value, value.checked_add(8)?),
            2 => {
                let (length, from) = varint(message, value)?;
                (from, from.checked_add(usize::try_from(length).ok()?)?)
            }
            5 => (value, value.checked_add(4)?),
            _ => return None,
        };
        if key >> 3 == field {
            return (end.1 <= message.len()).then_some(end);
        }
        at = end.1;
    }
    None
}

/// A number at a place, and where it ends.
fn varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `file_entry { type: TIMERFD, id: 7, tfd: { … due, period } }` between two other entries.
    fn image(due: [u8; 2], period: [u8; 2]) -> Vec<u8> {
        let timer =
            [8, 7, 16, 2, 26, 2, 8, 0, 32, 1, 40, 1, 48, 0, 56, due[0], 64, due[1], 72, period[0], 80, period[1]];
        let mut entry = vec![8, 17, 16, 7, 98, u8::try_from(timer.len()).unwrap()];
        entry.extend(timer);
        let mut image = vec![0; HEADER];
        for entry in [&[8, 1, 16, 1][..], &entry, &[8, 2, 16, 2]] {
            image.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
            image.extend(entry);
        }
        image
    }

    #[test]
    fn only_a_periodic_timer_that_is_due_is_set() {
        let mut overdue = image([0, 0], [0, 50]);
        assert_eq!(ring_overdue(&mut overdue), 1);
        assert_eq!(overdue, image([0, 1], [0, 50]));
        for mut other in [image([0, 9], [0, 50]), image([3, 0], [0, 50]), image([0, 0], [0, 0])] {
            let before = other.clone();
            assert_eq!(ring_overdue(&mut other), 0);
            assert_eq!(other, before);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ring_overdue(&mut bytes);
        }
    }
}
