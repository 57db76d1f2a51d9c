//! Can CRIU work in this container? Decided from `/proc/self/status` alone: no process is started.
//!
//! The table of capabilities is measured (one container for each set, kernel 6.18, CRIU 4.2.1).

use crate::exit::Exit;
use crate::explain::Problem;
use std::fmt;

/// How much the container allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// Save and restore work; the monotonic clock is not kept across nodes.
    Minimal,
    /// The clock is kept too.
    Recommended,
    /// Plain CRIU and nested namespaces too.
    Full,
}

/// A capability that matters here, by its number in `linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the kernel's.
pub enum Capability {
    DacOverride = 1,
    DacReadSearch = 2,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    NetAdmin = 12,
    SysChroot = 18,
    SysPtrace = 19,
    SysAdmin = 21,
    SysResource = 24,
    SysTime = 25,
    CheckpointRestore = 40,
}

/// What the kernel says about this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// Effective capabilities, one bit each.
    pub effective: u64,
    /// The most that a program started by it can have.
    pub bounding: u64,
    /// 0 no seccomp, 1 strict, 2 filter.
    pub seccomp: u8,
    /// Programs started by it gain nothing by file capabilities.
    pub no_new_privileges: bool,
    /// Effective user ID.
    pub uid: u32,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What works; none: nothing.
    pub profile: Option<Profile>,
    /// What is missing for the minimal profile.
    pub missing: Vec<Capability>,
    /// What is missing for the recommended profile, besides.
    pub missing_for_clock: Vec<Capability>,
    /// A seccomp filter is in force. It forbids every dump, whatever it allows.
    pub seccomp_filter: bool,
    /// The workload must have the same user as revenant.
    pub same_user_only: bool,
    /// What an ordinary user would have to do to get what is missing; none for root.
    pub way_for_user: Option<WayForUser>,
}

/// How an ordinary user comes by capabilities, which a container runtime gives to root only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayForUser {
    /// The container may not have them at all.
    Allow,
    /// The container may have them; they must be written to the program file.
    File,
    /// They may be in the program file, but `no_new_privs` makes them void.
    AllowGaining,
}

const MINIMAL: [Capability; 2] = [Capability::CheckpointRestore, Capability::Setpcap];
const CLOCK: [Capability; 2] = [Capability::SysAdmin, Capability::SysTime];
const FULL: [Capability; 2] = [Capability::NetAdmin, Capability::SysChroot];

impl Profile {
    /// Its name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Recommended => "recommended",
            Self::Full => "full",
        }
    }
}

impl Capability {
    /// What it takes to start, save and restore processes of another user than revenant's own.
    pub const FOR_ANOTHER_USER: [Self; 4] = [Self::Setuid, Self::Setgid, Self::SysPtrace, Self::DacOverride];

    /// The name as Kubernetes spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "DAC_OVERRIDE",
            Self::DacReadSearch => "DAC_READ_SEARCH",
            Self::Setgid => "SETGID",
            Self::Setuid => "SETUID",
            Self::Setpcap => "SETPCAP",
            Self::NetAdmin => "NET_ADMIN",
            Self::SysChroot => "SYS_CHROOT",
            Self::SysPtrace => "SYS_PTRACE",
            Self::SysAdmin => "SYS_ADMIN",
            Self::SysResource => "SYS_RESOURCE",
            Self::SysTime => "SYS_TIME",
            Self::CheckpointRestore => "CHECKPOINT_RESTORE",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Rights {
    /// Reads the text of `/proc/PID/status`. None if it is none.
    pub fn parse(status: &str) -> Option<Self> {
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let mask = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            effective: mask("CapEff")?,
            bounding: mask("CapBnd")?,
            // Kernels without seccomp do not have the line.
            seccomp: field("Seccomp").map_or(Some(0), |value| value.parse().ok())?,
            no_new_privileges: field("NoNewPrivs") == Some("1"),
            uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        })
    }

    /// Those of this process. Costs one read of `/proc/self/status`.
    pub fn current() -> std::io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        Self::parse(&status).ok_or_else(|| std::io::Error::other("/proc/self/status has an unknown form"))
    }

    /// The names of those that are not effective.
    pub fn lacking(&self, capabilities: &[Capability]) -> Vec<&'static str> {
        capabilities.iter().filter(|capability| !self.has(**capability)).map(|capability| capability.name()).collect()
    }

    /// Whether the capability is effective.
    pub fn has(&self, capability: Capability) -> bool {
        self.effective >> capability as u8 & 1 == 1
    }
}

impl Probe {
    /// Decides.
    pub fn of(rights: &Rights) -> Self {
        let lacking =
            |set: &[Capability]| set.iter().copied().filter(|capability| !rights.has(*capability)).collect::<Vec<_>>();
        // SYS_ADMIN includes CHECKPOINT_RESTORE.
        let missing: Vec<_> = lacking(&MINIMAL)
            .into_iter()
            .filter(|capability| !(*capability == Capability::CheckpointRestore && rights.has(Capability::SysAdmin)))
            .collect();
        let missing_for_clock = lacking(&CLOCK);
        let seccomp_filter = rights.seccomp != 0;
        let profile = match (missing.is_empty() && !seccomp_filter, missing_for_clock.is_empty()) {
            (false, _) => None,
            (true, false) => Some(Profile::Minimal),
            (true, true) if lacking(&FULL).is_empty() => Some(Profile::Full),
            (true, true) => Some(Profile::Recommended),
        };
        let is_anybody = rights.uid == 0 && rights.lacking(&Capability::FOR_ANOTHER_USER).is_empty();
        let same_user_only = !is_anybody && !rights.has(Capability::SysResource);
        let allowed = missing.iter().all(|capability| rights.bounding >> *capability as u8 & 1 == 1);
        let way_for_user = (rights.uid != 0).then_some(match (allowed, rights.no_new_privileges) {
            (false, _) => WayForUser::Allow,
            (true, true) => WayForUser::AllowGaining,
            (true, false) => WayForUser::File,
        });
        Self { profile, missing, missing_for_clock, seccomp_filter, same_user_only, way_for_user }
    }

