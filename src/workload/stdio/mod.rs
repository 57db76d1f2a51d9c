//! The workload's stdin, stdout and stderr, arranged so that CRIU can save them here and another
//! container can give them back.

mod arrange;
mod kind;
mod pump;
mod terminal;

use super::spawn::Descriptors;
use crate::checkpoint::protocol::Stdio as Roles;
use arrange::Arranged;
use kind::Kind;
use nix::fcntl::{FcntlArg, fcntl};
use pump::End;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use terminal::{Raw, Terminal};
use tokio::io::Interest;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

/// Whether the workload gets a terminal of revenant's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TtyMode {
    /// Where the container has a terminal.
    #[default]
    Auto,
    /// On all three descriptors.
    Always,
    /// On none; a terminal of the container is reached by a pipe.
    Never,
}

/// How long the container's log may take no byte before the last ones are given up.
const STALLED: Duration = Duration::from_secs(2);

/// The workload's stdio before it runs.
#[derive(Debug)]
pub struct Prepared {
    /// What a workload that starts here is given.
    pub fresh: Arranged,
    /// What takes the place of the pipes of a workload that continues here: never a terminal, because a
    /// workload that was not born with one keeps pipes wherever it goes.
    plain: Arranged,
    /// Our terminal. Always there if the container can open one, because a checkpoint may need it.
    terminal: Option<Terminal>,
    /// Our ends of the pipes to what CRIU cannot follow, with the number of the descriptor beyond.
    interposed: Vec<Interposed>,
}

#[derive(Debug)]
struct Interposed {
    number: i32,
    link: String,
    ours: OwnedFd,
}

/// The workload's stdio while it runs.
#[derive(Debug, Default)]
pub struct Attached {
    outputs: Vec<JoinHandle<()>>,
    /// Bytes that the container's log has taken from us.
    taken: Arc<AtomicU64>,
    inputs: Vec<JoinHandle<()>>,
    master: Option<OwnedFd>,
    /// Kept open, so that a workload may close its terminal for a while without hanging it up.
    slave: Option<OwnedFd>,
    raw: Option<Raw>,
}

/// Looks at this process's own descriptors and arranges the workload's.
pub fn prepare(mode: TtyMode) -> io::Result<Prepared> {
    let outer = [0, 1, 2].map(containers);
    let kinds = outer.map(kind::of);
    let on_terminal = kinds.clone().map(|kind| match mode {
        TtyMode::Always => true,
        TtyMode::Never => false,
        TtyMode::Auto => kind == Kind::Terminal,
    });
    let terminal = match Terminal::open(outer_terminal()) {
        Ok(terminal) => Some(terminal),
        Err(error) if on_terminal.contains(&true) => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "this container cannot open a terminal");
            None
        }
    };
    let mut interposed = Vec::new();
    let plain = kinds.map(|kind| if kind == Kind::Terminal { Kind::Foreign } else { kind });
    let plain = arrange::plain(&plain, &mut interposed)?;
    let fresh = match &terminal {
        Some(terminal) => arrange::with_terminal(&plain, terminal, on_terminal)?,
        None => Arranged { given: plain.given.try_clone()?, roles: plain.roles.clone() },
    };
    Ok(Prepared { fresh, plain, terminal, interposed })
}

impl Prepared {
    /// What a restore may use: the three descriptors, then the slave of our terminal, if there is one.
    pub fn for_restore(&self) -> (Vec<BorrowedFd<'_>>, Roles) {
        let Descriptors { stdin, stdout, stderr } = &self.plain.given;
        let slave = self.terminal.as_ref().map(|terminal| terminal.slave.as_fd());
        let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().chain(slave).collect();
        (fds, Roles { tty: self.terminal.as_ref().map(|terminal| terminal.key), ..self.plain.roles.clone() })
    }

    /// Starts the copying that `in_use` needs, and closes our copies of the workload's descriptors, so
    /// that an end of the workload is seen as the end of its output. To be called inside the runtime.
    pub fn attach(self, in_use: &Roles) -> Attached {
        let mut attached = Attached::default();
        for pipe in self.interposed {
            let name = match pipe.number {
                0 => &in_use.stdin,
                1 => &in_use.stdout,
                _ => &in_use.stderr,
            };
            if name.as_ref() == Some(&pipe.link)
                && let Err(error) = attached.interpose(pipe)
            {
                warn!(%error, "cannot pass the workload's stdio on to the container: {error}");
            }
        }
        if let Some(terminal) = self.terminal.filter(|terminal| in_use.tty == Some(terminal.key))
            && let Err(error) = attached.terminal(terminal)
        {
            warn!(%error, "cannot connect the workload's terminal with the container's: {error}");
        }
        attached
    }
}

