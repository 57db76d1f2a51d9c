//! The process tree as `/proc` shows it: who descends from a root, and in which state each is.

use std::fs;
use std::io;

/// One process, from `/proc/PID/stat` (see `proc_pid_stat(5)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its PID.
    pub pid: i32,
    /// The name of its program, at most 15 characters.
    pub comm: String,
    /// `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z`, `X`, …
    pub state: char,
    /// PID of its parent.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// Processor time that it has used, in user and system mode, in clock ticks.
    pub used: u64,
    /// When it was born, in clock ticks since the machine's start.
    pub started: u64,
}

impl Process {
    /// Reads one process.
    pub fn read(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {text:?}")))
    }

    /// Parses a line of `/proc/PID/stat`. The name may hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(" (")?;
        let (comm, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        Some(Self {
            pid: pid.parse().ok()?,
            comm: comm.to_owned(),
            state: fields.next()?.chars().next()?,
            ppid: fields.next()?.parse().ok()?,
            pgid: fields.next()?.parse().ok()?,
            sid: fields.next()?.parse().ok()?,
            // The 14th and 15th field of the line, and the 22nd; the session is the 6th.
            used: fields.nth(7)?.parse::<u64>().ok()?.saturating_add(fields.next()?.parse().ok()?),
            started: fields.nth(6)?.parse().ok()?,
        })
    }
}

/// Every process in this PID namespace. Processes that end meanwhile are left out.
pub fn all() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            && let Ok(process) = Process::read(pid)
        {
            processes.push(process);
        }
    }
    Ok(processes)
}

/// The root and all its descendants, parents before children.
pub fn below(root: i32) -> io::Result<Vec<Process>> {
    let everyone = all()?;
    let mut tree: Vec<Process> = everyone.iter().filter(|p| p.pid == root).cloned().collect();
    let mut next = 0;
    while let Some(parent) = tree.get(next).map(|p| p.pid) {
        tree.extend(everyone.iter().filter(|p| p.ppid == parent && p.pid != root).cloned());
        next += 1;
    }
    Ok(tree)
}

/// The threads of a process, its main thread included.
pub fn threads(pid: i32) -> io::Result<Vec<i32>> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Whether a process or a thread holds this ID. Threads are not listed in `/proc`, but can be looked up.
pub fn is_taken(id: i32) -> bool {
    fs::metadata(format!("/proc/{id}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_with_parentheses() {
        let process =
            Process::parse("301 (a b) c)) S 300 301 301 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 2").unwrap();
        assert_eq!(process.comm, "a b) c)");
        assert_eq!((process.used, process.started), (5 + 6, 4711));
        assert_eq!((process.pid, process.state, process.ppid, process.pgid, process.sid), (301, 'S', 300, 301, 301));
    }

    #[test]
    fn finds_a_grandchild_and_its_own_threads() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let shell = i32::try_from(child.id()).unwrap();
        let mut found = Vec::new();
        for _ in 0..500 {
            found = below(me).unwrap();
            if found.iter().any(|p| p.ppid == shell) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let sleeper = found.iter().find(|p| p.ppid == shell).expect("the shell's child").pid;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(sleeper), nix::sys::signal::Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert_eq!(found[0].pid, me, "the root comes first");
        assert!(threads(me).unwrap().contains(&me));
        assert!(is_taken(me));
    }
}
