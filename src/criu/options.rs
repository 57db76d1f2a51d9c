//! What a dump or restore is asked to do, as CRIU's arguments. Pure: nothing here runs anything.
//!
//! The set of options is the one measured to work in shared namespaces over any number of
//! generations.

use crate::checkpoint::needs::Needs;
use crate::checkpoint::protocol::TtyKey;
use crate::workload::clock::Offsets;
use crate::workload::credentials::Credentials;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The log of a dump, in the images directory.
pub const DUMP_LOG: &str = "dump.log";
/// The log of a restore, in the images directory.
pub const RESTORE_LOG: &str = "restore.log";
/// Where a restore writes the PID of the restored root, in the images directory.
pub const PID_FILE: &str = "root.pid";
/// What CRIU prints before its log exists (wrong options, missing libraries).
pub const OUTPUT: &str = "criu.out";

/// How much CRIU logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// Errors only.
    Errors = 1,
    /// Also warnings.
    Warnings = 2,
    /// Also the steps. Explanations need no more than errors; the steps tell where it was.
    #[default]
    Steps = 3,
    /// Everything. A restore of forked processes writes a line for each page: most of its time went there.
    Everything = 4,
}

/// With which rights CRIU works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rights {
    /// `--unprivileged`: `CAP_CHECKPOINT_RESTORE` (and `CAP_SETPCAP`) suffice.
    #[default]
    Unprivileged,
    /// Plain CRIU, for a job with PID, IPC and mount namespaces of its own: needs `SYS_ADMIN`, `NET_ADMIN`, `SYS_TIME`,
    /// `SETPCAP` and `SYS_CHROOT`.
    Privileged,
}

/// What happens to the tree after a successful dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It runs on.
    Running,
    /// It stays stopped, as after SIGSTOP.
    Stopped,
    /// CRIU kills it.
    Killed,
}

/// One dump.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// Root of the tree.
    pub pid: i32,
    /// Private directory for the socket, the log and CRIU's own files. Absolute; at most
    /// [`super::stream::LONGEST_DIRECTORY`] bytes, or the socket's address does not fit.
    pub images: PathBuf,
    /// What happens to the tree.
    pub afterwards: Afterwards,
    /// CRIU's rights.
    pub rights: Rights,
    /// How much it logs.
    pub verbosity: Verbosity,
    /// The program that CRIU runs as its action script: revenant itself (see [`super::hook`]).
    pub script: Option<PathBuf>,
    /// Terminals that the tree uses but that belong to revenant.
    pub ttys: Vec<TtyKey>,
    /// What the tree's resources ask for.
    pub needs: Needs,
    /// Whose the tree is; none for revenant's own user.
    pub owner: Option<Credentials>,
    /// A library to load first (see [`super::preload`]).
    pub preload: Option<PathBuf>,
}

/// A descriptor of the new container that takes the place of one that the tree had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InheritFd {
    /// The descriptor, in this process. CRIU gets it under the same number. Each key needs a
    /// descriptor of its own (`dup`), never a shared one.
    pub fd: RawFd,
    /// What it replaces.
    pub key: Resource,
}

/// How CRIU names a resource from outside the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A terminal.
    Tty(TtyKey),
    /// Any file by its link text, for example `pipe:[4711]`, or a path without its leading slash.
    Link(String),
}

/// One restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Private directory, as for [`DumpOptions::images`].
    pub images: PathBuf,
    /// CRIU's rights.
    pub rights: Rights,
    /// How much it logs.
    pub verbosity: Verbosity,
    /// The program that CRIU runs as its action script, as for a dump.
    pub script: Option<PathBuf>,
    /// The new container's descriptors.
    pub inherit: Vec<InheritFd>,
    /// Established TCP connections go on.
    pub keeps_tcp: bool,
    /// The tree gets a time namespace of its own with these offsets. Plain CRIU makes one by itself.
    pub clock: Option<Offsets>,
    /// Pages come later, from [`super::lazy_pages`]; the images are files then, not streamed.
    pub lazy_pages: bool,
    /// A library to load first (see [`super::preload`]).
    pub preload: Option<PathBuf>,
}

impl DumpOptions {
    /// A dump by streaming, with least rights.
    pub fn new(pid: i32, images: impl Into<PathBuf>, afterwards: Afterwards) -> Self {
        Self {
            pid,
            images: images.into(),
            afterwards,
            rights: Rights::default(),
            verbosity: Verbosity::default(),
            script: None,
            ttys: Vec::new(),
            needs: Needs::default(),
            owner: None,
            preload: None,
        }
    }

    /// The arguments, from the subcommand on.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Arguments::new("dump", self.rights);
        arguments.pair("-t", self.pid.to_string());
        arguments.pair("-D", &self.images);
        arguments.log(DUMP_LOG, self.verbosity);
        arguments.shared("--stream");
        arguments.flag("--link-remap");
        arguments.tcp(self.needs.keeps_tcp);
        arguments.namespaces(self.rights);
        arguments.pair("--ghost-limit", self.needs.ghost_limit.to_string());
        if !self.needs.watched.is_empty() {
            arguments.flag("--force-irmap");
        }
        for path in &self.needs.watched {
            arguments.pair("--irmap-scan-path", path);
        }
        match self.afterwards {
            Afterwards::Running => arguments.flag("--leave-running"),
            Afterwards::Stopped => arguments.flag("--leave-stopped"),
            Afterwards::Killed => {}
        }
        if let Some(script) = &self.script {
            arguments.pair("--action-script", script);
        }
        for tty in &self.ttys {
            arguments.pair("--external", Resource::Tty(*tty).to_string());
        }
        arguments.0
    }
}

