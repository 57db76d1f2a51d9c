//! The engine as PID 1 sees it: a child process with one request and a stream of events.
#![allow(unsafe_code)] // Descriptors are put at fixed numbers between fork and exec.

use super::Input;
use crate::checkpoint::protocol::{Event, Request};
use crate::observe::log_form;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::Sender;

/// The first descriptor that the engine inherits besides stdio.
const FIRST_FD: i32 = 3;

/// The longest line that the engine may say, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// proc(5): the first to be killed when memory runs out.
const MOST_KILLABLE: &str = "1000";

/// What a running engine was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Request::Begin`].
    Begin,
    /// [`Request::Save`].
    Save,
    /// [`Request::Finish`].
    Finish,
    /// [`Request::Look`].
    Look,
}

/// An engine process. Dropping it forgets the process; `kill` ends it.
#[derive(Debug)]
pub struct Engine {
    /// Tells its events from those of an engine before it.
    pub id: u64,
    /// Its PID, and the ID of its process group (CRIU is in it).
    pub pid: i32,
    /// What it was asked for.
    pub kind: Kind,
    /// Where a restored workload is let loose.
    stdin: Option<ChildStdin>,
    /// Whether it was told to give up.
    pub told_to_give_up: bool,
    /// Its wait status, once it was reaped.
    pub ended: Option<nix::sys::wait::WaitStatus>,
}

impl Engine {
    /// Starts an engine. `fds` become its descriptors 3, 4, …; its events go to `inputs`.
    pub fn start(id: u64, request: &Request, fds: &[BorrowedFd<'_>], inputs: Sender<Input>) -> io::Result<Self> {
        let kind = match request {
            Request::Begin(_) => Kind::Begin,
            Request::Save(_) => Kind::Save,
            Request::Finish(_) => Kind::Finish,
            Request::Look(_) => Kind::Look,
        };
        // Copies above all target numbers, so that moving one does not overwrite another.
        let copies = fds.iter().map(|fd| copy_above_targets(*fd, fds.len())).collect::<io::Result<Vec<_>>>()?;
        let sources: Vec<i32> = copies.iter().map(AsRawFd::as_raw_fd).collect();
        let mut command = Command::new("/proc/self/exe");
        command.arg0("revenant").arg("engine").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        // An option of the command line is not inherited, the environment is.
        command.envs(log_form::variables());
        if !sources.is_empty() {
            // SAFETY: runs between fork and exec; dup2 is async-signal-safe and nothing allocates.
            unsafe { command.pre_exec(move || place(&sources)) };
        }
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        if kind == Kind::Save {
            // When memory runs out during a save, the save dies, not the workload. (A restore must not do this: the
            // workload is its child.) Where it is refused, the kernel decides by size, as ever.
            let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), MOST_KILLABLE);
        }
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
            line.push(b'\n');
            // Far smaller than a pipe holds: cannot block. A dead engine is noticed when it is reaped.
            let _ = stdin.write_all(&line);
        }
        let engine = Self { id, pid, kind, stdin, told_to_give_up: false, ended: None };
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(listen(id, OwnedFd::from(stdout), inputs));
        }
        Ok(engine)
    }

    /// Lets the workload that it has restored run.
    pub fn let_run(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            // One byte does not block, and a dead engine is noticed when it is reaped.
            let _ = stdin.write_all(b"+");
        }
    }

    /// Asks it to undo and end (SIGTERM); at the second time, kills it.
    pub fn give_up(&mut self) {
        if self.told_to_give_up {
            self.kill();
        } else {
            self.told_to_give_up = true;
            crate::workload::kill::send(self.pid, Signal::SIGTERM);
        }
    }

    /// Kills it and all processes of its group.
    pub fn kill(&self) {
        let _ = nix::sys::signal::killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
    }
}

fn copy_above_targets(fd: BorrowedFd<'_>, count: usize) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let lowest = FIRST_FD + i32::try_from(count).map_err(io::Error::other)?;
    let number = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: `fcntl` has just returned it, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn place(sources: &[i32]) -> io::Result<()> {
    for (target, source) in (FIRST_FD..).zip(sources) {
        // SAFETY: plain numbers; the copy is not close-on-exec, which is the point.
        if unsafe { libc::dup2(*source, target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Reads events until the engine closes its end.
async fn listen(id: u64, stdout: OwnedFd, inputs: Sender<Input>) {
    if let Err(error) = read_events(id, stdout, &inputs).await {
        tracing::warn!(%error, "the engine said something that is not an event: {error}");
    }
    let _ = inputs.send(Input::EngineClosed { id }).await;
}

async fn read_events(id: u64, stdout: OwnedFd, inputs: &Sender<Input>) -> io::Result<()> {
    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(stdout)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        let event: Event = serde_json::from_slice(&line)?;
        if inputs.send(Input::Engine { id, event: Box::new(event) }).await.is_err() {
            return Ok(());
        }
    }
}
