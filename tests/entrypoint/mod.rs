//! Starting `revenant run` as PID 1 of a PID namespace of its own, without CRIU or a container runtime.
#![allow(dead_code)] // Each test file uses a part of it.
#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// What has to happen, happens within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// `revenant run --store none OPTIONS -- /bin/sh -c SCRIPT` as PID 1.
pub fn as_pid_1(options: &[&str], script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(env!("CARGO_BIN_EXE_revenant")).args(run(options, script));
    quiet(command)
}

/// The same, but as an ordinary process among others.
pub fn not_as_pid_1(options: &[&str], script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_revenant"));
    command.args(run(options, script));
    quiet(command)
}

fn run<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["run", "--store", "none"], options, &["--", "/bin/sh", "-c", script]].concat()
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).env("REVENANT_RUNTIME_DIR", scratch());
    command
}

/// A new runtime directory, so that tests do not meet on one socket.
fn scratch() -> PathBuf {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep()
}

/// Runs to the end; its output as text.
pub fn outcome(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (code(status), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The exit code as a shell shows it.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// The entrypoint below `unshare`, as this namespace sees it.
pub fn entrypoint(unshare: &Child) -> i32 {
    until(|| {
        let path = format!("/proc/{0}/task/{0}/children", unshare.id());
        std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
    })
}

/// Waits until something is there.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
