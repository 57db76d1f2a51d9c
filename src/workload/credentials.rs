//! Whose a process is, and taking that on: the workload's user, and CRIU in its name.
//!
//! CRIU must run as the workload's user: without `CAP_SYS_RESOURCE`, which clusters seldom grant, the kernel lets
//! nobody read the limits of another user's process (`prlimit(2)`). Capabilities go with it as ambient ones
//! (`capabilities(7)`).
#![allow(unsafe_code)] // System calls between fork and exec, where nothing may be allocated and libc's do too much.

use serde::{Deserialize, Serialize};
use std::io;

/// Real user, real group and supplementary groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::unsafe_derive_deserialize)] // Its unsafe is that of system calls, which hold for all numbers.
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups, ascending.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: two words of 32 bits for each set.
const VERSION: u32 = 0x2008_0522;

/// `CAP_SETGID` and `CAP_SETUID`.
const TO_BECOME_ANOTHER: u32 = 1 << 6 | 1 << 7;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Credentials {
    /// Those of a process, from `/proc/PID/status`.
    pub fn of(pid: i32) -> io::Result<Self> {
        Self::read(&format!("/proc/{pid}/status"))
    }

    /// Those of this process.
    pub fn here() -> io::Result<Self> {
        Self::read("/proc/self/status")
    }

    /// Whether CRIU has to become somebody else for these.
    pub fn is_not_ours(&self) -> bool {
        Self::here().is_ok_and(|here| (here.uid, here.gid) != (self.uid, self.gid))
    }

    fn read(path: &str) -> io::Result<Self> {
        Self::parse(&std::fs::read_to_string(path)?).ok_or_else(|| io::Error::other(format!("{path}: unknown form")))
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let first = |name| field(name)?.split_whitespace().next()?.parse().ok();
        let groups = field("Groups").unwrap_or_default().split_whitespace();
        let mut groups: Vec<u32> = groups.filter_map(|group| group.parse().ok()).collect();
        groups.sort_unstable();
        Some(Self { uid: first("Uid")?, gid: first("Gid")?, groups })
    }

    /// For good, and without any capability: the workload. Async-signal-safe.
    pub fn take_on(&self) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of one vector; the kernel only reads it.
        check(unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: plain numbers. Raw, because libc's form signals other threads, which a forked child does not have.
        check(unsafe { libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid) })?;
        // SAFETY: as above.
        check(unsafe { libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid) })
    }

    /// With every capability that this process has, for itself and for the program that it executes: CRIU.
    /// Async-signal-safe.
    pub fn take_on_with_capabilities(&self) -> io::Result<()> {
        // SAFETY: a flag of this thread.
        check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
        self.take_on()?;
        hand_on_capabilities()
    }
}

/// Makes the permitted capabilities effective and ambient ones, which a program that is executed next keeps, whoever
/// its user is. Async-signal-safe.
///
/// Not those to become somebody else: a CRIU that may become root does so (4.2.1, in the tasks that it restores), and
/// loses everything when it goes back.
pub fn hand_on_capabilities() -> io::Result<()> {
    let mut sets = capabilities()?;
    let [low, _] = &mut sets;
    low.permitted &= !TO_BECOME_ANOTHER;
    for word in &mut sets {
        word.effective = word.permitted;
        word.inheritable = word.permitted;
    }
    set_capabilities(&sets)?;
    let [low, high] = sets.map(|word| word.permitted);
    let mask = u64::from(low) | u64::from(high) << 32;
    for bit in (0..64_i32).filter(|bit| mask >> bit & 1 == 1) {
        // SAFETY: plain numbers.
        check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, bit, 0, 0) })?;
    }
    Ok(())
}

/// Makes use of what the program file gives (`setcap …+p revenant`): permitted capabilities become effective. True
/// if there were any.
///
/// The kernel takes such a process for one with secrets, whose files in `/proc` are root's; revenant's own processes
/// must read each other's.
pub fn use_permitted() -> io::Result<bool> {
    let mut sets = capabilities()?;
    if sets.iter().all(|word| word.effective & word.permitted == word.permitted) {
        return Ok(false);
    }
    for word in &mut sets {
        word.effective = word.permitted;
    }
    set_capabilities(&sets)?;
    nix::sys::prctl::set_dumpable(true)?;
    Ok(true)
}

fn capabilities() -> io::Result<[Word; 2]> {
    let header = Header { version: VERSION, pid: 0 };
    let mut sets = [Word::default(); 2];
    // SAFETY: both have the kernel's layout (capget(2)) and live here; this version writes two words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    Ok(sets)
}

fn set_capabilities(sets: &[Word; 2]) -> io::Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    // SAFETY: as for capget; the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn reads_the_kernel_s_text() {
        let status = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t100\t100\t100\t100\nGroups:\t27 4 \n";
        let expected = Credentials { uid: 1000, gid: 100, groups: vec![4, 27] };
        assert_eq!(Credentials::parse(status), Some(expected));
        assert_eq!(Credentials::parse("Name:\tx\n"), None);
        let json = serde_json::to_string(&Credentials::here().unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Credentials>(&json).unwrap(), Credentials::here().unwrap());
    }

    /// Its status, as it sees itself after it took these on.
    fn child(as_user: fn() -> io::Result<()>) -> String {
        let mut command = Command::new("/bin/cat");
        command.arg("/proc/self/status");
        // SAFETY: only system calls.
        unsafe { command.pre_exec(as_user) };
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    fn effective(status: &str) -> u64 {
        let text = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        u64::from_str_radix(text, 16).unwrap()
    }

    #[test]
    fn a_workload_gets_the_user_alone_and_criu_the_capabilities_too() {
        if !nix::unistd::geteuid().is_root() {
            return; // Others cannot become anybody.
        }
        let workload = child(|| Credentials { uid: 1234, gid: 55, groups: Vec::new() }.take_on());
        assert_eq!(Credentials::parse(&workload).unwrap(), Credentials { uid: 1234, gid: 55, groups: Vec::new() });
        assert_eq!(effective(&workload), 0);
        let criu = child(|| Credentials { uid: 1234, gid: 55, groups: Vec::new() }.take_on_with_capabilities());
        assert_eq!(Credentials::parse(&criu).unwrap().uid, 1234);
        let mine = effective(&std::fs::read_to_string("/proc/self/status").unwrap());
        assert_eq!(effective(&criu), mine & !u64::from(TO_BECOME_ANOTHER));
    }
}
