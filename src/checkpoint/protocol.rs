//! What PID 1 and its short-lived engine process say to each other.
//!
//! PID 1 spawns `revenant engine` and writes one [`Request`] as a line of JSON to its stdin. The
//! engine writes one [`Event`] per line to its stdout and ends with exit code 0 after a final event
//! (`Began`, `Durable`, `Finished`, `Failed`). An engine that ends without one has crashed.
//! Secrets travel by the inherited environment only.

use super::clock::ClockPolicy;
use super::compatibility::CpuPolicy;
use super::files::FilePolicy;
use crate::explain::Problem;
use crate::job::{Epoch, Generation, JobName};
use crate::trigger::interval::History;
use crate::workload::resources::Finding;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::SystemTime;

/// Where the job's checkpoints are and how they are read and written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobContext {
    /// The job.
    pub job: JobName,
    /// Store URL, for example `file:///checkpoints` or `s3://bucket/prefix`.
    pub store: String,
    /// A private directory (0700) for sockets, CRIU's small files and logs.
    pub runtime_dir: PathBuf,
    /// Where the reaper's program lies, the same path in every container of the job.
    pub reaper_path: PathBuf,
    /// Which files travel with a checkpoint, and how far a restore may go.
    #[serde(default)]
    pub files: FilePolicy,
}

/// What the engine is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Take the claim; restore the newest good generation if there is one.
    Begin(Begin),
    /// Save the tree of `root_pid`.
    Save(Save),
    /// Record how the workload ended and release the claim.
    Finish(Finish),
    /// Look at what the tree holds, and say what could not be saved. Nobody is stopped.
    Look(Look),
}

impl Request {
    /// The job that it is about, if it is about one.
    pub fn context(&self) -> Option<&JobContext> {
        match self {
            Self::Begin(begin) => Some(&begin.context),
            Self::Save(save) => Some(&save.context),
            Self::Finish(finish) => Some(&finish.context),
            Self::Look(_) => None,
        }
    }
}

/// See [`Request::Begin`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begin {
    /// The job.
    pub context: JobContext,
    /// Take the job over although another container seems to hold it.
    pub takeover: bool,
    /// A claim is stale when its beat has not changed for this long.
    pub lease_seconds: u64,
    /// How long an unreachable store is retried before giving up.
    pub store_patience_seconds: u64,
    /// What to do when checkpoints exist but none restores.
    pub on_restore_failure: OnRestoreFailure,
    /// Whether a resume command was given.
    pub has_resume_command: bool,
    /// What a processor without an instruction set of the first one means.
    #[serde(default)]
    pub cpu: CpuPolicy,
    /// A CRIU that restores and takes no byte for this long is ended; 0 for never.
    #[serde(default)]
    pub restore_stall_seconds: u64,
    /// What the container's stdio became (see [`Stdio`]); engine fds 3, 4 and 5 are the new
    /// container's stdin, stdout and stderr for a workload without a terminal. Fd 6 is the slave of a
    /// PTY pair that PID 1 always opens before `begin`, and `tty` its name: a checkpoint made with a
    /// terminal needs one, wherever it continues. [`Outcome::Restored`] says what is used.
    pub stdio: Stdio,
    /// What to do where the monotonic clock would go back.
    #[serde(default)]
    pub clock: ClockPolicy,
    /// The container that asks, for the claim: host name, pod, start time.
    pub holder: Holder,
    /// How a new job's memory is cut into chunks.
    pub chunk_sizes: ChunkSizes,
    /// The job has run in this container before, and left its files.
    #[serde(default)]
    pub again: bool,
    /// The claim, if an engine of this container has taken it and then stood aside ([`Outcome::InTheWay`]).
    #[serde(default)]
    pub held: Option<Epoch>,
    /// How often an engine may still stand aside.
    #[serde(default)]
    pub asides: u8,
    /// Whether the workload may run before its memory has arrived.
    #[serde(default)]
    pub mode: RestoreMode,
    /// Memory that nobody waits for comes no faster than this, in bytes a second.
    #[serde(default)]
    pub fill_limit: Option<u64>,
    /// Where packs are kept on this node.
    #[serde(default)]
    pub cache: Option<Cache>,
}

/// A folder of the node for what restores read from a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// The folder, this user's alone.
    pub folder: PathBuf,
    /// The most bytes in it.
    pub limit: u64,
}

/// Whether the workload may run before its memory has arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreMode {
    /// Where the container allows it and the memory is so large that much time is gained.
    #[default]
    Auto,
    /// Wherever the container allows it.
    Lazy,
    /// Never: all memory is there before the workload runs.
    Eager,
}

