//! What the user decided about one run.

use crate::checkpoint::clock::ClockPolicy;
use crate::checkpoint::compatibility::CpuPolicy;
use crate::checkpoint::files::FilePolicy;
use crate::checkpoint::protocol::{Cache, ChunkSizes, OnRestoreFailure, RestoreMode, Tuning};
use crate::job::JobName;
use crate::observe::Metrics;
use crate::observe::http::HttpSettings;
use crate::supervisor::hook::Hooks;
use crate::trigger::interval::Every;
use crate::trigger::watching::Watching;
use crate::workload::account::Account;
use crate::workload::command::Command;
use crate::workload::isolation::Own;
use crate::workload::stdio::TtyMode;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// What becomes of a workload that is killed for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnOom {
    /// It continues from its last checkpoint, in the same container.
    Restore,
    /// The container ends as the workload did.
    Exit,
}

/// Everything that `revenant run` was told.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // Each is one answer of the user's.
pub struct Settings {
    /// The job.
    pub job: JobName,
    /// Store URL; none to supervise without checkpoints.
    pub store: Option<String>,
    /// Private directory for sockets and small files.
    pub runtime_dir: PathBuf,
    /// The workload.
    pub command: Command,
    /// The user that it runs as; none for revenant's own.
    pub account: Option<Account>,
    /// The namespaces that it has for itself.
    pub own: Own,
    /// What continues it natively.
    pub resume_command: Option<Command>,
    /// See [`OnRestoreFailure`].
    pub on_restore_failure: OnRestoreFailure,
    /// Keep the checkpoints of a complete job.
    pub keep_on_complete: bool,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// The user has said so; else the pod's own setting counts, where it can be read.
    pub grace_told: bool,
    /// Generations to keep.
    pub keep: u32,
    /// From one scheduled save to the next.
    pub every: Option<Every>,
    /// How long a container of this job lives on average, where the user knows it better than the store.
    pub mtbf: Option<Duration>,
    /// What is watched besides the clock.
    pub watching: Watching,
    /// What becomes of a workload that is killed for want of memory.
    pub on_oom: OnOom,
    /// Programs and signals around saves and restores.
    pub hooks: Hooks,
    /// Signals that mean what SIGTERM means.
    pub stop_signals: Vec<Signal>,
    /// Where Kubernetes reads why a container has ended.
    pub termination_log: Option<PathBuf>,
    /// From the workload's start to the first look at what it holds; zero for no look.
    pub look_after: Duration,
    /// Take the job over from another container.
    pub takeover: bool,
    /// A claim without a beat for this long is stale.
    pub lease: Duration,
    /// How long an unreachable store is retried.
    pub store_patience: Duration,
    /// A restored workload that dies sooner than this has crashed because of the restore.
    pub crash_window: Duration,
    /// A CRIU that restores and does nothing for this long is ended.
    pub restore_stall: Duration,
    /// Whether the workload may run before its memory has arrived.
    pub restore: RestoreMode,
    /// Memory that nobody waits for comes no faster than this, in bytes a second.
    pub fill_limit: Option<u64>,
    /// Where packs are kept on this node.
    pub cache: Option<Cache>,
    /// See [`ClockPolicy`].
    pub clock: ClockPolicy,
    /// See [`TtyMode`].
    pub tty: TtyMode,
    /// Which files travel.
    pub files: FilePolicy,
    /// What a processor without an instruction set of the first one means.
    pub cpu: CpuPolicy,
    /// Knobs of a save.
    pub tuning: Tuning,
    /// How a new job's memory is cut into chunks.
    pub chunk_sizes: ChunkSizes,
    /// What is counted of this run.
    pub metrics: Metrics,
    /// Where probes and metrics are served; none to serve none.
    pub http: Option<HttpSettings>,
    /// Kubernetes pod UID, if known.
    pub pod_uid: Option<String>,
}
