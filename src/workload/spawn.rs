//! Starts the workload: the reaper, which starts the command in a session of its own.
#![allow(unsafe_code)] // Taking on a user happens between fork and exec.

use super::account::Account;
use super::command::Command;
use super::credentials::Credentials;
use super::isolation::Own;
use super::{environment, isolation, tree};
use nix::sys::stat::{SFlag, fstat};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};

/// The descriptors that become the workload's 0, 1 and 2.
#[derive(Debug)]
pub struct Descriptors {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Descriptors {
    /// Copies of all three.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            stdin: self.stdin.as_fd().try_clone_to_owned()?,
            stdout: self.stdout.as_fd().try_clone_to_owned()?,
            stderr: self.stderr.as_fd().try_clone_to_owned()?,
        })
    }
}

/// Starts `command` under the reaper at `reaper`; returns the reaper's PID.
///
/// The reaper passes on: these three descriptors and no other (all others of this process are
/// close-on-exec, see [`super::inherited`]), default signal actions and an empty mask, the
/// environment without revenant's secrets, the working directory, umask and limits, and the user unless it is
/// to be another one. It gets the namespaces of `own`.
pub fn spawn(
    reaper: &Path,
    command: &Command,
    descriptors: Descriptors,
    account: Option<&Account>,
    own: Own,
) -> io::Result<i32> {
    // Its folder is ours alone, and another user cannot pass through: by descriptor.
    let opened = account.map(|_| File::open(reaper)).transpose()?;
    let by_descriptor = opened.as_ref().map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
    let mut starting = process::Command::new(by_descriptor.as_ref().map_or(reaper.as_os_str(), OsStr::new));
    starting
        .arg(&command.program)
        .args(&command.argv)
        .env_clear()
        .envs(environment::for_workload())
        .stdin(Stdio::from(descriptors.stdin))
        .stdout(Stdio::from(descriptors.stdout))
        .stderr(Stdio::from(descriptors.stderr));
    let leave: Option<fn() -> io::Result<()>> = match own {
        Own::Nothing => None,
        Own::Ipc => Some(isolation::leave_ipc),
        Own::All => Some(isolation::leave_ipc_and_mounts),
    };
    if let Some(leave) = leave {
        // SAFETY: system calls on constants; they need what a user that is taken on after them does not have.
        unsafe { starting.pre_exec(leave) };
    }
    if let Some(Account { credentials, home }) = account {
        if let Some(home) = home.as_ref().filter(|_| has_roots_home()) {
            starting.env("HOME", home);
        }
        let credentials = credentials.clone();
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { starting.pre_exec(move || credentials.take_on()) };
    }
    let child = match own {
        Own::All => as_init(&mut starting)?,
        _ => starting.spawn()?,
    };
    // Dropping the handle neither kills nor reaps: the supervisor reaps every child.
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// Starts it as the init of a new PID namespace: by a thread whose only child it is.
fn as_init(starting: &mut process::Command) -> io::Result<process::Child> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| isolation::next_child_is_init().and_then(|()| starting.spawn()));
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts the workload panicked")))
    })
}

/// The runtime has set it for the container's own user, root.
fn has_roots_home() -> bool {
    std::env::var_os("HOME").is_none_or(|home| home.is_empty() || home == "/" || home == "/root")
}

/// Lets the workload's user open its own pipes and terminal by name (`/dev/stdout`), as container runtimes do for
/// theirs. Where that is not allowed, writing to them works all the same.
pub fn give_to(user: &Credentials, descriptors: &[impl AsFd]) {
    let (uid, gid) = (user.uid.into(), user.gid.into());
    for descriptor in descriptors {
        let kind = fstat(descriptor).map(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT);
        let is_terminal = || nix::unistd::isatty(descriptor.as_fd()).unwrap_or(false);
        if kind.is_ok_and(|kind| kind == SFlag::S_IFIFO) || is_terminal() {
            let _ = nix::unistd::fchown(descriptor, Some(uid), Some(gid));
        }
    }
}

/// The command's PID: the reaper's first child. None before it was born and after it has ended.
pub fn command_pid(reaper: i32) -> Option<i32> {
    // In the order of arrival (`CONFIG_PROC_CHILDREN`): adopted orphans come after it.
    let children = fs::read_to_string(format!("/proc/{reaper}/task/{reaper}/children")).ok()?;
    let first = children.split_whitespace().next()?.parse().ok()?;
    // An orphan only moves up when the command has ended; and an orphan of its session is not its leader.
    (tree::Process::read(first).ok()?.sid == first).then_some(first)
}
