//! Why CRIU cannot be used at all (as opposed to a dump or restore that failed: `explain`).

use super::binary::{OLDEST, Version};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use std::io;
use std::path::PathBuf;

/// CRIU cannot be found, run or trusted to work.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// No CRIU at any of the usual places.
    #[error("no CRIU at {}", .looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Missing {
        /// The places, in the order in which they were looked at.
        looked: Vec<PathBuf>,
    },
    /// It is there but the kernel or its loader refuses to run it.
    #[error("{} does not run: {reason}", .path.display())]
    NotRunnable {
        /// The program or bundle.
        path: PathBuf,
        /// What the kernel or the program said.
        reason: String,
    },
    /// It runs, but is older than what works on current kernels.
    #[error("{} is CRIU {version}", .path.display())]
    TooOld {
        /// The program or bundle.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// `criu --version` said something that is no version.
    #[error("{} does not say its version: {output:?}", .path.display())]
    NoVersion {
        /// The program or bundle.
        path: PathBuf,
        /// The beginning of its output.
        output: String,
    },
    /// The CRIU process could not be started or waited for.
    #[error("{doing}: {source}")]
    Process {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl Explain for CriuError {
    fn explain(&self) -> Problem {
        let (cause, next) = match self {
            Self::Missing { .. } => (
                "the image does not carry revenant's CRIU bundle".to_owned(),
                "copy the whole /opt/revenant directory into the image, or set REVENANT_CRIU to a criu program or bundle directory".to_owned(),
            ),
            Self::NotRunnable { reason, .. } => (
                reason.clone(),
                "check that the bundle was copied whole (criu, its loader and its libraries, executable), for this machine's architecture".to_owned(),
            ),
            Self::TooOld { version, .. } => (
                format!("CRIU {version} fails on current kernels (sockets, thread stacks, vDSO)"),
                format!("use revenant's own bundle, or CRIU {OLDEST} or newer"),
            ),
            Self::NoVersion { .. } => (
                "the program is not CRIU, or is broken".to_owned(),
                "set REVENANT_CRIU to a criu program or bundle directory".to_owned(),
            ),
            Self::Process { source, .. } => (
                source.to_string(),
                "check the container's process and memory limits, then try again".to_owned(),
            ),
        };
        let what = match self {
            Self::Missing { .. } | Self::NotRunnable { .. } | Self::NoVersion { .. } => {
                format!("CRIU is not usable: {self}")
            }
            Self::TooOld { version, path } => format!("CRIU {version} at {} is too old", path.display()),
            Self::Process { doing, .. } => format!("CRIU could not be run: {doing}"),
        };
        Problem::new(Exit::CriuUnusable, what, cause, next)
    }
}
