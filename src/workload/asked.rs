//! What processes have asked the kernel for, whether or not they have got it yet: a program that has allocated an array
//! and fills it holds a part of what it will need.

use std::fs;

/// So much of address space a thread's stack takes, of which it mostly uses next to nothing (the usual `ulimit -s`).
const STACK: u64 = 8 << 20;
/// Programs of revenant's own, which come and go with a save.
const OURS: [&str; 2] = ["revenant", "criu"];

/// Private memory that all processes of this container have asked for, in bytes: an estimate, for people. Looks at
/// `most` processes.
pub fn private_bytes(most: usize) -> u64 {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
    pids.take(most).filter_map(|pid| asked(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)).sum()
}

/// Of one process, from `/proc/PID/status` (`proc_pid_status(5)`). Kernel threads and zombies have asked for nothing,
/// and what is revenant's own does not count.
fn asked(status: &str) -> Option<u64> {
    let name = status.lines().find_map(|line| line.strip_prefix("Name:"))?.trim();
    if OURS.contains(&name) {
        return None;
    }
    let number = |key: &str| -> Option<u64> {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        value.trim().trim_end_matches("kB").trim().parse().ok()
    };
    let kib = |key| number(key).unwrap_or(0).saturating_mul(1024);
    let address_space = number("VmData:")?.saturating_mul(1024);
    let stacks = number("Threads:").unwrap_or(1).saturating_sub(1).saturating_mul(STACK);
    let here = kib("RssAnon:").saturating_add(kib("VmSwap:"));
    Some(address_space.saturating_sub(stacks).max(here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_of_threads_do_not_count_but_all_that_is_there_does() {
        let status = |data: u64, anonymous: u64, threads: u64| {
            format!("Name:\tx\nVmData:\t{data} kB\nRssAnon:\t  {anonymous} kB\nVmSwap:\t 4 kB\nThreads:\t{threads}\n")
        };
        assert_eq!(asked(&status(2 << 20, 1 << 10, 1)), Some(2 << 30));
        assert_eq!(asked(&status(2 << 20, 1 << 10, 9)), Some((2 << 30) - (64 << 20)));
        assert_eq!(asked(&status(1 << 10, 1 << 20, 64)), Some((1 << 30) + 4096));
        assert_eq!(asked("Name:\tcriu\nVmData:\t 9 kB\nRssAnon:\t 9 kB\n"), None);
        assert_eq!(asked("Name:\tkthreadd\nThreads:\t1\n"), None);
    }
}
