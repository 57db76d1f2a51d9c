//! Where CRIU gets its images from: streamed, all of them; or in files, with most of the memory to come later.

use super::broken;
use crate::checkpoint::engine::Events;
use crate::checkpoint::images_dir::ImagesDir;
use crate::checkpoint::lazy::{self, Filling, Plan, Recent};
use crate::checkpoint::outlet::{Outlet, OutletError};
use crate::checkpoint::protocol::{Begin as Request, Progress, RestoreMode};
use crate::checkpoint::record::Record;
use crate::criu::lazy_pages::{LazyConnection, LazyServer, Said};
use crate::criu::run::Watched;
use crate::criu::stream::{FeedLimits, Peer, ServeConnection, ServeServer, StreamError, feed};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::read::{Opened, SENDERS};
use std::time::Duration;

/// By default memory comes later from this size on: an eager restore of it takes a quarter of a minute and more
/// (CRIU fills one process at about 1 GB/s), which is worth a restore that is still under way when the workload runs.
const LARGE: u64 = 16 << 30;

/// How often a fill that has failed during the restore is noticed.
const LOOK: Duration = Duration::from_millis(200);

/// Where CRIU gets its images from.
pub enum Source<'a> {
    /// By streaming.
    Streamed { server: Option<ServeServer>, outlet: Outlet<'a>, total: u64 },
    /// From the images directory and through userfaultfd.
    Lazy { server: Option<LazyServer>, filling: Filling },
}

/// CRIU, connected.
pub enum Connection {
    Streamed(ServeConnection),
    Lazy(LazyConnection),
}

/// Why CRIU was not given what it needs.
pub enum FeedError {
    /// An image, or the conversation.
    Serve(OutletError),
    /// Memory that was to come later.
    Bring(Problem),
}

impl From<StreamError> for FeedError {
    fn from(error: StreamError) -> Self {
        Self::Serve(error.into())
    }
}

/// Whether this generation is to be restored lazily. Says why not, where somebody has asked for it.
pub fn is_wanted(request: &Request, opened: &Opened, events: &Events) -> bool {
    let least = match request.mode {
        RestoreMode::Eager => return false,
        RestoreMode::Lazy => 1,
        RestoreMode::Auto => LARGE,
    };
    // Cheaper than to read the pagemaps.
    if opened.images().map(|(_, length)| length).sum::<u64>() < least {
        return false;
    }
    let Some(plan) = Plan::read(opened) else { return false };
    if plan.lazy_bytes < least {
        return false;
    }
    let reason = lazy::hindrance(opened, &plan);
    if let Some(reason) = &reason
        && request.mode == RestoreMode::Lazy
    {
        events.notice(format!("all memory is restored before the workload runs: {reason}"));
    }
    reason.is_none()
}

impl<'a> Source<'a> {
    /// Binds the socket, and for a lazy restore writes the images.
    pub fn prepare(
        lazy: bool,
        request: &Request,
        opened: &'a Opened,
        record: &Record,
        recent: Option<&Recent>,
        images: &ImagesDir,
    ) -> Result<Self, Problem> {
        if !lazy {
            return Ok(Self::Streamed {
                server: Some(ServeServer::bind(images.path()).map_err(|error| broken(&error, images))?),
                outlet: Outlet::new(opened, (!record.own_pids).then_some(record.root_pid)),
                total: opened.images().map(|(_, length)| length).sum(),
            });
        }
        let plan = Plan::read(opened).ok_or_else(unreadable)?;
        let server = LazyServer::bind(images.path()).map_err(|error| broken(&error, images))?;
        lazy::stage(opened, &plan, images.path()).map_err(|error| error.explain())?;
        let manner = lazy::Manner {
            patience: Duration::from_secs(request.store_patience_seconds),
            limit: request.fill_limit,
            recent: recent.cloned(),
            runtime_dir: request.context.runtime_dir.clone(),
        };
        let filling = Filling::start(opened, plan, manner).map_err(|error| broken(&error, images))?;
        Ok(Self::Lazy { server: Some(server), filling })
    }

