//! One process of the job: its rights, its tracer, its namespaces, and what it holds.

use super::descriptor::{self, Descriptor};
use super::halted::Halted;
use super::mapping::{self, Special};
use crate::workload::tree::Process;
use std::collections::BTreeSet;
use std::fs;

/// The namespaces that CRIU takes as the root's when it is not told otherwise.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// A process and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its PID.
    pub pid: i32,
    /// The name of its program.
    pub program: String,
    /// Its real user.
    pub uid: u32,
    /// Its real group.
    pub gid: u32,
    /// Its effective or saved user or group is another one.
    pub mixed: bool,
    /// The lists of processors that its threads may run on, as the kernel writes them.
    pub processors: BTreeSet<String>,
    /// Why it cannot be stopped.
    pub halted: Option<Halted>,
    /// Who traces it or one of its threads.
    pub tracer: Option<i32>,
    /// A thread of it has a seccomp filter.
    pub filtered: bool,
    /// Namespaces that are not those of the tree's root.
    pub foreign: Vec<&'static str>,
    /// Open descriptors.
    pub descriptors: Vec<Descriptor>,
    /// Unusual mappings.
    pub special: Special,
}

impl Holder {
    /// Reads one process; none if it has ended.
    pub fn read(process: &Process, root_namespaces: &[Option<String>]) -> Option<Self> {
        let pid = process.pid;
        let status = Status::of(&format!("/proc/{pid}"))?;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let threads: Vec<Status> = threads.filter_map(|thread| Status::of(&thread.path().to_string_lossy())).collect();
        let ended = matches!(process.state, 'Z' | 'X');
        let foreign = |names: [&'static str; 7]| {
            let differs = |(name, theirs): &(&str, &Option<String>)| {
                let own = namespace(pid, name);
                own.is_some() && theirs.is_some() && own != **theirs
            };
            names.into_iter().zip(root_namespaces).filter(differs).map(|(name, _)| name).collect()
        };
        Some(Self {
            pid,
            program: process.comm.clone(),
            uid: status.users[0],
            gid: status.groups[0],
            mixed: status.is_mixed(),
            processors: threads.iter().map(|thread| thread.processors.clone()).collect(),
            halted: None,
            tracer: threads.iter().map(|thread| thread.tracer).find(|tracer| *tracer != 0),
            filtered: threads.iter().any(|thread| thread.seccomp != 0),
            foreign: if ended { Vec::new() } else { foreign(NAMESPACES) },
            descriptors: descriptor::of(pid),
            special: mapping::of(pid),
        })
    }
}

/// The namespaces of a process, in the order of [`NAMESPACES`].
pub fn namespaces(pid: i32) -> Vec<Option<String>> {
    NAMESPACES.iter().map(|name| namespace(pid, name)).collect()
}

/// One namespace of a process, as `ipc:[4026531839]`; none if it may not be read.
pub fn namespace(pid: i32, name: &str) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()?.to_string_lossy().into_owned())
}

/// One namespace of this process.
pub fn namespace_of_caller(name: &str) -> Option<String> {
    Some(fs::read_link(format!("/proc/self/ns/{name}")).ok()?.to_string_lossy().into_owned())
}

#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// Real, effective and saved.
    users: [u32; 3],
    groups: [u32; 3],
    tracer: i32,
    seccomp: u8,
    processors: String,
}

impl Status {
    fn of(directory: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("{directory}/status")).ok()?)
    }

    /// Whether it is nobody's alone: the kernel asks for all six when somebody wants to know its limits (`prlimit(2)`).
    fn is_mixed(&self) -> bool {
        [self.users, self.groups].iter().any(|ids| ids.iter().any(|id| *id != ids[0]))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next())
        };
        let three = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let ids: Vec<u32> = rest.split_whitespace().take(3).filter_map(|id| id.parse().ok()).collect();
            <[u32; 3]>::try_from(ids).ok()
        };
        Some(Self {
            users: three("Uid")?,
            groups: three("Gid")?,
            tracer: field("TracerPid")?.parse().ok()?,
            seccomp: field("Seccomp").and_then(|value| value.parse().ok()).unwrap_or(0),
            processors: field("Cpus_allowed_list").unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_text() {
        let text = "Name:\tpython3\nState:\tS (sleeping)\nTracerPid:\t77\nUid:\t1000\t1000\t1000\t1000\n\
                    Gid:\t50\t60\t70\t60\nSeccomp:\t2\nCpus_allowed:\t5\nCpus_allowed_list:\t0,2\n";
        let status = Status::parse(text).unwrap();
        let processors = "0,2".to_owned();
        assert_eq!(status, Status { users: [1000; 3], groups: [50, 60, 70], tracer: 77, seccomp: 2, processors });
        assert!(status.is_mixed());
        assert!(!Status { groups: [50; 3], ..status }.is_mixed());
        assert_eq!(Status::parse("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_in_the_root_s_namespaces_has_none_of_its_own() {
        let me = i32::try_from(std::process::id()).unwrap();
        let holder = Holder::read(&Process::read(me).unwrap(), &namespaces(me)).unwrap();
        assert!(holder.foreign.is_empty() && holder.tracer.is_none() && !holder.descriptors.is_empty());
        let elsewhere = vec![Some("ipc:[1]".to_owned()); 7];
        assert_eq!(Holder::read(&Process::read(me).unwrap(), &elsewhere).unwrap().foreign.len(), 7);
    }
}
