//! Namespaces that the job has for itself, so that CRIU can save what is in them.
//!
//! An IPC namespace holds System V shared memory, semaphores and message queues. A container's own one cannot be saved:
//! others use it, and the next container has another. With a PID and a mount namespace besides, nothing else can hold an
//! ID that the job needs; what that costs, and why it is only made when asked for, is told in docs/processes.md.
#![allow(unsafe_code)] // unshare between fork and exec, without allocation.

use crate::criu::probe::{Capability, Rights};
use crate::exit::Exit;
use crate::explain::Problem;
use std::io;

/// What the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolate {
    /// An IPC namespace where the container may make one and nothing is lost by it.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// An IPC namespace, or else no start.
    Ipc,
    /// PID, IPC and mount namespaces, or else no start.
    All,
}

/// What the job has for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Own {
    /// Nothing: it shares the container's namespaces.
    #[default]
    Nothing,
    /// An IPC namespace.
    Ipc,
    /// PID, IPC and mount namespaces, with a `/proc` of its own.
    All,
}

/// What plain CRIU needs besides root to save and restore a job with namespaces of its own (measured: these suffice, and CRIU
/// 4.2.1 without any one of them fails).
pub const FOR_ALL: [Capability; 5] =
    [Capability::SysAdmin, Capability::NetAdmin, Capability::SysTime, Capability::SysChroot, Capability::Setpcap];

/// What a new IPC namespace comes with: `/proc/sys/kernel/…` and its value, from ipc/ and include/uapi/linux/{shm,msg,sem}.h.
const NEW: [(&str, &str); 6] = [
    ("shmmni", "4096"),
    ("shm_rmid_forced", "0"),
    ("msgmax", "8192"),
    ("msgmnb", "16384"),
    ("msgmni", "32000"),
    ("sem", "32000 1024000000 500 32000"),
];

impl std::str::FromStr for Isolate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<&str> = text.split(',').collect();
        parts.sort_unstable();
        match parts[..] {
            ["auto"] => Ok(Self::Auto),
            ["none" | ""] => Ok(Self::None),
            ["ipc"] => Ok(Self::Ipc),
            ["ipc", "mount", "pid"] => Ok(Self::All),
            _ if parts.iter().all(|part| ["pid", "ipc", "mount"].contains(part)) => Err(
                "write ipc or pid,ipc,mount: a PID namespace needs a /proc of its own and so a mount namespace, and \
                     there is no use in less than all three"
                    .to_owned(),
            ),
            _ => Err("write auto, none, ipc or pid,ipc,mount".to_owned()),
        }
    }
}

impl Isolate {
    /// What the job gets. Refuses when it must have what it cannot.
    pub fn own(self, as_another_user: bool) -> Result<Own, Problem> {
        let rights = Rights::current().unwrap_or_default();
        // The limits of a new one are root's to write, whatever capabilities another user has, and CRIU writes them.
        let may = rights.has(Capability::SysAdmin) && rights.uid == 0;
        match self {
            Self::Auto if may && is_as_new(|name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()) => {
                Ok(Own::Ipc)
            }
            Self::Auto | Self::None => Ok(Own::Nothing),
            Self::Ipc if may => Ok(Own::Ipc),
            Self::Ipc => Err(Problem::new(
                Exit::Privileges,
                "the job cannot have an IPC namespace of its own (--isolate ipc)",
                "making one needs root with the capability SYS_ADMIN, which this container lacks",
                "start it as root (with --user for the workload), add SYS_ADMIN to capabilities.add, or leave --isolate out",
            )),
            Self::All => match lacking_for_all(&rights, as_another_user) {
                None => Ok(Own::All),
                Some(cause) => Err(Problem::new(
                    Exit::Privileges,
                    "the job cannot have PID, IPC and mount namespaces of its own (--isolate pid,ipc,mount)",
                    cause,
                    "run it as root with these capabilities, in every container of the job; or leave --isolate out: \
                     IDs are kept free without a namespace as well",
                )),
            },
        }
    }
}

