//! The program of a hook as PID 1 sees it: a child in a process group of its own, outside of the workload's tree.
//!
//! It is started by way of this same program (`revenant hook`), so that PID 1 never waits for an `execve` on a file
//! system that may hang.

use crate::workload::command::Command;
use crate::workload::environment;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Stdio};

/// proc(5): when memory runs out, the hook goes, not the workload.
const MOST_KILLABLE: &str = "1000";

/// Starts it; returns its PID, which is also that of its process group. What it writes goes to revenant's log, its
/// stdin is empty, and no other descriptor of revenant's reaches it (all are close-on-exec).
pub fn start(command: &Command, variables: &[(&'static str, String)]) -> io::Result<i32> {
    let log = io::stderr().as_fd().try_clone_to_owned()?;
    let child = process::Command::new("/proc/self/exe")
        .arg0("revenant")
        .args(["hook", "--"])
        .arg(&command.program)
        .args(&command.argv)
        .env_clear()
        .envs(environment::for_workload())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), MOST_KILLABLE);
    // Dropping the handle neither kills nor reaps: the supervisor reaps every child.
    Ok(pid)
}

/// Ends it and all that it has left in its process group.
pub fn kill(pid: i32) {
    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
}