impl RestoreOptions {
    /// A restore by streaming, with least rights.
    pub fn new(images: impl Into<PathBuf>) -> Self {
        Self {
            images: images.into(),
            rights: Rights::default(),
            verbosity: Verbosity::default(),
            script: None,
            inherit: Vec::new(),
            keeps_tcp: false,
            clock: None,
            lazy_pages: false,
            preload: None,
        }
    }

    /// The arguments, from the subcommand on.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Arguments::new("restore", self.rights);
        arguments.flag("-d");
        arguments.pair("--pidfile", PID_FILE);
        arguments.pair("-D", &self.images);
        arguments.log(RESTORE_LOG, self.verbosity);
        arguments.shared(if self.lazy_pages { "--lazy-pages" } else { "--stream" });
        if let Some(script) = &self.script {
            arguments.pair("--action-script", script);
        }
        arguments.tcp(self.keeps_tcp);
        arguments.namespaces(self.rights);
        for inherit in &self.inherit {
            arguments.pair("--inherit-fd", format!("fd[{}]:{}", inherit.fd, inherit.key));
        }
        arguments.0
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tty(TtyKey { rdev, dev }) => write!(f, "tty[{rdev:x}:{dev:x}]"),
            Self::Link(text) => f.write_str(text),
        }
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn new(subcommand: &str, rights: Rights) -> Self {
        let mut arguments = Self(vec![subcommand.into()]);
        if rights == Rights::Unprivileged {
            arguments.flag("--unprivileged");
        }
        arguments
    }

    fn flag(&mut self, name: &str) {
        self.0.push(name.into());
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.flag(name);
        self.0.push(value.into());
    }

    fn log(&mut self, name: &str, verbosity: Verbosity) {
        self.pair("-o", name);
        self.flag(&format!("-v{}", verbosity as u8));
    }

    /// What dump and restore must agree on: locks are lost in silence unless both sides name them.
    fn shared(&mut self, images: &str) {
        for flag in ["--file-locks", "--ext-unix-sk", images] {
            self.flag(flag);
        }
    }

    /// The job's mount namespace shows the container's mounts, which are found again at the same places instead of
    /// being saved; `/` is said because CRIU would otherwise look for one of its own.
    fn namespaces(&mut self, rights: Rights) {
        if rights == Rights::Privileged {
            self.pair("--external", "mnt[]:ms");
            self.pair("--root", "/");
        }
    }

    /// Keeping does not lock the network: CRIU's firewall rules would stay behind in the container's network, and
    /// connections inside the job need none (both ends are frozen).
    fn tcp(&mut self, keep: bool) {
        if keep {
            self.flag("--tcp-established");
            self.pair("--network-lock", "skip");
        } else {
            self.flag("--tcp-close");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[OsString]) -> String {
        arguments.join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn a_dump_that_leaves_the_tree_stopped() {
        let options = DumpOptions::new(300, "/run/revenant/dump", Afterwards::Stopped);
        insta::assert_snapshot!(line(&options.arguments()), @"dump --unprivileged -t 300 -D /run/revenant/dump -o dump.log -v3 --file-locks --ext-unix-sk --stream --link-remap --tcp-close --ghost-limit 1073741824 --leave-stopped");
    }

    #[test]
    fn a_dump_of_nested_namespaces_with_a_terminal() {
        let mut options = DumpOptions::new(300, "/run/revenant/dump", Afterwards::Running);
        options.rights = Rights::Privileged;
        options.ttys = vec![TtyKey { rdev: 0x8801, dev: 0x2d }];
        insta::assert_snapshot!(line(&options.arguments()), @"dump -t 300 -D /run/revenant/dump -o dump.log -v3 --file-locks --ext-unix-sk --stream --link-remap --tcp-close --external mnt[]:ms --root / --ghost-limit 1073741824 --leave-running --external tty[8801:2d]");
    }

    #[test]
    fn a_restore_with_new_stdio() {
        let mut options = RestoreOptions::new("/run/revenant/restore");
        options.inherit = vec![
            InheritFd { fd: 7, key: Resource::Link("pipe:[4711]".into()) },
            InheritFd { fd: 8, key: Resource::Tty(TtyKey { rdev: 0x8800, dev: 0x2d }) },
        ];
        insta::assert_snapshot!(line(&options.arguments()), @"restore --unprivileged -d --pidfile root.pid -D /run/revenant/restore -o restore.log -v3 --file-locks --ext-unix-sk --stream --tcp-close --inherit-fd fd[7]:pipe:[4711] --inherit-fd fd[8]:tty[8800:2d]");
    }
}
