//! A container that runs: what a person could do to it, and what they would see.

use super::PATIENCE;
use super::capture::Capture;
use super::scratch::{Scratch, runc_root};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// A started container. Killed and removed when dropped.
pub struct Running {
    scratch: Scratch,
    root: PathBuf,
    init: Pid,
    stdin: Mutex<Option<File>>,
    stdout: Capture,
    stderr: Capture,
    exit: Mutex<Option<i32>>,
}

impl Running {
    pub(super) fn new(
        scratch: Scratch,
        root: PathBuf,
        init: Pid,
        stdin: Option<File>,
        stdout: Capture,
        stderr: Capture,
    ) -> Self {
        Self { scratch, root, init, stdin: Mutex::new(stdin), stdout, stderr, exit: Mutex::new(None) }
    }

    /// PID 1 of the container, as the host sees it.
    pub fn pid(&self) -> i32 {
        self.init.as_raw()
    }

    /// Its root file system, as the host sees it. It is there until this value is dropped.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every process of the container, as the host sees them.
    pub fn processes(&self) -> Vec<i32> {
        let output = self.runc("ps").args(["--format", "json", &self.scratch.name()]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Send a signal to PID 1.
    pub fn signal(&self, signal: Signal) {
        let exit = self.exit.lock().unwrap();
        if exit.is_none() {
            let _ = kill(self.init, signal);
        }
    }

    /// Kill PID 1, and with it everything in the container, as an OOM kill or a lost node does.
    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.wait(), 128 + 9, "the container had ended before it was killed");
    }

    /// The container's exit code: the program's own, or 128 + n when signal n killed it.
    pub fn wait(&self) -> i32 {
        self.wait_for(PATIENCE)
    }

