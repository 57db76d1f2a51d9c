//! What a container is, said by a test; and its start.

use super::capture::Capture;
use super::console::Console;
use super::running::Running;
use super::scratch::{Scratch, runc_root};
use super::store::Store;
use super::{cache, overlay, spec};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A container that can be started, any number of times, each time with a fresh root file system:
/// what a pod template is to its pods.
#[derive(Clone)]
pub struct Container {
    pub(super) rootfs: &'static str,
    pub(super) entrypoint: Vec<String>,
    options: Vec<String>,
    command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) mounts: Vec<Mount>,
    pub(super) capabilities: Vec<String>,
    pub(super) seccomp: Option<serde_json::Value>,
    pub(super) user: (u32, u32),
    pub(super) ambient: bool,
    pub(super) tty: bool,
    stdin: bool,
    one_output: bool,
    socket_output: bool,
    reader: Reader,
    clocks_ahead: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) pids_limit: Option<u64>,
    pub(super) writable_groups: bool,
    pub(super) own_network: bool,
    pub(super) read_only_root: bool,
    pub(super) no_new_privileges: bool,
    pub(super) hostname: String,
    pub(super) directory: String,
}

/// Who reads what a container writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// As fast as it comes.
    Ready,
    /// Far slower than a program can write.
    Slow,
    /// Nobody, any more.
    Gone,
}

/// Something of the host inside the container, or a tmpfs.
#[derive(Clone, Default)]
pub(super) struct Mount {
    pub source: Option<PathBuf>,
    pub destination: String,
    pub read_only: bool,
    /// Of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// Of a tmpfs, files that it can hold.
    pub inodes: Option<u64>,
}

impl Mount {
    /// An empty tmpfs without a limit.
    fn at(destination: &str) -> Self {
        Self { destination: destination.into(), ..Self::default() }
    }
}

/// What docker and containerd give to every container.
const USUAL_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

impl Container {
    /// A container whose entrypoint is `revenant run` for this job.
    pub fn of(job: &str) -> Self {
        Self {
            rootfs: "base",
            entrypoint: Vec::new(),
            options: Vec::new(),
            command: Vec::new(),
            environment: BTreeMap::from([("REVENANT_JOB".into(), job.into())]),
            mounts: Vec::new(),
            capabilities: USUAL_CAPABILITIES
                .iter()
                .chain(&["CHECKPOINT_RESTORE", "SYS_PTRACE"])
                .map(ToString::to_string)
                .collect(),
            seccomp: None,
            user: (0, 0),
            ambient: false,
            tty: false,
            stdin: false,
            one_output: false,
            socket_output: false,
            reader: Reader::Ready,
            clocks_ahead: None,
            memory_limit: None,
            pids_limit: None,
            writable_groups: false,
            own_network: false,
            read_only_root: false,
            no_new_privileges: false,
            hostname: "test".into(),
            directory: "/".into(),
        }
    }

    /// What revenant runs: the arguments after `--`.
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Let revenant run a Python program of `tests/workloads`.
    pub fn workload(self, program: &str, arguments: &[&str]) -> Self {
        let program = format!("/workloads/{program}");
        self.command(&[&["python3", program.as_str()], arguments].concat())
    }

