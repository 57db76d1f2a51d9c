//! The proof: `revenant run` itself saves a small process here and continues it.
//!
//! The process is this program again ([`pulse`]), so that it runs in an image with nothing else in it. Files are
//! left out of the trial (`--ignore /`): other processes of this container may be at work on them.

mod attempt;

use super::{Check, Verdict};
use crate::supervisor::control::{self, Question};
use crate::supervisor::words;
use crate::workload::private_dir;
use crate::workload::reaper;
use attempt::Attempt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "trial";

/// From one beat to the next.
const BEAT: Duration = Duration::from_millis(20);
/// A test process that nobody ends, ends itself after so many beats: a minute or two.
const LAST_BEAT: u64 = 5000;

/// The test process: says how often it has said something.
pub fn pulse() -> u8 {
    for beat in 1..LAST_BEAT {
        if writeln!(io::stdout(), "{beat}").and_then(|()| io::stdout().flush()).is_err() {
            break;
        }
        std::thread::sleep(BEAT);
    }
    0
}

pub(super) fn check(runtime_dir: Option<&Path>) -> Check {
    if let Some(check) = entrypoint_here(runtime_dir) {
        return check;
    }
    let folder = match scratch() {
        Ok(folder) => folder,
        Err(error) => {
            return Check::of(
                Verdict::Bad,
                NAME,
                format!("no folder for it: {error}"),
                "",
                "mount an emptyDir at /run/revenant",
            );
        }
    };
    let check = tried(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    check
}

fn tried(folder: &Path) -> Check {
    match save(folder).and_then(|(saved, last)| Ok((saved, restore(folder, last)?))) {
        Ok((saved, restored)) => Check::good(
            NAME,
            format!(
                "a process was saved and stopped in {}, and continued in {}",
                words::duration(saved),
                words::duration(restored)
            ),
        ),
        Err(problem) => Check::bad(NAME, &problem),
    }
}

/// An entrypoint that runs here has its own proof; a second one beside it would take PIDs that it may need.
fn entrypoint_here(runtime_dir: Option<&Path>) -> Option<Check> {
    let folders = runtime_dir.map_or_else(control::runtime_dirs, |folder| vec![folder.to_owned()]);
    let status = folders.iter().find_map(|folder| ask_status(folder))?;
    Some(match (status.saves, &status.unsaved) {
        (_, Some(unsaved)) => Check::bad(NAME, &unsaved.problem),
        (0, None) => Check::skipped(
            NAME,
            "an entrypoint runs in this container, and has not saved yet; `revenant checkpoint` shows that it can",
        ),
        (saves, None) => Check::good(NAME, format!("the entrypoint that runs here has saved {saves} times")),
    })
}

fn ask_status(folder: &Path) -> Option<control::Status> {
    let mut stream = std::os::unix::net::UnixStream::connect(control::socket_path(folder)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut question = serde_json::to_vec(&Question::Status).ok()?;
    question.push(b'\n');
    stream.write_all(&question).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    match serde_json::from_slice(&answer).ok()? {
        control::Answer::Status(status) => Some(*status),
        _ => None,
    }
}

/// A folder of ours alone, for sockets and for a store.
fn scratch() -> io::Result<PathBuf> {
    let mut refused = io::Error::other("none was tried");
    for base in reaper::folders() {
        let folder = base.join(format!("doctor-{}", hex::encode(rand::random::<[u8; 6]>())));
        match private_dir::create(&base).and_then(|()| private_dir::create(&folder)) {
            Ok(()) => return Ok(folder),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Starts the process, lets it beat, saves and stops it. How long that took, and its last beat.
fn save(folder: &Path) -> Result<(Duration, u64), crate::explain::Problem> {
    let mut attempt = Attempt::start(folder)?;
    attempt.beat_after(3)?;
    let begun = Instant::now();
    attempt.stop_saved()?;
    Ok((begun.elapsed(), attempt.last_beat()))
}

/// Starts it again: it must go on with the next beat. How long until that was seen.
fn restore(folder: &Path, last: u64) -> Result<Duration, crate::explain::Problem> {
    let begun = Instant::now();
    let mut attempt = Attempt::start(folder)?;
    let next = attempt.beat_after(0)?;
    let took = begun.elapsed();
    attempt.end();
    if next == last + 1 { Ok(took) } else { Err(attempt::went_back(last, next)) }
}