/// What a user wants of chunks; what is left open follows from the memory that the job may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSizes {
    /// Average, in bytes.
    pub average: Option<u64>,
    /// Longest, in bytes.
    pub longest: Option<u64>,
}

/// Who holds a claim, for people and for recognizing one's own predecessor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Host name of the container.
    pub host: String,
    /// Kubernetes pod UID (`REVENANT_POD_UID`), if known. The same pod cannot run a container twice at once.
    pub pod_uid: Option<String>,
    /// Random text that names this container's run.
    pub instance: String,
}

/// What to do when checkpoints exist but none can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnRestoreFailure {
    /// Run the resume command.
    ResumeCommand,
    /// Start the command from nothing.
    Fresh,
    /// End with the documented exit code.
    Fail,
}

/// The roles of descriptors that the workload shares with the container: what the kernel calls
/// them (`readlink /proc/PID/fd/N`, for example `pipe:[4711]`), and the terminal's device numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// Link text of the workload's stdin pipe; none when it is not an external pipe.
    pub stdin: Option<String>,
    /// Link text of the workload's stdout pipe.
    pub stdout: Option<String>,
    /// Link text of the workload's stderr pipe.
    pub stderr: Option<String>,
    /// `st_rdev` and `st_dev` of the slave of revenant's own PTY.
    pub tty: Option<TtyKey>,
}

/// CRIU's name of a terminal: `tty[rdev:dev]`, both in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtyKey {
    /// `st_rdev` of the slave.
    pub rdev: u64,
    /// `st_dev` of the slave.
    pub dev: u64,
}

/// See [`Request::Save`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Save {
    /// The job.
    pub context: JobContext,
    /// The claim under which this container writes.
    pub epoch: Epoch,
    /// The root of the tree: the reaper, in this PID namespace.
    pub root_pid: i32,
    /// The user's command under the reaper.
    pub command_pid: i32,
    /// What happens to the workload after the dump.
    pub then: AfterSave,
    /// Milliseconds from now until the container will be killed, if known.
    pub deadline_ms: Option<u64>,
    /// The workload's stdio.
    pub stdio: Stdio,
    /// Why this save is made, for the manifest (`SIGTERM`, `request`, `schedule`, …).
    pub reason: String,
    /// The generation that the workload was restored from or last saved as.
    pub base: Option<Generation>,
    /// Generations to keep, at least 1.
    pub keep: u32,
    /// How chunks are compressed, how much may be spooled, and so on.
    pub tuning: Tuning,
    /// Whether PID 1 has given it the memory of earlier saves, as descriptor 3.
    pub recalls: bool,
}

/// The knobs of a save that the user may turn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tuning {
    /// `auto`, `none`, `lz4`, `zstd` or `zstd:N`. Empty means `auto`.
    pub compression: String,
    /// A directory for chunks that wait for the store.
    pub spool: Option<PathBuf>,
    /// The most bytes in the spool.
    pub spool_limit: Option<u64>,
    /// Upload no faster than this, in bytes a second.
    pub upload_limit: Option<u64>,
    /// Whether memory is read ahead while the workload still runs: default for saves with no hurry.
    pub pre_copy: Option<bool>,
    /// What becomes of TCP connections.
    pub tcp: Tcp,
    /// The most memory that the save may take, in bytes; less than the default where the container has little left.
    pub memory_limit: Option<u64>,
}

/// What happens to the workload after the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterSave {
    /// It runs on as soon as CRIU is done.
    RunOn,
    /// CRIU holds it frozen until the save is durable, then kills it; if the save fails it runs on.
    Hold,
}

/// See [`Request::Finish`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finish {
    /// The job.
    pub context: JobContext,
    /// The claim to release. None when the container was stopped before it was told of one: it may hold one all the same.
    pub epoch: Option<Epoch>,
    /// This container, as in [`Begin::holder`].
    pub holder: Holder,
    /// How it ended.
    pub ending: Ending,
    /// Keep the checkpoints of a complete job.
    pub keep_on_complete: bool,
}

/// See [`Request::Look`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Look {
    /// The root of the tree: the reaper, in this PID namespace.
    pub root_pid: i32,
    /// What may travel as a deleted file.
    pub files: FilePolicy,
    /// What becomes of TCP connections.
    pub tcp: Tcp,
}

/// What becomes of established TCP connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tcp {
    /// They go on where both ends belong to the job and `NET_ADMIN` is there, else they are closed.
    #[default]
    Auto,
    /// They are closed in the restored workload.
    Close,
    /// They go on, where the network lets them.
    Keep,
}

/// How the workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Exit code 0 by itself: the job is complete.
    Complete,
    /// Any other end by itself, with the container's exit code.
    Failed {
        /// The exit code as the container shows it.
        code: u8,
        /// Set when it died within seconds after a restore of this generation.
        crashed_after_restore_of: Option<Generation>,
    },
    /// Stopped by us, saved or not.
    Stopped,
}

