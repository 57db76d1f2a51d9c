//! The instruction that CRIU puts into a process, and that must not be saved as the process's own.
//!
//! CRIU makes a stopped process do a system call by writing one over the beginning of its first executable mapping, and
//! puts back what was there. It does so once more when it takes its code out of the process again, after its pages were
//! dumped. But a dump by streaming splices: the pages lie in the pipe as references until they are read. Whoever
//! reads that page in the moment of the last call reads CRIU's instruction.
//!
//! Seen with CRIU 4.2.1 in 4 of about 40 dumps of four processes while other programs kept both cores busy. Where the
//! mapping is the vDSO the checkpoint cannot be restored (`vdso: Invalid ELF magic`); where it is the program's own code,
//! nothing would tell. So a page that begins like this is compared with the process itself, which is still stopped, until CRIU
//! has put back what belongs there.

use crate::workload::{memory, tree};
use std::ops::Range;
use std::time::{Duration, Instant};

/// A system call and a trap, as CRIU writes them over a process's code.
#[cfg(target_arch = "x86_64")]
pub const INSTRUCTION: [u8; 8] = [0x0f, 0x05, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc];
/// A system call and a trap, as CRIU writes them over a process's code.
#[cfg(target_arch = "aarch64")]
pub const INSTRUCTION: [u8; 8] = [0x01, 0x00, 0x00, 0xd4, 0x00, 0x00, 0x20, 0xd4];

/// How long CRIU may take for one system call. What is there for longer is the process's own.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(1);

const PAGE: usize = 4096;

/// What belongs at the beginning of a page.
#[derive(Debug, PartialEq, Eq)]
enum Original {
    /// This.
    Is([u8; 8]),
    /// CRIU is in the process at this moment.
    NotBackYet,
    /// What is in the page: no process has it as the beginning of executable memory.
    AsItIs,
}

/// Puts back what belongs at the beginning of a page, all of which or the first part of which is given, and which begins with
/// [`INSTRUCTION`]. The page is of a process of this tree, which is stopped.
pub fn put_back(root: i32, page: &mut [u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match original(root, page) {
            Original::Is(bytes) => {
                tracing::debug!("CRIU's instruction was taken out of a page");
                if let Some(place) = page.first_chunk_mut() {
                    *place = bytes;
                }
                return;
            }
            Original::NotBackYet if Instant::now() < deadline => std::thread::sleep(LOOK),
            Original::NotBackYet | Original::AsItIs => return,
        }
    }
}

fn original(root: i32, page: &[u8]) -> Original {
    let mut found = Original::AsItIs;
    let mut live = vec![0; page.len().min(PAGE)];
    for process in tree::below(root).unwrap_or_default() {
        for mapping in executable(process.pid) {
            let range = mapping.start..mapping.start + live.len() as u64;
            let whole = memory::read(process.pid, range, &mut live).is_ok_and(|count| count == live.len());
            let (Some((now, rest)), Some(saved)) = (live.split_first_chunk(), page.get(INSTRUCTION.len()..)) else {
                return Original::AsItIs;
            };
            if whole && rest == saved {
                if *now != INSTRUCTION {
                    return Original::Is(*now);
                }
                found = Original::NotBackYet;
            }
        }
    }
    found
}

/// The executable mappings of a process; none when it is gone.
fn executable(pid: i32) -> Vec<Range<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
        (rest.as_bytes().get(2) == Some(&b'x')).then_some(hexadecimal(start)?..hexadecimal(end)?)
    };
    maps.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(pid: i32, mapping: &Range<u64>) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        assert_eq!(memory::read(pid, mapping.start..mapping.start + PAGE as u64, &mut page).unwrap(), PAGE);
        page
    }

    #[test]
    fn what_belongs_there_is_put_back_and_nothing_else_is_changed() {
        let mut sleep = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(sleep.id()).unwrap();
        // Until it is that program, complete, and sleeps (proc_pid_stat(5)): before, its mappings still move.
        let sleeps = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains("(sleep) S ");
        while !sleeps() {
            std::thread::yield_now();
        }
        let mappings = executable(pid);
        assert!(!mappings.is_empty());
        let own = page_of(pid, &mappings[0]);
        for length in [PAGE, 600] {
            let mut page = own[..length].to_vec();
            page[..8].copy_from_slice(&INSTRUCTION);
            put_back(pid, &mut page);
            assert!(page == own[..length], "{length} bytes");
        }
        // Data that happens to begin like this.
        let mut data = own.clone();
        data[..8].copy_from_slice(&INSTRUCTION);
        data[100] ^= 1;
        let before = data.clone();
        put_back(pid, &mut data);
        assert!(data == before);
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }

    #[test]
    fn while_criu_is_in_the_process_one_waits() {
        use memmap2::MmapOptions;
        // Executable memory of our own plays the process's.
        let mut code = MmapOptions::new().len(PAGE).map_anon().unwrap();
        code.fill(0xc3);
        code[..8].copy_from_slice(&INSTRUCTION);
        let page = code.to_vec();
        let code = code.make_exec().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(original(me, &page), Original::NotBackYet);
        let mut code = code.make_mut().unwrap();
        code[..8].fill(0xc3);
        let _code = code.make_exec().unwrap();
        assert_eq!(original(me, &page), Original::Is([0xc3; 8]));
    }
}
