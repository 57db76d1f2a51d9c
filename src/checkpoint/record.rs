//! What a manifest remembers of the workload besides its images: everything that the next
//! container must know before it dares to restore.

use super::compatibility::{self, CpuPolicy, Misfit, Surroundings};
use super::protocol::Stdio;
use crate::criu::probe::{Capability, Rights};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::clock::Clocks;
use crate::workload::credentials::Credentials;
use crate::workload::isolation::{FOR_ALL, lacking_for_all};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The newest record layout that this build reads and the one that it writes.
pub const RECORD_VERSION: u32 = 1;

/// Facts about one checkpoint, stored inside its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`] at the time of writing.
    pub version: u32,
    /// Why it was made: `SIGTERM`, `request`, `schedule`, …
    pub reason: String,
    /// PID of the reaper, the root of the tree.
    pub root_pid: i32,
    /// PID of the user's command.
    pub command_pid: i32,
    /// Every process and thread ID that a restore takes, ascending.
    pub pids: Vec<i32>,
    /// The descriptors that were shared with the container.
    pub stdio: Stdio,
    /// Where the reaper's program must lie.
    pub reaper_path: PathBuf,
    /// The machine and the programs that made it.
    pub host: Host,
    /// For how long the workload was frozen, in milliseconds.
    pub frozen_ms: u64,
    /// Its TCP connections were saved to go on.
    #[serde(default)]
    pub keeps_tcp: bool,
    /// What its container offered and it used; none in records of revenant 0.1.0's first builds.
    #[serde(default)]
    pub made_in: Option<Surroundings>,
    /// What the clocks showed to the workload when it was frozen. None in checkpoints of the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<Clocks>,
    /// It has an IPC namespace of its own, which is in the images.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_ipc: bool,
    /// It has PID and mount namespaces of its own besides: the IDs here are what it sees, and the root's is 1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_pids: bool,
    /// Whose the processes are. None in checkpoints of the first version: revenant's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Credentials>,
}

/// The machine and the programs at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Architecture as the kernel names it, for example `x86_64`.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Bytes a page.
    pub page_size: u64,
    /// Version of CRIU, for example `4.2.1`.
    pub criu: String,
    /// Version of revenant.
    pub revenant: String,
    /// `CLOCK_MONOTONIC` in whole seconds.
    pub monotonic_seconds: u64,
}

impl Host {
    /// Reads the facts of this machine.
    pub fn here(criu_version: &str) -> Self {
        let uts = nix::sys::utsname::uname().ok();
        let text =
            |value: Option<&std::ffi::OsStr>| value.map_or_else(String::new, |v| v.to_string_lossy().into_owned());
        Self {
            arch: text(uts.as_ref().map(nix::sys::utsname::UtsName::machine)),
            kernel: text(uts.as_ref().map(nix::sys::utsname::UtsName::release)),
            page_size: page_size(),
            criu: criu_version.to_owned(),
            revenant: env!("CARGO_PKG_VERSION").to_owned(),
            monotonic_seconds: monotonic().as_secs(),
        }
    }
}

/// Bytes a page on this machine.
fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// Time since an arbitrary point on this machine; it may be lower on another node.
fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

impl Record {
    /// What the clocks showed to the workload, as exactly as it is known.
    pub fn clocks(&self) -> Clocks {
        let about = Duration::from_secs(self.host.monotonic_seconds);
        self.clocks.unwrap_or(Clocks { monotonic: about, boottime: about })
    }

