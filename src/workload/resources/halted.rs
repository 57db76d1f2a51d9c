//! Processes that CRIU could not stop: one whose first thread has ended, and one that waits in the kernel for what does not
//! come. CRIU would hold all others still until its patience is over (10 s), and then give up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Both states also pass by themselves in a moment, so a process that is in one is looked at again so many times.
const LOOKS: u32 = 15;
/// With this between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a process cannot be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halted {
    /// Its first thread has ended, and others go on: CRIU knows no such process.
    FirstThreadEnded,
    /// A thread waits in the kernel, and nothing can interrupt it (state `D`).
    Waits,
}

/// Which of these processes are so, and stay so for some time. Takes no time where none is.
pub fn lasting(pids: &[i32]) -> BTreeMap<i32, Halted> {
    let mut seen: BTreeMap<i32, BTreeSet<Mark>> =
        pids.iter().map(|pid| (*pid, marks(*pid))).filter(|(_, marks)| !marks.is_empty()).collect();
    for _ in 0..LOOKS {
        if seen.is_empty() {
            break;
        }
        std::thread::sleep(PAUSE);
        seen.retain(|pid, before| {
            let now = marks(*pid);
            before.retain(|mark| now.contains(mark));
            !before.is_empty()
        });
    }
    seen.into_iter().filter_map(|(pid, marks)| Some((pid, marks.first()?.halted()))).collect()
}

/// What is the same at two looks only if nothing has moved between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    FirstThreadEnded,
    /// A thread, and how often it has gone to sleep so far: the same number is the same wait.
    Waits(i32, u64),
}

impl Mark {
    fn halted(self) -> Halted {
        match self {
            Self::FirstThreadEnded => Halted::FirstThreadEnded,
            Self::Waits(..) => Halted::Waits,
        }
    }
}

fn marks(pid: i32) -> BTreeSet<Mark> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeSet::new() };
    let threads: Vec<Thread> = threads.flatten().filter_map(|entry| Thread::read(&entry.path())).collect();
    let has_ended = |thread: &Thread| matches!(thread.state, 'Z' | 'X');
    let headless = threads.iter().any(|thread| thread.id == pid && has_ended(thread)) && !threads.iter().all(has_ended);
    let waiting = threads.iter().filter(|thread| thread.state == 'D');
    let waiting = waiting.map(|thread| Mark::Waits(thread.id, thread.sleeps));
    headless.then_some(Mark::FirstThreadEnded).into_iter().chain(waiting).collect()
}

struct Thread {
    id: i32,
    state: char,
    sleeps: u64,
}

impl Thread {
    /// From `/proc/PID/task/TID/status` (`proc_pid_status(5)`).
    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("status")).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        Some(Self {
            id: folder.file_name()?.to_str()?.parse().ok()?,
            state: field("State:")?.chars().next()?,
            sleeps: field("voluntary_ctxt_switches:")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    /// A program that prints its PID first.
    fn python(script: &str) -> (Child, i32) {
        let mut child = Command::new("/usr/bin/python3").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line.trim().parse().unwrap())
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_told_from_others() {
        let script = "import ctypes, os, threading, time\n\
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
            print(os.getpid(), flush=True)\n\
            ctypes.CDLL(None).syscall(ctypes.c_long({'x86_64': 60, 'aarch64': 93}[os.uname().machine]), 0)";
        let (mut child, pid) = python(script);
        let me = i32::try_from(std::process::id()).unwrap();
        while marks(pid).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(lasting(&[pid, me]), BTreeMap::from([(pid, Halted::FirstThreadEnded)]));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(lasting(&[pid]), BTreeMap::new(), "it is gone");
    }

    #[test]
    fn one_that_waits_in_the_kernel_for_good_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let slow = folder.path().join("slow");
        nix::unistd::mkfifo(&slow, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!(
            "import os\nprint(os.getpid(), flush=True)\n\
             os.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, {slow:?}, os.O_RDONLY, 0)])"
        );
        let (mut child, pid) = python(&script);
        while marks(pid).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(lasting(&[pid]), BTreeMap::from([(pid, Halted::Waits)]));
        // Its child begins, and it goes on.
        drop(fs::OpenOptions::new().write(true).open(&slow).unwrap());
        child.wait().unwrap();
        assert_eq!(lasting(&[pid]), BTreeMap::new());
    }
}