    /// More options of `revenant run`, before `--`.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(ToString::to_string));
        self
    }

    /// Run this as the container's PID 1 instead of `revenant run … -- COMMAND`.
    pub fn entrypoint(mut self, arguments: &[&str]) -> Self {
        self.entrypoint = arguments.iter().map(ToString::to_string).collect();
        self
    }

    /// Which cached root file system it has (`base`, `megahit`).
    pub fn rootfs(mut self, variant: &'static str) -> Self {
        self.rootfs = variant;
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The store that revenant uses, with all that it needs to be reached.
    pub fn store(mut self, store: &Store) -> Self {
        self.environment.extend(store.environment());
        match store.directory() {
            Some(directory) => self.mount(directory, "/checkpoints"),
            None => self,
        }
    }

    /// A directory or file of the host, writable.
    pub fn mount(self, source: &Path, destination: &str) -> Self {
        self.with(Mount { source: Some(source.into()), ..Mount::at(destination) })
    }

    /// A directory or file of the host, read-only.
    pub fn mount_read_only(self, source: &Path, destination: &str) -> Self {
        self.with(Mount { source: Some(source.into()), read_only: true, ..Mount::at(destination) })
    }

    /// An empty tmpfs, as an `emptyDir` in memory.
    pub fn tmpfs(self, destination: &str) -> Self {
        self.with(Mount::at(destination))
    }

    /// An empty tmpfs of this size in bytes.
    pub fn tmpfs_of(self, destination: &str, size: u64) -> Self {
        self.with(Mount { size: Some(size), ..Mount::at(destination) })
    }

    /// An empty tmpfs for so many files.
    pub fn tmpfs_for_files(self, destination: &str, inodes: u64) -> Self {
        self.with(Mount { inodes: Some(inodes), ..Mount::at(destination) })
    }

    fn with(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Exactly these capabilities, without `CAP_`.
    pub fn capabilities(mut self, names: &[&str]) -> Self {
        self.capabilities = names.iter().map(ToString::to_string).collect();
        self
    }

    pub fn add_capability(mut self, name: &str) -> Self {
        self.capabilities.push(name.into());
        self
    }

    pub fn drop_capability(mut self, name: &str) -> Self {
        self.capabilities.retain(|capability| capability != name);
        self
    }

    /// A seccomp filter, as a runtime's default profile is one. By default there is none.
    pub fn seccomp_filter(mut self) -> Self {
        self.seccomp = Some(spec::seccomp_filter());
        self
    }

    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = (uid, gid);
        self
    }

    /// The capabilities are an ordinary user's from the start, as `podman --cap-add` gives them.
    pub fn ambient(mut self) -> Self {
        self.ambient = true;
        self
    }

    /// A terminal as standard input, output and error. All that is written to it comes as stdout.
    pub fn tty(mut self) -> Self {
        self.tty = true;
        self
    }

    /// A pipe as standard input, written by [`Running::write_stdin`]. By default it is `/dev/null`.
    pub fn stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Standard output and error as one pipe. All that is written to it comes as stdout.
    pub fn one_output(mut self) -> Self {
        self.one_output = true;
        self
    }

    /// A socket as standard output.
    pub fn socket_output(mut self) -> Self {
        self.socket_output = true;
        self
    }

    /// Who reads standard output, and with [`Reader::Gone`] standard error too.
    pub fn reader(mut self, reader: Reader) -> Self {
        self.reader = reader;
        self
    }

    /// The node's clocks count from its start, and this node has been up so many seconds longer.
    pub fn clocks_ahead(mut self, seconds: u64) -> Self {
        self.clocks_ahead = Some(seconds);
        self
    }

    /// The most memory that the container may use, in bytes.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// The most processes and threads that the container may have.
    pub fn pids_limit(mut self, most: u64) -> Self {
        self.pids_limit = Some(most);
        self
    }

    /// Its control groups can be written, as in a privileged container.
    pub fn writable_groups(mut self) -> Self {
        self.writable_groups = true;
        self
    }

    /// A network of its own that holds only loopback. By default the host's is shared, so that
    /// stores on loopback can be reached.
    pub fn own_network(mut self) -> Self {
        self.own_network = true;
        self
    }

    pub fn read_only_root(mut self) -> Self {
        self.read_only_root = true;
        self
    }

    pub fn no_new_privileges(mut self) -> Self {
        self.no_new_privileges = true;
        self
    }

    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = name.into();
        self
    }

    /// The working directory; it must exist in the root file system or as a mount.
    pub fn directory(mut self, path: &str) -> Self {
        self.directory = path.into();
        self
    }

    /// The arguments of PID 1.
    pub(super) fn arguments(&self) -> Vec<String> {
        if !self.entrypoint.is_empty() {
            return self.entrypoint.clone();
        }
        let run = ["/opt/revenant/bin/revenant".to_owned(), "run".to_owned()].into_iter();
        run.chain(self.options.clone()).chain(["--".to_owned()]).chain(self.command.clone()).collect()
    }

    /// Start it. Returns once its PID 1 runs.
    pub fn start(&self) -> Running {
        assert!(nix::unistd::geteuid().is_root(), "tests with containers need root; run them as root or with sudo");
        // The container's PID 1 outlives runc and becomes our child, so that we see how it ends.
        nix::sys::prctl::set_child_subreaper(true).unwrap();

        let scratch = Scratch::new();
        let root = overlay::mount_on(&cache::rootfs(self.rootfs), scratch.path());
        let config = spec::config(self, &root);
        std::fs::write(scratch.path().join("config.json"), serde_json::to_vec_pretty(&config).unwrap()).unwrap();

        let pid_file = scratch.path().join("pid");
        let mut runc = Command::new("runc");
        if let Some(seconds) = self.clocks_ahead.map(|seconds| seconds.to_string()) {
            runc = Command::new("unshare");
            runc.args(["-T", "--monotonic", &seconds, "--boottime", &seconds, "runc"]);
        }
        runc.arg("--root").arg(runc_root(scratch.path())).args(["run", "--detach", "--pid-file"]).arg(&pid_file);
        runc.arg("--bundle").arg(scratch.path());

        let console = self.tty.then(|| Console::listen(scratch.path()));
        if let Some(console) = &console {
            runc.arg("--console-socket").arg(console.path());
        }
        let (stdout, to_stdout) = self.output();
        let (stderr, to_stderr) = std::io::pipe().unwrap();
        let to_stderr = if self.one_output { to_stdout.try_clone().unwrap() } else { OwnedFd::from(to_stderr) };
        let (from_stdin, stdin) = std::io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        runc.stdout(to_stdout).stderr(to_stderr);
        runc.stdin(if self.stdin { Stdio::from(from_stdin) } else { Stdio::from(null) });
        let status = runc.arg(scratch.name()).status().expect("runc cannot be run; see `make deps`");
        drop(runc); // and with it our copies of the container's ends of the pipes

        let capture = |output: OwnedFd| match self.reader {
            Reader::Ready => Capture::of(output),
            Reader::Slow => Capture::slowly(output),
            Reader::Gone => Capture::ended(),
        };
        let stderr = if self.reader == Reader::Gone { Capture::ended() } else { Capture::of(OwnedFd::from(stderr)) };
        assert!(status.success(), "runc could not start the container: {}", {
            stderr.wait_for_end(std::time::Instant::now() + super::PATIENCE);
            stderr.text()
        });
        let init = Pid::from_raw(std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap());
        let (stdout, stdin) = match console.map(|console| console.receive()) {
            Some(master) => (Capture::of(master.try_clone().unwrap()), Some(File::from(master))),
            None => (capture(stdout), self.stdin.then(|| File::from(OwnedFd::from(stdin)))),
        };
        Running::new(scratch, root, init, stdin, stdout, stderr)
    }

    /// Where standard output is read, and where it is written.
    fn output(&self) -> (OwnedFd, OwnedFd) {
        if self.socket_output {
            let (ours, theirs) = UnixStream::pair().unwrap();
            return (ours.into(), theirs.into());
        }
        let (ours, theirs) = std::io::pipe().unwrap();
        (ours.into(), theirs.into())
    }
}