    /// Reads a record from a manifest; newer layouts are refused by name.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, Problem> {
        let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if version != u64::from(RECORD_VERSION) {
            return Err(Problem::new(
                Exit::RestoreRefused,
                format!("the checkpoint's record has layout {version}, this revenant reads layout {RECORD_VERSION}"),
                "the checkpoint was made by another version of revenant",
                "use the revenant version that made it, or a newer one",
            ));
        }
        serde_json::from_value(value.clone()).map_err(|error| {
            Problem::new(
                Exit::Damaged,
                format!("the checkpoint's record cannot be read: {error}"),
                "the manifest was written by a revenant with a defect, or by something else",
                "use an older generation: `revenant list` shows them",
            )
        })
    }

    /// Refuses processes of a user that this container cannot give them. Root's CRIU restores everybody's, as root: only
    /// to save them it must be who they are.
    pub fn refuse_of_another_user(&self) -> Result<(), Problem> {
        let Some(owner) = self.owner.as_ref().filter(|owner| owner.is_not_ours()) else { return Ok(()) };
        let rights = Rights::current().unwrap_or_default();
        let missing = rights.lacking(&Capability::FOR_ANOTHER_USER);
        if missing.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            Exit::RestoreRefused,
            format!(
                "the workload runs as user {} with group {}, this container as user {}",
                owner.uid, owner.gid, rights.uid
            ),
            format!("to act for another user, revenant needs capabilities that it lacks: {}", missing.join(", ")),
            format!("let the container run as that user: runAsUser: {}, runAsGroup: {}", owner.uid, owner.gid),
        ))
    }

    /// Refuses where the job's namespaces cannot be made again.
    pub fn refuse_without_its_namespaces(&self) -> Result<(), Problem> {
        let rights = Rights::current().unwrap_or_default();
        if self.own_pids {
            return lacking_for_all(&rights, false).map_or(Ok(()), |cause| {
                Err(Problem::new(
                    Exit::RestoreRefused,
                    "the job has PID, IPC and mount namespaces of its own (--isolate pid,ipc,mount), and this container may not make them",
                    cause,
                    format!(
                        "run it as root and add to securityContext.capabilities.add: [{}]; a job that is started without this option needs less",
                        FOR_ALL.map(Capability::name).join(", ")
                    ),
                ))
            });
        }
        let may = rights.has(Capability::SysAdmin) && rights.uid == 0;
        if !self.own_ipc || may {
            return Ok(());
        }
        Err(Problem::new(
            Exit::RestoreRefused,
            "the job has an IPC namespace of its own (--isolate ipc), and this container may not make one",
            "the container that saved it ran as root with the capability SYS_ADMIN, this one does not",
            "run it as root (with --user for the workload) and add SYS_ADMIN to securityContext.capabilities.add; a job that is started with --isolate none needs none",
        ))
    }

    /// What fits badly here, what refuses first.
    pub fn misfits(&self, host: &Host, here: &Surroundings, policy: CpuPolicy) -> Vec<Misfit> {
        let check = |made_in| compatibility::check(made_in, &self.host, here, host, policy);
        self.made_in.as_ref().map(check).unwrap_or_default()
    }

    /// Says why this checkpoint cannot be restored on this machine, if it cannot.
    pub fn refuse_elsewhere(&self, here: &Host) -> Result<(), Problem> {
        let refuse = |what: String, cause: &str, next: &str| Err(Problem::new(Exit::RestoreRefused, what, cause, next));
        if self.host.arch != here.arch {
            return refuse(
                format!("the checkpoint was made on {}, this machine is {}", self.host.arch, here.arch),
                "a process cannot move to another architecture",
                "schedule the pod on a node with the first architecture (nodeSelector kubernetes.io/arch)",
            );
        }
        if self.host.page_size != here.page_size {
            return refuse(
                format!(
                    "the checkpoint has pages of {} bytes, this kernel has {}",
                    self.host.page_size, here.page_size
                ),
                "the kernels were built with different page sizes",
                "schedule the pod on a node with the first kernel",
            );
        }
        if criu_version(&here.criu) < criu_version(&self.host.criu) {
            return refuse(
                format!("the checkpoint was made by CRIU {}, here is CRIU {}", self.host.criu, here.criu),
                "an older CRIU does not know everything that a newer one writes",
                "use a container image whose CRIU is at least as new as the first one",
            );
        }
        Ok(())
    }
}

/// The numbers of a version text, for comparison: `4.2.1` → `[4, 2, 1]`.
fn criu_version(text: &str) -> Vec<u32> {
    text.split('.')
        .map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            version: RECORD_VERSION,
            reason: "SIGTERM".into(),
            root_pid: 300,
            command_pid: 301,
            pids: vec![300, 301],
            stdio: Stdio::default(),
            reaper_path: "/run/revenant/reaper".into(),
            host: Host {
                arch: "x86_64".into(),
                kernel: "6.18.0".into(),
                page_size: 4096,
                criu: "4.2.1".into(),
                revenant: "0.1.0".into(),
                monotonic_seconds: 5,
            },
            frozen_ms: 12,
            keeps_tcp: false,
            made_in: None,
            clocks: None,
            owner: None,
            own_ipc: false,
            own_pids: false,
        }
    }

    #[test]
    fn survives_its_own_json() {
        let value = serde_json::to_value(record()).unwrap();
        assert_eq!(Record::from_json(&value).unwrap(), record());
    }

    #[test]
    fn names_what_does_not_fit_this_machine() {
        let here = record().host;
        record().refuse_elsewhere(&here).unwrap();
        record().refuse_elsewhere(&Host { criu: "4.10".into(), ..here.clone() }).unwrap();
        let what = |host: Host| record().refuse_elsewhere(&host).unwrap_err().what;
        assert_eq!(
            what(Host { arch: "aarch64".into(), ..here.clone() }),
            "the checkpoint was made on x86_64, this machine is aarch64"
        );
        assert_eq!(
            what(Host { criu: "4.2".into(), ..here.clone() }),
            "the checkpoint was made by CRIU 4.2.1, here is CRIU 4.2"
        );
        assert!(what(Host { page_size: 65536, ..here }).contains("65536"));
    }

    #[test]
    fn refuses_a_layout_from_the_future() {
        let mut value = serde_json::to_value(record()).unwrap();
        value["version"] = 2.into();
        assert!(Record::from_json(&value).unwrap_err().what.contains("layout 2"));
    }
}