    /// As [`Self::wait`], for something that takes longer.
    pub fn wait_for(&self, patience: Duration) -> i32 {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(code) = self.exit() {
                // Whatever it wrote is to be seen by whoever asks next.
                self.stdout.wait_for_end(Instant::now() + Duration::from_secs(10));
                self.stderr.wait_for_end(Instant::now() + Duration::from_secs(10));
                return code;
            }
            assert!(Instant::now() < deadline, "the container has not ended within {patience:?}");
            sleep(POLL);
        }
    }

    /// The exit code, if it has ended.
    pub fn exit(&self) -> Option<i32> {
        let mut exit = self.exit.lock().unwrap();
        if exit.is_none() {
            *exit = match waitpid(self.init, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
                Ok(_) => None,
                Err(error) => panic!("the container's PID 1 is not our child: {error}"),
            };
        }
        *exit
    }

    /// All that it has written to standard output.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The complete lines of standard output.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// All that it has written to standard error.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Wait for a line with this text on standard output.
    pub fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_line_within(text, PATIENCE)
    }

    /// As [`Self::wait_for_line`], for something that takes longer.
    pub fn wait_for_line_within(&self, text: &str, patience: Duration) -> String {
        self.stdout
            .wait_for_line(text, Instant::now() + patience)
            .unwrap_or_else(|| panic!("no line with {text:?} on standard output within {patience:?}"))
    }

    /// Wait until so many lines of standard output begin with this.
    pub fn wait_for_lines(&self, beginning: &str, count: usize) {
        self.wait_until(&format!("{count} lines that begin with {beginning:?}"), || {
            self.stdout_lines().iter().filter(|line| line.starts_with(beginning)).count() >= count
        });
    }

    /// Wait until a process with this command line runs in the container; its PID as the host sees it.
    pub fn wait_for_process(&self, command_line: &str) -> i32 {
        self.wait_for_process_in(command_line, "RSDTt")
    }

    /// The same, until it is in this state of `/proc/PID/stat`.
    pub fn wait_for_process_state(&self, command_line: &str, state: char) -> i32 {
        self.wait_for_process_in(command_line, &state.to_string())
    }

    fn wait_for_process_in(&self, command_line: &str, states: &str) -> i32 {
        let mut found = None;
        self.wait_until(&format!("a process {command_line:?} in state {states}"), || {
            found = self.processes().into_iter().find(|pid| {
                let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
                String::from_utf8_lossy(&arguments).replace('\0', " ").trim_end() == command_line
                    && state.is_some_and(|state| states.contains(state))
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// Wait for something that can be seen from outside.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "there was no {what} within {PATIENCE:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Wait for a line with this text on standard error.
    pub fn wait_for_stderr_line(&self, text: &str) -> String {
        self.stderr
            .wait_for_line(text, Instant::now() + PATIENCE)
            .unwrap_or_else(|| panic!("no line with {text:?} on standard error within {PATIENCE:?}"))
    }

    /// Write to its standard input (a pipe or terminal, if it was asked for).
    pub fn write_stdin(&self, text: &str) {
        let mut stdin = self.stdin.lock().unwrap();
        stdin.as_mut().expect("the container has no standard input").write_all(text.as_bytes()).unwrap();
    }

    /// End its standard input.
    pub fn close_stdin(&self) {
        self.stdin.lock().unwrap().take();
    }

    /// Give its terminal another size, as a person does who drags a window's corner.
    pub fn resize(&self, rows: u16, columns: u16) {
        let terminal = self.stdin.lock().unwrap();
        super::console::resize(terminal.as_ref().expect("the container has no terminal"), rows, columns);
    }

    /// Run a command in the container, as `kubectl exec` does, to its end.
    pub fn exec(&self, arguments: &[&str]) -> Output {
        self.exec_in_background(arguments).wait()
    }

    /// Run a command in the container and go on.
    pub fn exec_in_background(&self, arguments: &[&str]) -> Exec {
        let mut command = self.runc("exec");
        command.arg(self.scratch.name()).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Capture::of(OwnedFd::from(child.stdout.take().unwrap()));
        let stderr = Capture::of(OwnedFd::from(child.stderr.take().unwrap()));
        Exec { what: arguments.join(" "), child, stdout, stderr }
    }

    fn runc(&self, verb: &str) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(runc_root(self.scratch.path())).arg(verb);
        command
    }

    /// Everything that helps to understand a failed test.
    pub fn report(&self) -> String {
        let mut report = String::new();
        let state = self.exit().map_or("running".to_owned(), |code| format!("ended with {code}"));
        let _ = writeln!(report, "---- container {}: {state}", self.scratch.name());
        let mut section = |title: &str, text: &str| {
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            let _ = writeln!(report, "-- {title} ({} lines)\n{}", lines.len(), tail.join("\n"));
        };
        section("stdout", &self.stdout());
        section("stderr", &self.stderr());
        // A tmpfs of the container is only seen through its processes.
        let through_init = PathBuf::from(format!("/proc/{}/root", self.init));
        let root = if self.exit().is_none() { through_init } else { self.root.clone() };
        for log in logs(&root) {
            section(&log.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()));
        }
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
        self.signal(Signal::SIGKILL);
        let deadline = Instant::now() + PATIENCE;
        while self.exit().is_none() && Instant::now() < deadline {
            sleep(POLL);
        }
    }
}

/// CRIU's logs: the `*.log` files where programs keep what is temporary.
fn logs(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.join("run"), root.join("tmp"), root.join("dev/shm")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_file() && entry.path().extension().is_some_and(|end| end == "log") => {
                    found.push(entry.path());
                }
                _ => {}
            }
        }
    }
    found
}

/// A command that runs in a container beside its PID 1.
pub struct Exec {
    what: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

/// How a command ended, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Exec {
    /// Wait for its end.
    pub fn wait(mut self) -> Output {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "`{}` has not ended within {PATIENCE:?}; it said:\n{}{}",
                self.what,
                self.stdout.text(),
                self.stderr.text()
            );
            sleep(POLL);
        };
        self.stdout.wait_for_end(deadline);
        self.stderr.wait_for_end(deadline);
        Output { code: status.code().unwrap_or(-1), stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Wait for a line with this text on its standard output.
    pub fn wait_for_line(&self, text: &str) -> String {
        self.stdout
            .wait_for_line(text, Instant::now() + PATIENCE)
            .unwrap_or_else(|| panic!("`{}` wrote no line with {text:?}: {}", self.what, self.stderr.text()))
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