impl Attached {
    /// Whether the workload has a terminal of ours.
    pub fn has_terminal(&self) -> bool {
        self.master.is_some()
    }

    /// The terminal of the container has another size.
    pub fn resize(&self) {
        if let (Some(master), Some(outer)) = (&self.master, outer_terminal()) {
            let _ = terminal::copy_window_size(outer, master.as_fd());
        }
    }

    /// Waits until the last bytes of an ended workload are in the container's log, at most for `longest`,
    /// and gives the container's terminal back.
    pub async fn drain(&mut self, longest: Duration) {
        for input in self.inputs.drain(..) {
            input.abort();
        }
        self.slave = None;
        let end = Instant::now() + longest;
        let mut all = futures::future::join_all(self.outputs.drain(..));
        loop {
            let before = self.taken.load(Ordering::Relaxed);
            let left = end.saturating_duration_since(Instant::now());
            if tokio::time::timeout(STALLED.min(left), &mut all).await.is_ok() {
                break;
            }
            if left <= STALLED || self.taken.load(Ordering::Relaxed) == before {
                warn!("the container's log is too slow for the workload's last output: some of it is lost");
                break;
            }
        }
        self.raw = None;
    }

    /// The workload has ended and another takes its place: what it wrote still reaches the log, and nothing
    /// more is read for it.
    pub fn let_go(&mut self) {
        for input in self.inputs.drain(..) {
            input.abort();
        }
        // They end by themselves, with the last process that could write.
        self.outputs.clear();
        self.slave = None;
        self.master = None;
        self.raw = None;
    }

    fn interpose(&mut self, pipe: Interposed) -> io::Result<()> {
        let outer = containers(pipe.number);
        if pipe.number == 0 {
            let (from, to) = (End::containers(outer, Interest::READABLE)?, End::own(pipe.ours, Interest::WRITABLE)?);
            self.inputs.push(tokio::spawn(pump::copy(from, to, Arc::default())));
        } else {
            let (from, to) = (End::own(pipe.ours, Interest::READABLE)?, End::containers(outer, Interest::WRITABLE)?);
            self.outputs.push(tokio::spawn(pump::copy(from, to, self.taken.clone())));
        }
        Ok(())
    }

    fn terminal(&mut self, Terminal { master, slave, .. }: Terminal) -> io::Result<()> {
        let outer = outer_terminal();
        // Where people look: the container's terminal, else its log.
        let mut shown = [1, 2, 0].map(containers).into_iter();
        let screen = shown.find(|fd| kind::of(*fd) == Kind::Terminal).unwrap_or(containers(1));
        if kind::of(screen) != Kind::Null {
            let from = End::own(master.try_clone()?, Interest::READABLE)?;
            let to = End::containers(screen, Interest::WRITABLE)?;
            self.outputs.push(tokio::spawn(pump::copy(from, to, self.taken.clone())));
        }
        let keyboard = outer.unwrap_or(containers(0));
        if kind::of(keyboard) != Kind::Null {
            let from = End::containers(keyboard, Interest::READABLE)?;
            let to = End::own(master.try_clone()?, Interest::WRITABLE)?;
            self.inputs.push(tokio::spawn(pump::copy(from, to, Arc::default())));
        }
        self.raw = outer.and_then(|fd| Raw::enter(fd).ok());
        self.master = Some(master);
        self.slave = Some(slave);
        self.resize();
        Ok(())
    }
}

fn outer_terminal() -> Option<BorrowedFd<'static>> {
    [0, 1, 2].map(containers).into_iter().find(|fd| kind::of(*fd) == Kind::Terminal)
}

/// A copy that does not take the place of 0, 1 or 2, close-on-exec.
fn above_stdio(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    Ok(owned(number))
}

#[allow(unsafe_code)] // Numbers of descriptors become descriptors here and nowhere else in this file.
fn owned(number: i32) -> OwnedFd {
    // SAFETY: `fcntl` has just returned this descriptor, nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[allow(unsafe_code)]
fn containers(number: i32) -> BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 are open for as long as this process lives: Rust's runtime opens /dev/null for
    // those that are missing at the start, and nothing here closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}
