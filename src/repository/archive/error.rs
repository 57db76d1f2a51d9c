//! Why an export or an import does not succeed.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::{Generation, JobName};
use crate::repository::claim::{ClaimError, InUse};
use crate::repository::completion::RecordError;
use crate::repository::generations::GenerationError;
use crate::repository::keys::KeyError;
use crate::repository::open::OpenError;
use crate::repository::read::ReadError;
use crate::store::StoreError;

/// Why an export or an import does not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive cannot be written.
    #[error("the archive cannot be written: {0}")]
    Output(std::io::Error),
    /// The archive cannot be read.
    #[error("the archive cannot be read: {0}")]
    Source(String),
    /// Not an archive of revenant's.
    #[error("this is no archive of revenant's: {0}")]
    Foreign(String),
    /// Written by a newer revenant.
    #[error("the archive has version {found}, and this revenant reads version 1")]
    Newer {
        /// Its version.
        found: u64,
    },
    /// It ends before its end.
    #[error("the archive is cut off")]
    CutOff,
    /// A member is not what it must be.
    #[error("{member} in the archive is damaged: {reason}")]
    Damaged {
        /// Its name below the job's directory.
        member: String,
        /// In what respect.
        reason: String,
    },
    /// A stored object is not what it must be: found while exporting.
    #[error("generation {generation} cannot be exported: {key} is damaged: {reason}")]
    Unsound {
        /// The generation that needs it.
        generation: Generation,
        /// The object.
        key: String,
        /// In what respect.
        reason: String,
    },
    /// More manifests than an import keeps in memory.
    #[error("these {0} generations do not fit into one archive")]
    TooMany(usize),
    /// The target has a repository of its own.
    #[error("the store has a job {0} already, which is another one")]
    OtherRepository(JobName),
    /// The target's job has ended.
    #[error("job {0} is complete: it would not continue from what is imported")]
    Complete(JobName),
    /// Somebody runs the target's job.
    #[error("job {job} is running")]
    InUse {
        /// Which.
        job: JobName,
        /// Who.
        holder: Box<InUse>,
    },
    /// Somebody took the target's job during the import.
    #[error("another container has taken job {0} during the import; nothing was imported")]
    Fenced(JobName),
    /// The repository does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A generation cannot be read or committed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The claims cannot be read or written.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The job's records cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The keys cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An index cannot be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveError {
    pub(super) fn damaged(member: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Damaged { member: member.into(), reason: reason.to_string() }
    }
}

impl Explain for ArchiveError {
    fn explain(&self) -> Problem {
        let (exit, cause, next) = match self {
            Self::Open(error) => return error.explain(),
            Self::Generation(error) => return error.explain(),
            Self::Claim(error) => return error.explain(),
            Self::Record(error) => return error.explain(),
            Self::Key(error) => return error.explain(),
            Self::Read(error) => return error.explain(),
            Self::Store(error) => return error.explain(),
            Self::InUse { holder, .. } => {
                return Problem {
                    what: self.to_string(),
                    next: "stop it first, or import under a job name of its own with --job".to_owned(),
                    ..holder.explain()
                };
            }
            Self::Output(_) => (
                Exit::Failure,
                "the disk is full, or whoever read the pipe has gone",
                "make room and export again; nothing was left under the file's name",
            ),
            Self::Source(_) => (Exit::Failure, "the file or pipe failed", "check it, then import again"),
            Self::Foreign(_) => (
                Exit::Usage,
                "it is something else, was packed again by another program, or is compressed",
                "give what `revenant export` wrote, as it was written (`zstd -dc FILE | revenant import -`)",
            ),
            Self::Newer { .. } => (
                Exit::RestoreRefused,
                "it was exported by a newer revenant than this one",
                "import with at least that revenant; nothing was changed",
            ),
            Self::CutOff | Self::Damaged { .. } => (
                Exit::Damaged,
                "it was changed or cut on the way, or the export was killed",
                "export again, or fetch the file again; no generation was imported, and `revenant prune` removes what came with it",
            ),
            Self::Unsound { .. } => (
                Exit::Damaged,
                "the store lost or changed data, or the generation was pruned meanwhile",
                "export an older generation with --generation; `revenant verify --read-data` says which are good",
            ),
            Self::TooMany(_) => {
                (Exit::Usage, "an import keeps all manifests in memory", "export fewer generations at a time")
            }
            Self::OtherRepository(_) => (
                Exit::Usage,
                "the archive is of another job that had the same name, or of one that was begun anew",
                "import it under a job name of its own: --job NAME",
            ),
            Self::Complete(_) => (
                Exit::Usage,
                "a complete job is not started again",
                "import it under a job name of its own: --job NAME",
            ),
            Self::Fenced(_) => (
                Exit::Fenced,
                "this import was silent for longer than its lease, or a container was started with --takeover",
                "stop that container, then import again, or import under a job name of its own: --job NAME",
            ),
        };
        Problem::new(exit, self.to_string(), cause, next)
    }
}