    /// Whether memory comes later.
    pub fn is_lazy(&self) -> bool {
        matches!(self, Self::Lazy { .. })
    }

    /// Waits for CRIU.
    pub fn accept(&mut self, peer: Peer<'_>, timeout: Duration) -> Result<Connection, StreamError> {
        let twice = || StreamError::Protocol("CRIU connects once".to_owned());
        match self {
            Self::Streamed { server, .. } => {
                server.take().ok_or_else(twice)?.accept(peer, timeout).map(Connection::Streamed)
            }
            Self::Lazy { server, .. } => server.take().ok_or_else(twice)?.accept(peer, timeout).map(Connection::Lazy),
        }
    }

    /// Gives CRIU what it asks for, until it asks for no more.
    pub fn feed(&self, connection: Connection, criu: &Watched) -> Result<(), FeedError> {
        match (self, connection) {
            (Self::Streamed { outlet, .. }, Connection::Streamed(connection)) => {
                let limits = FeedLimits { streams: FeedLimits::default().streams.min(SENDERS) };
                feed(connection, limits, outlet).map_err(FeedError::Serve)
            }
            (Self::Lazy { filling, .. }, Connection::Lazy(connection)) => hand_out(connection, filling, criu),
            _ => Err(StreamError::Protocol("CRIU has connected otherwise than it was told to".to_owned()).into()),
        }
    }

    /// What it has given, in bytes.
    pub fn sent(&self) -> u64 {
        match self {
            Self::Streamed { outlet, .. } => outlet.sent(),
            Self::Lazy { filling, .. } => filling.progress().done_bytes,
        }
    }

    /// How far the restore is.
    pub fn progress(&self) -> Progress {
        let total = match self {
            Self::Streamed { total, .. } => *total,
            Self::Lazy { filling, .. } => filling.service.total,
        };
        Progress { phase: "restore".to_owned(), done_bytes: self.sent(), total_bytes: Some(total), store_bytes: 0 }
    }

    /// What goes on beside the workload.
    pub fn into_filling(self) -> Option<Filling> {
        match self {
            Self::Streamed { .. } => None,
            Self::Lazy { filling, .. } => Some(filling),
        }
    }
}

fn hand_out(mut connection: LazyConnection, filling: &Filling, criu: &Watched) -> Result<(), FeedError> {
    let service = &filling.service;
    std::thread::scope(|scope| {
        let ended = || criu.ends_within(Duration::ZERO);
        let failed = scope.spawn(move || {
            while !ended() {
                if let Some(Err(problem)) = service.over_within(LOOK) {
                    // Its processes wait for pages that will not come.
                    criu.kill();
                    return Some(problem);
                }
            }
            None
        });
        let result = loop {
            match connection.next_said() {
                Ok(Some(Said::Task(_, uffd))) if !lazy::tells_all(&uffd) => {
                    // CRIU is ended for it.
                    service.end(Err(deaf()));
                    break Ok(());
                }
                Ok(Some(Said::Task(pid, uffd))) => service.add(pid, uffd),
                Ok(Some(Said::Finished)) => service.begin(),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        match failed.join() {
            Ok(Some(problem)) => Err(FeedError::Bring(problem)),
            _ => result,
        }
    })
}

/// A page would come back that the workload has dropped.
fn deaf() -> Problem {
    Problem::new(
        Exit::RestoreRefused,
        "memory cannot come while the workload runs: its userfaultfd does not tell when memory is forked, moved or dropped",
        "CRIU 4.2.1 asks for these events only where it has all privileges, not with --unprivileged",
        "all memory is restored before the workload runs",
    )
}

fn unreadable() -> Problem {
    Problem::new(
        Exit::Damaged,
        "the memory maps of the checkpoint cannot be read",
        "the store lost or changed data",
        "run `revenant verify`",
    )
}
