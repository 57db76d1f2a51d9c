//! `prlimit64` about a process of another user, answered from `/proc/PID/limits`.
//!
//! Without `CAP_SYS_RESOURCE`, which clusters seldom grant, the kernel answers it with EPERM, also to root, though that
//! file says the same to everybody.

use crate::system_call::{call, number};

const EPERM: isize = -1;
/// `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;
/// Longer than any `/proc/PID/limits`.
const FILE_BYTES: usize = 4096;
/// Where the values of a line begin (`fs/proc/base.c`).
const VALUES_AT: usize = 26;

/// In the order of `RLIMIT_…` (`include/uapi/asm-generic/resource.h`), as the file names them.
const NAMES: [&[u8]; 16] = [
    b"Max cpu time",
    b"Max file size",
    b"Max data size",
    b"Max stack size",
    b"Max core file size",
    b"Max resident set",
    b"Max processes",
    b"Max open files",
    b"Max locked memory",
    b"Max address space",
    b"Max file locks",
    b"Max pending signals",
    b"Max msgqueue size",
    b"Max nice priority",
    b"Max realtime priority",
    b"Max realtime timeout",
];

/// `prlimit64(pid, resource, new, old)`, which the kernel has answered.
pub unsafe fn answer(arguments: [usize; 6], result: isize) -> isize {
    let [pid, resource, new, old, ..] = arguments;
    // Only a question (no new limits) about another process.
    if result == EPERM
        && new == 0
        && old != 0
        && let Some(limits) = unsafe { from_proc(pid, resource) }
    {
        unsafe { *(old as *mut [u64; 2]) = limits };
        return 0;
    }
    result
}

unsafe fn from_proc(pid: usize, resource: usize) -> Option<[u64; 2]> {
    const READ_ONLY_CLOSE_ON_EXEC: usize = 0o2_000_000;
    const AT_FDCWD: usize = -100_isize as usize;
    let name = NAMES.get(resource)?;
    let mut path = [0_u8; 40];
    let mut at = 0;
    let mut put = |byte: u8| {
        if let Some(place) = path.get_mut(at) {
            *place = byte;
            at += 1;
        }
    };
    b"/proc/".iter().for_each(|byte| put(*byte));
    let mut unit = 1_000_000_000;
    while unit > 1 && pid / unit == 0 {
        unit /= 10;
    }
    while unit > 0 {
        put(b'0' + (pid / unit % 10) as u8);
        unit /= 10;
    }
    b"/limits\0".iter().for_each(|byte| put(*byte));
    let mut text = [0_u8; FILE_BYTES];
    let read = unsafe {
        let file = call(number::OPENAT, [AT_FDCWD, path.as_ptr() as usize, READ_ONLY_CLOSE_ON_EXEC, 0, 0, 0]);
        let file = usize::try_from(file).ok()?;
        let read = call(number::READ, [file, text.as_mut_ptr() as usize, text.len(), 0, 0, 0]);
        call(number::CLOSE, [file, 0, 0, 0, 0, 0]);
        usize::try_from(read).ok()?
    };
    let mut lines = text.get(..read)?.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.starts_with(name))?;
    let mut values = line.get(VALUES_AT..)?.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    Some([value(values.next()?)?, value(values.next()?)?])
}

fn value(word: &[u8]) -> Option<u64> {
    if word.first() == Some(&b'u') {
        return Some(UNLIMITED);
    }
    let mut number = 0_u64;
    for byte in word {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}
