//! The files beside the memory: captured while the tree is frozen, brought back before it is
//! restored. The room `files` does the work; here it meets the repository and the engine.

use super::engine::Events;
use super::files::{self, Baseline, FileSink, FileSource, Site, When};
use super::intake::Intake;
use super::protocol::JobContext;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::read::{Opened, ReadError};
use crate::repository::save::{Save, SaveError};
use crate::workload::tree;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// Where the baseline lies between the engine processes of one container.
fn baseline_file(context: &JobContext) -> PathBuf {
    context.runtime_dir.join("baseline.json")
}

/// How long a restore may list the image's directories: to the end, in all but monstrous images.
const LIST_BEFORE_RESTORE: Duration = Duration::from_secs(60);

/// How long a save without a deadline may, before the tree is frozen.
const LIST_BEFORE_SAVE: Duration = Duration::from_secs(5);

/// How long a save in answer to a notice may.
const LIST_IN_A_HURRY: Duration = Duration::from_millis(100);

/// Remembers what this container's files were like, before anything of the job runs in it. Only the
/// moment is taken: a fresh start must not wait for a walk through the image.
pub fn take_baseline(context: &JobContext) -> Result<(), Problem> {
    let site = Site::here().map_err(unreadable)?;
    Baseline::now(&site.root).save(&baseline_file(context)).map_err(unreadable)
}

/// Lists the image's directories while the workload starts. A save does what is left.
pub fn list_image(context: &JobContext) {
    if let Err(problem) = list(context, LIST_BEFORE_RESTORE) {
        tracing::debug!(%problem, "the image was not listed");
    }
}

/// The baseline, with as many directories listed as the time allows.
pub fn prepare_capture(context: &JobContext, hurry: bool) -> Result<Baseline, Problem> {
    list(context, if hurry { LIST_IN_A_HURRY } else { LIST_BEFORE_SAVE })
}

fn list(context: &JobContext, budget: Duration) -> Result<Baseline, Problem> {
    let file = baseline_file(context);
    let mut baseline = Baseline::load(&file).map_err(unreadable)?;
    if baseline.is_complete() {
        return Ok(baseline);
    }
    let site = Site::here().map_err(unreadable)?;
    baseline.list_but(&site, When::Meanwhile, budget, &|path| context.files.is_of_no_interest(path));
    // The next save lists again what could not be written down.
    let _ = baseline.save(&file);
    Ok(baseline)
}

/// Captures the files of a frozen tree.
pub fn capture(
    context: &JobContext,
    root_pid: i32,
    baseline: &Baseline,
    intake: &Intake,
    events: &Events,
) -> Result<(), Problem> {
    let tree = tree::below(root_pid).map_err(unreadable)?;
    let captured = files::capture(&tree, baseline, &context.files, intake)?;
    for problem in captured.warnings {
        events.warn(problem);
    }
    tracing::debug!(files = captured.files, bytes = captured.bytes, "captured files");
    Ok(())
}

/// What bringing back would do here.
pub fn plan(opened: &Opened, policy: &files::FilePolicy) -> Result<files::Plan, Problem> {
    let source = Source { opened, lost: RefCell::default() };
    files::plan(&source, policy).map_err(|problem| source.lost.take().unwrap_or(problem))
}

/// Brings the files back to the moment of the checkpoint, or refuses and touches nothing. `again`:
/// after a newer checkpoint failed to restore in this container, whose files are cleared first.
pub fn bring_back(context: &JobContext, opened: &Opened, again: bool, events: &Events) -> Result<(), Problem> {
    let file = baseline_file(context);
    let mut baseline = Baseline::load(&file).map_err(unreadable)?;
    let site = Site::here().map_err(unreadable)?;
    baseline.list(&site, When::BeforeTheWorkload, LIST_BEFORE_RESTORE);
    let source = Source { opened, lost: RefCell::default() };
    // A store that is out of sight must not be taken for a damaged checkpoint.
    let cause = |problem: Problem| source.lost.take().unwrap_or(problem);
    let plan = files::plan(&source, &context.files).map_err(cause)?;
    baseline.continue_from(plan.catalogue());
    baseline.save(&file).map_err(unreadable)?;
    if again {
        for problem in files::remove_leftovers(&plan, &baseline) {
            events.warn(problem);
        }
    }
    if let Some(left) = plan.left_alone() {
        events.notice(left);
    }
    let report = files::bring_back(&plan, &source).map_err(cause)?;
    for problem in report.warnings {
        events.warn(problem);
    }
    if report.volumes > 0 {
        events.notice(format!("{} files on volumes were brought back to the moment of the checkpoint", report.volumes));
    }
    tracing::debug!(layer = report.layer, volumes = report.volumes, bytes = report.bytes, "brought files back");
    Ok(())
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn unreadable(error: io::Error) -> Problem {
    Problem::new(
        Exit::Failure,
        format!("the container's files cannot be surveyed: {error}"),
        "/proc is not mounted, or revenant's runtime directory is not writable",
        "mount /proc as usual, and a writable runtime directory (--runtime-dir)",
    )
}

impl FileSink for Intake {
    fn store(&self, name: &str, file: &File) -> io::Result<u64> {
        self.file_save(|save| save.store_pages(name, file.as_fd()))
    }

    fn store_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file_save(|save| save.store_bytes(name, bytes))
    }
}

impl Intake {
    fn file_save<T>(&self, store: impl FnOnce(&Save) -> Result<T, SaveError>) -> io::Result<T> {
        self.with_save(store).ok_or_else(|| io::Error::other("the save has ended"))?.map_err(io::Error::other)
    }
}

struct Source<'a> {
    opened: &'a Opened,
    /// The first failure of the store itself.
    lost: RefCell<Option<Problem>>,
}

impl Source<'_> {
    fn to_io(&self, error: ReadError) -> io::Error {
        if !error.is_damage() {
            self.lost.borrow_mut().get_or_insert(error.explain());
        }
        match error {
            ReadError::NoSuchImage(_) => io::Error::new(io::ErrorKind::NotFound, error),
            error => io::Error::other(error),
        }
    }
}

impl FileSource for Source<'_> {
    fn fetch(&self, name: &str, into: &mut File) -> io::Result<()> {
        self.opened.send(name, into.as_fd()).map(drop).map_err(|error| self.to_io(error))
    }

    fn fetch_bytes(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.opened.read(name, limit).map_err(|error| self.to_io(error))
    }
}
