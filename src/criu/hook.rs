//! Holding the tree, at the end of a dump or of a restore, until we say what becomes of it.
//!
//! CRIU runs an action script at named moments (`--action-script`, see criu(8)). Ours is revenant
//! itself. At `post-dump` every image has been written and every task is still frozen. While our
//! script runs, CRIU waits; when it ends with 0, CRIU does to the tree what it was asked to (kill
//! it, or let it run); with anything else, CRIU lets the tree run and reports a failed dump.
//!
//! At `post-restore` every task has been made again and waits to be let loose; when the script fails,
//! CRIU kills them all, and nothing of the workload has run. So nobody has to guess whether a restore
//! that is broken off has already written something.
//!
//! So a final save can hold the tree frozen until the checkpoint is durable, and if it never
//! becomes durable the tree runs on as if nothing had happened. If the engine dies meanwhile, the
//! script sees the end of its connection and the tree runs on as well.

use super::run::CriuProcess;
use super::stream::{Listener, Peer, StreamError};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Tells the script where the engine listens.
pub const HOOK_VARIABLE: &str = "REVENANT_CRIU_HOOK";

/// Set by CRIU for its action scripts: the moment's name.
const ACTION_VARIABLE: &str = "CRTOOLS_SCRIPT_ACTION";

/// The moments that matter to us, and how the script names them to the engine.
const MOMENTS: [(&str, u8); 3] = [("pre-dump", ABOUT_TO_FREEZE), ("post-dump", DONE), ("post-restore", DONE)];
const ABOUT_TO_FREEZE: u8 = b'f';
const DONE: u8 = b'd';

const SOCKET: &str = "hook.sock";

const PROCEED: u8 = b'+';

/// Longer than any dump; the wait ends earlier when CRIU does.
const LONGEST_DUMP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where the script will connect.
#[derive(Debug)]
pub struct Hook(Listener);

/// The tree is dumped and frozen, or restored and not yet running. Dropping this makes CRIU report a
/// failure: it lets a dumped tree run on, and kills a restored one.
#[derive(Debug)]
#[must_use]
pub struct HeldTree(UnixStream);

impl Hook {
    /// Listens in the images directory, before CRIU starts.
    pub fn bind(images: &Path) -> Result<Self, StreamError> {
        Listener::bind(images, SOCKET).map(Self)
    }

    /// Waits for the end of the dump or restore, and calls `freezing` when CRIU is about to stop the tree. None
    /// when CRIU ends without getting there: its log says why.
    pub fn wait(self, criu: &CriuProcess, mut freezing: impl FnMut()) -> Result<Option<HeldTree>, StreamError> {
        loop {
            let mut stream = match self.0.accept(criu.script_peer(), LONGEST_DUMP) {
                Ok(stream) => stream,
                Err(StreamError::CriuEnded) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut moment = [0];
            stream.read_exact(&mut moment).map_err(StreamError::io("listening to CRIU's script"))?;
            if moment == [DONE] {
                return Ok(Some(HeldTree(stream)));
            }
            freezing();
            stream.write_all(&[PROCEED]).map_err(StreamError::io("answering CRIU's script"))?;
        }
    }
}

impl HeldTree {
    /// Lets CRIU do with the tree what it was asked to.
    pub fn proceed(mut self) -> Result<(), StreamError> {
        self.0.write_all(&[PROCEED]).map_err(StreamError::io("answering CRIU's script"))
    }
}

/// The socket's path, for the script's environment.
pub(super) fn socket(images: &Path) -> PathBuf {
    images.join(SOCKET)
}

/// When this process is CRIU's action script, does its work and says how it ends. None otherwise.
pub fn run_as_script() -> Option<ExitCode> {
    let action = std::env::var_os(ACTION_VARIABLE)?;
    let socket = std::env::var_os(HOOK_VARIABLE)?;
    let Some((_, moment)) = MOMENTS.iter().find(|(name, _)| action == *name) else { return Some(ExitCode::SUCCESS) };
    let may_proceed = ask(Path::new(&socket), *moment).unwrap_or(false);
    Some(if may_proceed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(socket: &Path, moment: u8) -> io::Result<bool> {
    let mut answer = [0];
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&[moment])?;
    Ok(stream.read(&mut answer)? == 1 && answer == [PROCEED])
}

/// A script that CRIU starts is its child.
impl CriuProcess {
    fn script_peer(&self) -> Peer<'_> {
        match self.peer() {
            Peer::Process { pid, ended } => Peer::ChildOf { pid, ended },
            other => other,
        }
    }
}
