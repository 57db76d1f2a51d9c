//! Capabilities that the processes had: nobody can be given one that the container does not have.

use super::Misfit;
use crate::workload::tree::Process;
use std::fs;

/// By number, `linux/capability.h`, as Kubernetes spells them.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The permitted capabilities of all of these processes together.
pub fn held_by(tree: &[Process]) -> u64 {
    let of = |process: &Process| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
        permitted(&status)
    };
    tree.iter().filter_map(of).fold(0, |all, mask| all | mask)
}

fn permitted(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

/// Those that the workload had and that cannot be given to it here.
pub fn check(then: u64, now: u64) -> Option<Misfit> {
    let missing: Vec<&str> =
        NAMES.iter().enumerate().filter(|(bit, _)| (then & !now) >> bit & 1 == 1).map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| {
        Misfit::new(
            true,
            format!("the workload's processes had capabilities that this container lacks: {}", missing.join(", ")),
            "a restored process gets back what it had, and nobody can be given more than the container has",
            format!("add to securityContext.capabilities.add: [{}]", missing.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_as_kubernetes_names_it() {
        let misfit = check(1 << 13 | 1 << 40 | 1, 1).unwrap();
        assert!(misfit.what.ends_with("lacks: NET_RAW, CHECKPOINT_RESTORE"), "{}", misfit.what);
        assert_eq!(check(1, 3), None);
        assert_eq!(permitted("Name:\tx\nCapPrm:\t0000000000002001\n"), Some(0x2001));
    }
}