    /// Why nothing works; none if something does.
    pub fn problem(&self) -> Option<Problem> {
        let what = "this container cannot be checkpointed";
        if self.seccomp_filter {
            return Some(Problem::new(
                Exit::Privileges,
                what,
                "a seccomp filter is in force, and any filter on CRIU forbids it to stop a process",
                "set securityContext.seccompProfile.type: Unconfined (`--security-opt seccomp=unconfined`)",
            ));
        }
        if self.missing.is_empty() {
            return None;
        }
        if let Some(way @ (WayForUser::File | WayForUser::AllowGaining)) = self.way_for_user {
            return Some(self.problem_of_user(way));
        }
        let names = names(&self.missing, ", ");
        let plural = if self.missing.len() == 1 { "capability" } else { "capabilities" };
        Some(Problem::new(
            Exit::Privileges,
            what,
            format!(
                "the {plural} {} missing",
                if self.missing.len() == 1 { format!("{names} is") } else { format!("{names} are") }
            ),
            format!(
                "add to securityContext.capabilities.add: [{names}] (`--cap-add={}`)",
                self::names(&self.missing, ",")
            ),
        ))
    }
}

impl Probe {
    fn problem_of_user(&self, way: WayForUser) -> Problem {
        let names = names(&self.missing, ", ");
        let set = "setcap cap_checkpoint_restore,cap_setpcap,cap_sys_ptrace,cap_sys_admin,cap_sys_time+p \
                   /opt/revenant/bin/revenant";
        let (cause, next) = match way {
            WayForUser::AllowGaining => (
                format!("the container runs as an ordinary user, who may not gain {names} (no_new_privs is set)"),
                format!(
                    "set allowPrivilegeEscalation: true, with `RUN {set}` in the image; or start as root with --user"
                ),
            ),
            _ => (
                format!("the container may have {names}, but a runtime gives capabilities to root only"),
                format!("write them to the program file, in the image: `RUN {set}`; or start as root with --user"),
            ),
        };
        Problem::new(Exit::Privileges, "this container cannot be checkpointed", cause, next)
    }
}

fn names(capabilities: &[Capability], between: &str) -> String {
    capabilities.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(capabilities: &[Capability]) -> Rights {
        let effective = capabilities.iter().fold(0, |mask, capability| mask | 1 << *capability as u8);
        Rights { effective, bounding: effective, ..Rights::default() }
    }

    #[test]
    fn reads_the_kernel_s_text() {
        let status = "Name:\tsh\nUid:\t0\t1000\t0\t0\nCapEff:\t0000010000000100\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let rights = Rights::parse(status).unwrap();
        assert_eq!((rights.seccomp, rights.no_new_privileges, rights.uid), (2, true, 1000));
        assert!(
            rights.has(Capability::CheckpointRestore)
                && rights.has(Capability::Setpcap)
                && !rights.has(Capability::SysAdmin)
        );
        assert_eq!(Rights::parse("Name:\tsh\n"), None);
        assert!(Rights::current().is_ok());
    }

    #[test]
    fn profiles_follow_the_measured_table() {
        use Capability::{CheckpointRestore, NetAdmin, Setpcap, SysAdmin, SysChroot, SysPtrace, SysTime};
        for (capabilities, expected) in [
            (&[][..], None),
            (&[CheckpointRestore], None),
            (&[CheckpointRestore, SysPtrace], None),
            (&[CheckpointRestore, Setpcap], Some(Profile::Minimal)),
            (&[SysAdmin, Setpcap], Some(Profile::Minimal)),
            (&[CheckpointRestore, Setpcap, SysAdmin, SysTime], Some(Profile::Recommended)),
            (&[SysAdmin, NetAdmin, SysTime, Setpcap, SysChroot], Some(Profile::Full)),
        ] {
            assert_eq!(Probe::of(&rights(capabilities)).profile, expected, "{capabilities:?}");
        }
    }

    #[test]
    fn a_missing_capability_is_named() {
        let problem = Probe::of(&rights(&[Capability::SysPtrace])).problem().unwrap();
        assert_eq!(problem.exit, Exit::Privileges.code());
        insta::assert_snapshot!(problem, @r"
        this container cannot be checkpointed
          why:  the capabilities CHECKPOINT_RESTORE, SETPCAP are missing
          next: add to securityContext.capabilities.add: [CHECKPOINT_RESTORE, SETPCAP] (`--cap-add=CHECKPOINT_RESTORE,SETPCAP`)
        ");
    }

    #[test]
    fn any_seccomp_filter_forbids_everything() {
        let mut rights = rights(&[Capability::CheckpointRestore, Capability::Setpcap]);
        assert_eq!(Probe::of(&rights).problem(), None);
        rights.seccomp = 2;
        let probe = Probe::of(&rights);
        assert_eq!(probe.profile, None);
        assert!(probe.problem().unwrap().next.contains("Unconfined"));
    }
}
