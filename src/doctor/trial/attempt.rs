//! One container's worth of the trial: an entrypoint with the test process.

use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::kill;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What has to happen, happens within this time. A small process takes a tenth of a second; a restore may take
/// another minute to list a huge image.
const PATIENCE: Duration = Duration::from_secs(150);
/// From one look at an ending entrypoint to the next.
const LOOK: Duration = Duration::from_millis(10);
/// The most that is kept of its log, in bytes.
const LOG: u64 = 64 << 10;

pub(super) struct Attempt {
    child: Child,
    beats: Receiver<u64>,
    last: u64,
    log: Option<JoinHandle<String>>,
}

impl Attempt {
    /// Starts `revenant run` on a store in `folder`.
    pub(super) fn start(folder: &Path) -> Result<Self, Problem> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["run", "--job", "doctor", "--tty", "never", "--ignore", "/", "--grace", "60s", "--lease", "1s"]);
        command.arg("--store").arg(format!("file://{}/store", folder.display()));
        command.arg("--runtime-dir").arg(folder.join("run"));
        // Not by `/proc/self/exe`: that would be the reaper, which starts it.
        let program = std::fs::read_link("/proc/self/exe")
            .map_err(|error| failed(&format!("/proc/self/exe cannot be read: {error}"), ""))?;
        command.arg("--").arg(program).arg("pulse");
        // What is meant for the workload's entrypoint is not meant for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REVENANT_") && name != crate::criu::binary::CRIU_VARIABLE {
                command.env_remove(name);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format!("the entrypoint cannot be started: {error}"), ""))?;
        let (told, beats) = channel();
        if let Some(stdout) = child.stdout.take() {
            // It ends with the pipe: when the entrypoint and the test process are gone.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if line.parse().is_ok_and(|beat| told.send(beat).is_err()) {
                        return;
                    }
                }
            });
        }
        let log = child.stderr.take().map(|stderr| {
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = stderr.take(LOG).read_to_string(&mut text);
                text
            })
        });
        Ok(Self { child, beats, last: 0, log })
    }

    /// Waits for the first beat and then `more` of them; returns the first.
    pub(super) fn beat_after(&mut self, more: u64) -> Result<u64, Problem> {
        let first = self.beat()?;
        for _ in 0..more {
            self.beat()?;
        }
        Ok(first)
    }

    fn beat(&mut self) -> Result<u64, Problem> {
        match self.beats.recv_timeout(PATIENCE) {
            Ok(beat) => {
                self.last = beat;
                Ok(beat)
            }
            Err(RecvTimeoutError::Timeout) => Err(self.fail("the test process does not run")),
            Err(RecvTimeoutError::Disconnected) => Err(self.fail("the test process has ended")),
        }
    }

    /// SIGTERM, as from a kubelet: it has to end with "saved and stopped".
    pub(super) fn stop_saved(&mut self) -> Result<(), Problem> {
        self.signal(Signal::SIGTERM);
        match self.wait() {
            Some(status) if status.code() == Some(i32::from(Exit::SavedAndStopped.code())) => Ok(()),
            Some(_) => Err(self.fail("the test process was not saved")),
            None => Err(self.fail("the save of the test process does not end")),
        }
    }

    /// The last beat that was heard, of all that were written.
    pub(super) fn last_beat(&mut self) -> u64 {
        while let Ok(beat) = self.beats.recv_timeout(PATIENCE) {
            self.last = beat;
        }
        self.last
    }

    /// Ends it, whatever it does.
    pub(super) fn end(&mut self) {
        self.signal(Signal::SIGINT);
        if self.wait().is_none() {
            self.kill();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill::send(pid, signal);
        }
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    /// The tree first: without its entrypoint it would be somebody else's.
    fn kill(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill::kill_below(pid, &[]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn fail(&mut self, what: &str) -> Problem {
        self.kill();
        let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
        failed(what, &log)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.kill();
        }
    }
}

fn failed(what: &str, log: &str) -> Problem {
    // The first complaint is the cause, what follows are its consequences.
    let complaints =
        log.split("revenant: ").filter(|part| part.starts_with("warning: ") || part.starts_with("error: "));
    let cause = complaints.last().map_or_else(|| log.lines().last().unwrap_or_default().trim(), str::trim);
    Problem::new(
        Exit::CriuUnusable,
        what,
        cause,
        "run this by hand to see all of it: revenant run --store file:///tmp/doctor -- sleep 60, and stop it by SIGTERM",
    )
}

pub(super) fn went_back(last: u64, next: u64) -> Problem {
    Problem::new(
        Exit::Internal,
        format!("the restored process went on with beat {next}, but {last} was its last"),
        "its state was not carried faithfully",
        "please report it",
    )
}