/// Why a job with all namespaces of its own could not be saved or restored here; none if it can.
pub fn lacking_for_all(rights: &Rights, as_another_user: bool) -> Option<String> {
    let missing = rights.lacking(&FOR_ALL);
    if rights.uid != 0 || as_another_user {
        // CRIU saves a job of another user as that user, and only root may do all of this.
        return Some(
            "such a job is saved and restored by plain CRIU, which must be root and of the workload's user".to_owned(),
        );
    }
    if !missing.is_empty() {
        return Some(format!(
            "such a job is saved and restored by plain CRIU, for which this container lacks {}",
            missing.join(", ")
        ));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounted_twice(&mounts).map(|point| {
        format!("the mounts of such a job are found again by their places, and this container has two at {point}")
    })
}

/// A mount point with one mount over another: CRIU finds mounts again by their place, where only the upper one is.
fn mounted_twice(mountinfo: &str) -> Option<&str> {
    // The console and /proc are not among the job's.
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let points: Vec<&str> = points.filter(|point| *point != "/proc" && !point.starts_with("/proc/")).collect();
    points.iter().enumerate().find(|(index, point)| points[..*index].contains(point)).map(|(_, point)| *point)
}

/// Limits that somebody has set for this container (`securityContext.sysctls`) would not hold in a new namespace.
fn is_as_new(read: impl Fn(&str) -> Option<String>) -> bool {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    NEW.iter().all(|(name, value)| read(name).is_none_or(|found| words(&found) == words(value)))
}

/// A new IPC namespace for this process and what it executes. Async-signal-safe.
pub fn leave_ipc() -> io::Result<()> {
    unshare(libc::CLONE_NEWIPC)
}

/// For this thread: its next child is the init of a new PID namespace. The thread should end after that child: it can
/// have no other one.
pub fn next_child_is_init() -> io::Result<()> {
    unshare(libc::CLONE_NEWPID)
}

/// In the init of a new PID namespace: IPC and mount namespaces for it and what it executes, with its own `/proc`.
/// Async-signal-safe.
pub fn leave_ipc_and_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWNS)?;
    // What is mounted here must not appear in the container, and later mounts of the container not here: CRIU would save
    // them as the job's.
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    // CRIU finds every mount at the same place in the next container. Only one with a terminal has a console, and what
    // a runtime hides of the container's /proc is another list in each of its versions.
    for varies in [c"/dev/console", c"/proc"] {
        // SAFETY: the text is a constant. A console that is not mounted gives EINVAL or ENOENT.
        unsafe { libc::umount2(varies.as_ptr(), libc::MNT_DETACH) };
    }
    mount(c"proc", c"/proc", Some(c"proc"), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)
}

fn mount(
    source: &std::ffi::CStr,
    target: &std::ffi::CStr,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let kind = kind.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: the texts live as long as the call, which only reads them; no data is passed.
    let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn unshare(kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    if unsafe { libc::unshare(kinds) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What this process has for itself. Nothing where it may not be looked at.
pub fn of(pid: i32) -> Own {
    let differs = |kind: &str| {
        let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
        of(&pid.to_string()).is_some_and(|theirs| of("self").is_some_and(|ours| ours != theirs))
    };
    match (differs("pid"), differs("ipc")) {
        (true, _) => Own::All,
        (false, true) => Own::Ipc,
        (false, false) => Own::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_spelled_as_documented() {
        assert_eq!("auto".parse(), Ok(Isolate::Auto));
        assert_eq!("ipc".parse(), Ok(Isolate::Ipc));
        assert_eq!("none".parse(), Ok(Isolate::None));
        assert_eq!("pid,ipc,mount".parse(), Ok(Isolate::All));
        assert_eq!("mount,pid,ipc".parse(), Ok(Isolate::All));
        assert!("pid,ipc".parse::<Isolate>().unwrap_err().contains("mount namespace"));
        assert!("net".parse::<Isolate>().unwrap_err().contains("auto, none, ipc or pid,ipc,mount"));
    }

    #[test]
    fn limits_that_somebody_has_set_keep_the_container_s_namespace() {
        assert!(is_as_new(|name| Some(format!("{}\n", NEW.iter().find(|(known, _)| *known == name)?.1))));
        assert!(is_as_new(|name| (name == "sem").then(|| "32000\t1024000000\t500\t32000\n".to_owned())));
        assert!(!is_as_new(|name| (name == "msgmax").then(|| "65536\n".to_owned())));
    }

    #[test]
    fn two_mounts_at_one_place_are_seen() {
        let line = |point: &str| format!("83 82 0:29 / {point} ro,nosuid - tmpfs tmpfs rw\n");
        let text = |points: &[&str]| points.iter().map(|point| line(point)).collect::<String>();
        assert_eq!(mounted_twice(&text(&["/", "/proc", "/sys", "/sys/fs/cgroup", "/proc", "/proc/keys"])), None);
        assert_eq!(mounted_twice(&text(&["/", "/sys", "/sys/fs/cgroup", "/sys/fs/cgroup"])), Some("/sys/fs/cgroup"));
    }

    #[test]
    fn what_is_missing_for_all_of_them_is_named() {
        let all = FOR_ALL.iter().fold(0, |mask, capability| mask | 1 << *capability as u8);
        let rights = Rights { effective: all, ..Rights::default() };
        assert!(lacking_for_all(&rights, false).is_none_or(|cause| cause.contains("this container has two")));
        assert!(lacking_for_all(&rights, true).unwrap().contains("the workload's user"));
        assert!(lacking_for_all(&Rights { uid: 1000, ..rights }, false).unwrap().contains("root"));
        let less = Rights { effective: all & !(1 << Capability::NetAdmin as u8), ..rights };
        assert!(lacking_for_all(&less, false).unwrap().ends_with("lacks NET_ADMIN"));
    }

    #[test]
    fn a_process_of_another_namespace_is_known() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(of(me), Own::Nothing);
        assert_eq!(of(0), Own::Nothing);
    }
}
