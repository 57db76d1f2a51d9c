//! Capabilities and seccomp, and what the container's profile leaves out. Pure.

use super::Check;
use crate::criu::probe::{Capability, Probe, Profile, Rights};
use crate::exit::Exit;
use crate::explain::Problem;

/// What matters here, the needed ones first.
const WATCHED: [Capability; 8] = [
    Capability::CheckpointRestore,
    Capability::Setpcap,
    Capability::SysPtrace,
    Capability::SysAdmin,
    Capability::SysTime,
    Capability::SysResource,
    Capability::NetAdmin,
    Capability::SysChroot,
];

/// Capabilities, seccomp, and the workload's user.
pub(super) fn checks(rights: &Rights, probe: &Probe) -> Vec<Check> {
    let has: Vec<_> = WATCHED.into_iter().filter(|capability| rights.has(*capability)).map(Capability::name).collect();
    let has = if has.is_empty() { "none that matters here".to_owned() } else { has.join(", ") };
    let capabilities = if probe.missing.is_empty() {
        Check::good("capabilities", has)
    } else {
        let names: Vec<_> = probe.missing.iter().map(|capability| capability.name()).collect();
        Check::bad(
            "capabilities",
            &Problem::new(
                Exit::Privileges,
                format!("{has}; missing: {}", names.join(", ")),
                "CRIU cannot save or restore any process",
                format!("securityContext.capabilities.add: [{}]", names.join(", ")),
            ),
        )
    };
    let seccomp = if probe.seccomp_filter {
        Check::bad(
            "seccomp",
            &Problem::new(
                Exit::Privileges,
                "a filter is in force",
                "any filter forbids CRIU to stop a process, whatever it allows",
                "securityContext.seccompProfile.type: Unconfined (`--security-opt seccomp=unconfined`)",
            ),
        )
    } else {
        Check::good("seccomp", "no filter")
    };
    let user = if probe.same_user_only {
        Check::limited(
            "user",
            format!("uid {}, without {}", rights.uid, rights.lacking(&Capability::FOR_ANOTHER_USER).join(", ")),
            "only a workload of the same user can be saved",
            "run the command as this user; or start as root with SETUID, SETGID, SYS_PTRACE and DAC_OVERRIDE",
        )
    } else {
        Check::good("user", format!("uid {}; workloads of other users too", rights.uid))
    };
    vec![capabilities, seccomp, user]
}

/// What a profile leaves out, each as one sentence.
pub fn leaves_out(profile: Option<Profile>) -> Vec<&'static str> {
    const CLOCK: &str = "the monotonic clock is not kept: on a node that was started later, timed waits may last too long \
                         (add SYS_ADMIN and SYS_TIME)";
    const NAMESPACES: &str = "System V shared memory and namespaces of the workload's own are not carried \
                              (add NET_ADMIN and SYS_CHROOT)";
    match profile {
        None => vec!["everything: no checkpoint can be made here"],
        Some(Profile::Minimal) => vec![CLOCK, NAMESPACES],
        Some(Profile::Recommended) => vec![NAMESPACES],
        Some(Profile::Full) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_is_missing_is_named_as_kubernetes_spells_it() {
        let rights = Rights { effective: 1 << Capability::Setpcap as u8, seccomp: 2, ..Rights::default() };
        let checks = checks(&rights, &Probe::of(&rights));
        assert_eq!(checks[0].verdict, Verdict::Bad);
        assert_eq!(checks[0].remedy, "securityContext.capabilities.add: [CHECKPOINT_RESTORE]");
        assert_eq!((checks[1].verdict, checks[1].exit), (Verdict::Bad, Some(207)));
        assert_eq!(checks[2].verdict, Verdict::Limited);
    }

    #[test]
    fn more_rights_leave_out_less() {
        let profiles = [None, Some(Profile::Minimal), Some(Profile::Recommended), Some(Profile::Full)];
        assert_eq!(profiles.map(|profile| leaves_out(profile).len()), [1, 2, 1, 0]);
    }
}
