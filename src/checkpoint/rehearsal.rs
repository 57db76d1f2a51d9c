//! What a restore would do in this container, found out without doing it.

use super::compatibility::{self, CpuPolicy, Misfit, Surroundings};
use super::files::{self, Catalogue, FilePolicy, Plan};
use super::job_store;
use super::record::{Host, Record};
use super::side_effects;
use crate::criu::Criu;
use crate::criu::probe::{Probe, Rights};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::Generation;
use crate::repository::generations;
use crate::repository::manifest::Manifest;
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::workload::tree;
use tokio::runtime::Runtime;

/// A generation, looked at from this container.
#[derive(Debug)]
pub struct Rehearsal {
    /// Its manifest.
    pub manifest: Manifest,
    /// Why nothing can be restored here at all, or not this.
    pub refusals: Vec<Problem>,
    /// What fits badly.
    pub misfits: Vec<Misfit>,
    /// Processes that hold a PID of the checkpoint.
    pub taken: Vec<i32>,
    /// What would become of files.
    pub files: Plan,
}

impl Rehearsal {
    /// Whether a restore would be tried.
    pub fn succeeds(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// The generation that was asked for, else the newest.
pub fn choose(repository: &Repository, asked: Option<Generation>, runtime: &Runtime) -> Result<Generation, Problem> {
    let list = runtime.block_on(generations::list(&repository.store)).map_err(|error| error.explain())?;
    match asked {
        Some(generation) if list.contains(&generation) => Ok(generation),
        Some(generation) => Err(generations::GenerationError::Unknown(generation).explain()),
        None => list.last().copied().ok_or_else(|| {
            Problem::new(
                Exit::Failure,
                "the job has no generation",
                "nothing was saved yet, or the job is complete and its checkpoints were removed",
                "`revenant checkpoint` in its container saves now",
            )
        }),
    }
}

/// Looks at one generation. Nothing is changed, and the job is not taken.
pub fn rehearse(
    repository: &Repository,
    generation: Generation,
    policy: &FilePolicy,
    cpu: CpuPolicy,
    runtime: &Runtime,
) -> Result<Rehearsal, Problem> {
    let (manifest, opened) = runtime.block_on(job_store::open_generation(repository, generation, runtime.handle()))?;
    let record = Record::from_json(&manifest.checkpoint)?;
    let mut refusals: Vec<Problem> =
        Rights::current().ok().and_then(|rights| Probe::of(&rights).problem()).into_iter().collect();
    let version = Criu::locate().and_then(|criu| criu.supported_version().map(|version| version.to_string()));
    let host = Host::here(version.as_deref().unwrap_or(&record.host.criu));
    refusals.extend(version.err().map(|error| error.explain()));
    refusals.extend(record.refuse_elsewhere(&host).err());
    let misfits = record.misfits(&host, &Surroundings::here(), cpu);
    refusals.extend(compatibility::refusal(&misfits));
    let taken = record.pids.iter().copied().filter(|pid| tree::is_taken(*pid)).collect();
    let files = side_effects::plan(&opened, policy)?;
    refusals.extend(files.refusal());
    Ok(Rehearsal { manifest, refusals, misfits, taken, files })
}

/// The files that a generation carries or has recorded.
pub fn catalogue(repository: &Repository, generation: Generation, runtime: &Runtime) -> Result<Catalogue, Problem> {
    let (_, opened) = runtime.block_on(job_store::open_generation(repository, generation, runtime.handle()))?;
    read_catalogue(&opened)
}

fn read_catalogue(opened: &Opened) -> Result<Catalogue, Problem> {
    let bytes = opened.read(files::CATALOGUE_NAME, files::CATALOGUE_LIMIT).map_err(|error| error.explain())?;
    Catalogue::from_json(&bytes).map_err(|defect| {
        Problem::new(
            Exit::Damaged,
            format!("the checkpoint's catalogue of files cannot be used: {defect}"),
            "the checkpoint is damaged, or was written by another version of revenant",
            "use an older generation: `revenant list` shows them",
        )
    })
}