/// What the engine reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A line that an operator wants to read, with what it is about.
    Notice {
        /// One sentence.
        message: String,
    },
    /// Something went wrong that did not stop the work (a damaged generation, a slow store).
    Warning {
        /// What, why, next.
        problem: Problem,
    },
    /// How far a save or restore is.
    Progress(Progress),
    /// Something that is worth counting. Comes at any time, also after a final event.
    Observed(Observation),
    /// `begin`: the claim is ours.
    Claimed {
        /// Its number.
        epoch: Epoch,
        /// How earlier containers of this job have fared.
        #[serde(default)]
        history: History,
    },
    /// `begin`: the workload is restored, and held until PID 1 writes a byte to the engine's stdin. Without
    /// one nothing of it has run, and it can be forgotten.
    Ready,
    /// `look` (final there) and `save`: what cannot be carried, or will be lost.
    Looked {
        /// What prevents a save first.
        findings: Vec<Finding>,
    },
    /// `save`: CRIU has stopped the workload.
    Frozen,
    /// `save`: CRIU is done with the workload. With [`AfterSave::RunOn`] it runs again.
    Released {
        /// For how long it was frozen, in milliseconds.
        frozen_ms: u64,
    },
    /// Final event of `begin`.
    Began {
        /// What to do now.
        outcome: Outcome,
    },
    /// `begin`, after a lazy restore: the last of the memory has arrived.
    Filled {
        /// Bytes put in place.
        bytes: u64,
        /// Faults of the workload that waited for one of them.
        faults: u64,
        /// From CRIU's start, in milliseconds.
        took_ms: u64,
    },
    /// Final event of `save`: the generation is complete and durable.
    Durable(Saved),
    /// Final event of `finish`.
    Finished,
    /// Final event: the request failed.
    Failed {
        /// What, why, next.
        problem: Problem,
    },
}

/// What an engine noticed by the way, for metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "observed", rename_all = "kebab-case")]
pub enum Observation {
    /// Trouble with the store in this engine's whole life.
    Store {
        /// Operations that failed for good.
        errors: u64,
        /// Attempts that were repeated.
        retries: u64,
    },
    /// `begin`: the container before ended this long after the generation that was restored, as far as
    /// its last sign of life shows.
    LostWork {
        /// Milliseconds.
        ms: u64,
    },
}

/// How far a save or restore is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `dump`, `upload`, `restore`, …
    pub phase: String,
    /// Bytes handled in this phase.
    pub done_bytes: u64,
    /// Bytes expected, if known.
    pub total_bytes: Option<u64>,
    /// Bytes written to or read from the store so far.
    pub store_bytes: u64,
}

/// A durable generation, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its name.
    pub generation: Generation,
    /// When it was committed.
    pub at: SystemTime,
    /// Size of all images, in bytes.
    pub image_bytes: u64,
    /// Bytes that were new to the store, after compression.
    pub stored_bytes: u64,
    /// For how long the workload was frozen, in milliseconds.
    pub frozen_ms: u64,
    /// From request to durable, in milliseconds.
    pub total_ms: u64,
}

/// A lazy restore that goes on beside the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lazy {
    /// The process that keeps the workload waiting when the engine dies. To be ended after the workload.
    pub keeper: i32,
    /// Bytes that come later.
    pub bytes: u64,
}

/// What `begin` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant)] // There is one in a container's life.
pub enum Outcome {
    /// The job has ended with success before; nothing to run.
    AlreadyComplete {
        /// When.
        at: SystemTime,
    },
    /// The workload runs again.
    Restored {
        /// From this generation.
        generation: Generation,
        /// When that generation was saved.
        saved_at: SystemTime,
        /// The reaper.
        root_pid: i32,
        /// The user's command: the session leader under the reaper.
        command_pid: i32,
        /// How long the restore took, in milliseconds.
        took_ms: u64,
        /// The stdio as it is now.
        stdio: Stdio,
        /// What that save had cost, for estimates.
        #[serde(default)]
        cost: Option<Saved>,
        /// Memory that has not arrived; the engine goes on bringing it.
        #[serde(default)]
        lazy: Option<Lazy>,
    },
    /// This job has never been started: start the command.
    StartFresh,
    /// Start the resume command: the job was started before, and nothing restorable exists.
    Resume {
        /// Why nothing was restored.
        reason: String,
    },
    /// Nothing is decided: this engine, or another process of revenant, was itself given IDs that the checkpoint
    /// needs. It ends, and one that is started now gets others.
    InTheWay {
        /// These.
        pids: Vec<i32>,
    },
}
