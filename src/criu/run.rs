//! The CRIU process.

#![allow(unsafe_code)] // pidfd_open and the work between fork and exec have no safe form in std.

use super::binary::Criu;
use super::error::CriuError;
use super::hook;
use super::options::{DumpOptions, OUTPUT, RestoreOptions};
use super::stream::Peer;
use crate::workload::clock::Offsets;
use crate::workload::credentials::{self, Credentials};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running `criu dump` or `criu restore`. It is neither killed nor waited for on drop: a dump
/// that is killed leaves its tree stopped, so that must be a decision.
#[derive(Debug)]
pub struct CriuProcess {
    child: Child,
    pidfd: OwnedFd,
}

impl CriuProcess {
    /// Starts a dump. The capture socket must be bound already.
    pub fn dump(criu: &Criu, options: &DumpOptions) -> Result<Self, CriuError> {
        let command = command(criu, options.preload.as_deref());
        Self::start(command, options.arguments(), &options.images, Vec::new(), None, options.owner.clone())
    }

    /// Starts a restore. The serve socket must be bound already.
    pub fn restore(criu: &Criu, options: &RestoreOptions) -> Result<Self, CriuError> {
        let inherited = options.inherit.iter().map(|inherit| inherit.fd).collect();
        let command = command(criu, options.preload.as_deref());
        Self::start(command, options.arguments(), &options.images, inherited, options.clock, None)
    }

    fn start(
        mut command: Command,
        arguments: Vec<OsString>,
        images: &Path,
        inherited: Vec<RawFd>,
        clock: Option<Offsets>,
        owner: Option<Credentials>,
    ) -> Result<Self, CriuError> {
        let failed = |doing| move |source| CriuError::Process { doing, source };
        let output = output_file(images).map_err(failed("opening a file for CRIU's output"))?;
        let errors = output.try_clone().map_err(failed("opening a file for CRIU's output"))?;
        command.args(arguments).env(hook::HOOK_VARIABLE, hook::socket(images));
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // A group of its own: signals to ours (a terminal's Ctrl-C) must not break a dump.
        command.process_group(0).current_dir(images);
        let clock = clock.map(Offsets::for_kernel);
        let is_root = nix::unistd::geteuid().is_root();
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated: the
        // vector and the text were made before.
        unsafe {
            command.pre_exec(move || {
                clock.as_deref().map_or(Ok(()), in_time_namespace)?;
                match &owner {
                    Some(owner) => owner.take_on_with_capabilities()?,
                    // An ordinary user's capabilities end with the program that has them, unless they are ambient.
                    None if !is_root => credentials::hand_on_capabilities()?,
                    None => {}
                }
                keep_only(&inherited)
            })
        };
        let child = command.spawn().map_err(failed("starting CRIU"))?;
        let pidfd = pidfd_open(child.id()).map_err(failed("watching CRIU"))?;
        Ok(Self { child, pidfd })
    }

    /// Who will connect to the streaming socket.
    pub fn peer(&self) -> Peer<'_> {
        Peer::Process { pid: i32::try_from(self.child.id()).unwrap_or(-1), ended: self.pidfd.as_fd() }
    }

    /// For another thread, which does not wait for it but for its end.
    pub fn watched(&self) -> Result<Watched, CriuError> {
        let failed = |source| CriuError::Process { doing: "watching CRIU", source };
        let ended = self.pidfd.try_clone().map_err(failed)?;
        Ok(Watched { group: i32::try_from(self.child.id()).unwrap_or(0), ended })
    }

    /// Its PID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended. A restore ends when the tree runs.
    pub fn wait(&mut self) -> Result<ExitStatus, CriuError> {
        self.child.wait().map_err(|source| CriuError::Process { doing: "waiting for CRIU", source })
    }

    /// Kills it and the helpers that it forks (they hold its sockets open and would outlive it).
    /// What that does to a tree that is being dumped is told in `docs/criu-failures.md`; prefer to
    /// close the streams, upon which CRIU fails by itself and lets the tree go.
    pub fn kill(&mut self) -> Result<(), CriuError> {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0));
        match killpg(group, Signal::SIGKILL) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(errno) => Err(CriuError::Process { doing: "killing CRIU", source: errno.into() }),
        }
    }
}

/// A CRIU whose end can be awaited, and brought about, beside who waits for it as its parent.
#[derive(Debug)]
pub struct Watched {
    group: i32,
    ended: OwnedFd,
}

impl Watched {
    /// Its PID.
    pub fn pid(&self) -> i32 {
        self.group
    }

    /// Whether it has ended, at once or within this time.
    pub fn ends_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // Interrupted: asked again soon.
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Kills it and its helpers, if it still lives.
    pub fn kill(&self) {
        if !self.ends_within(Duration::ZERO) {
            let _ = killpg(Pid::from_raw(self.group), Signal::SIGKILL);
        }
    }
}

/// CRIU, with a library loaded first.
fn command(criu: &Criu, preload: Option<&Path>) -> Command {
    let mut command = criu.command();
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    command
}

/// What CRIU prints when it cannot even open its log.
fn output_file(images: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(images.join(OUTPUT))
}

/// Marks all descriptors but stdio and these as close-on-exec: CRIU must not hold open what
/// belongs to us, and every descriptor that it has may end up in the restored tree.
fn keep_only(inherited: &[RawFd]) -> io::Result<()> {
    // SAFETY: no memory is involved. Descriptors are only marked, not closed.
    let done = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    for fd in inherited {
        // SAFETY: no memory is involved; a number that is no descriptor gives EBADF.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A time namespace for what this process starts (and, on newer kernels, executes).
fn in_time_namespace(offsets: &str) -> io::Result<()> {
    // SAFETY: no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWTIME) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let file = nix::fcntl::open(c"/proc/self/timens_offsets", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(&file, offsets.as_bytes())?;
    Ok(())
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers. The child has not been waited for, so its PID is its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor (close-on-exec by itself) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
