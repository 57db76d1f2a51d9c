//! What a process would do with a signal. One that it does not handle would end it, as a rule.

use nix::sys::signal::Signal;
use std::fs;

/// Whether the process handles this signal (proc(5), `SigCgt`). None when it is gone.
pub fn handles(pid: i32, signal: Signal) -> Option<bool> {
    handled(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, signal)
}

fn handled(status: &str, signal: Signal) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal as i32 - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mask_of_handled_signals() {
        let status = "Name:\tmegahit\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000a00\n";
        assert_eq!(handled(status, Signal::SIGUSR1), Some(true));
        assert_eq!(handled(status, Signal::SIGUSR2), Some(true));
        assert_eq!(handled(status, Signal::SIGTERM), Some(false));
        assert_eq!(handled("Name:\tgone\n", Signal::SIGUSR1), None);
        assert_eq!(handles(i32::MAX, Signal::SIGUSR1), None);
    }
}
