//! The exit codes of revenant itself, one documented enum.
//!
//! A workload that ends by itself passes its own code through (128 + n for signal n). The codes
//! here lie in 200–219, outside what tools and shells use, so that a Kubernetes Job's
//! `podFailurePolicy` can tell them apart.

use std::process::ExitCode;

/// Why revenant itself ended the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// The job was already complete, or a subcommand succeeded.
    Ok = 0,
    /// A subcommand failed for a reason that has no code of its own.
    Failure = 1,
    /// The command was found but cannot be executed (as shells do).
    NotExecutable = 126,
    /// The command was not found (as shells do).
    NotFound = 127,
    /// The state was saved, durably, and the workload was stopped. Start the container again to continue.
    SavedAndStopped = 200,
    /// The workload was stopped, but no new checkpoint was made. The previous one stands.
    StoppedUnsaved = 201,
    /// A checkpoint exists, but none could be restored, and the policy is to fail.
    RestoreRefused = 202,
    /// Another container is running this job.
    JobInUse = 203,
    /// Another container took the job over while this one was running.
    Fenced = 204,
    /// The store cannot be reached, read or written.
    StoreUnavailable = 205,
    /// CRIU is missing, too old, or does not run here.
    CriuUnusable = 206,
    /// The container lacks a capability, or has a seccomp filter.
    Privileges = 207,
    /// The key is missing, wrong or lost.
    Key = 208,
    /// The container was told to stop before the workload ran; nothing was lost.
    StoppedBeforeStart = 209,
    /// The arguments or the environment are not usable.
    Usage = 210,
    /// The store holds damaged data.
    Damaged = 211,
    /// An internal error: a bug in revenant.
    Internal = 212,
    /// No running revenant answered on the control socket.
    NotRunning = 213,
    /// The workload ran before all of its memory had arrived, and the rest could not be brought: it was stopped.
    /// Nothing that was saved is lost; start the container again.
    FillFailed = 214,
}

impl Exit {
    /// The number that the kernel sees.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
