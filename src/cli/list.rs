//! `revenant list`: the jobs of a store, or the generations of a job.

use super::stored_job::{StoredJob, block_on, print_json};
use crate::explain::{Explain, Problem};
use crate::job::{Generation, JobName};
use crate::repository::open::Repository;
use crate::repository::{completion, generations, layout};
use crate::store::{Store, StoreSettings};
use crate::supervisor::words;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `revenant list`.
#[derive(Debug, Clone, Args)]
pub struct ListOptions {
    /// Where checkpoints are kept
    #[arg(long, env = "REVENANT_STORE", value_name = "URL", default_value = "file:///checkpoints")]
    store: String,
    /// The job whose generations are shown [default: the jobs of the store]
    #[arg(long, env = "REVENANT_JOB", value_name = "NAME")]
    job: Option<JobName>,
    /// Show the jobs of the store, also where the environment names one
    #[arg(long)]
    jobs: bool,
    /// A file with the key, for an encrypted job
    #[arg(long, env = "REVENANT_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print one JSON object on each line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct JobRow {
    job: JobName,
    generations: usize,
    newest: Option<Generation>,
    complete: bool,
}

#[derive(Debug, Serialize)]
struct GenerationRow {
    generation: Generation,
    /// RFC 3339.
    saved: Option<String>,
    reason: Option<String>,
    image_bytes: Option<u64>,
    stored_bytes: Option<u64>,
    frozen_ms: Option<u64>,
    crashes: u64,
    problem: Option<String>,
}

/// Lists.
pub fn run(options: &ListOptions) -> Result<u8, Problem> {
    match &options.job {
        Some(job) if !options.jobs => {
            let job = StoredJob { store: options.store.clone(), job: job.clone(), key_file: options.key_file.clone() };
            block_on(list_generations(&job, options.json))
        }
        _ => block_on(list_jobs(options)),
    }
    .map(|()| 0)
}

async fn list_jobs(options: &ListOptions) -> Result<(), Problem> {
    let store = Store::open(&options.store, &StoreSettings::default()).map_err(|error| error.explain())?;
    let jobs = jobs(&store).await?;
    for job in &jobs {
        let place = store.child(job.as_str());
        let list = generations::list(&place).await.map_err(|error| error.explain())?;
        let complete = completion::completion(&place).await.map_err(|error| error.explain())?.is_some();
        let row = JobRow { job: job.clone(), generations: list.len(), newest: list.last().copied(), complete };
        if options.json {
            print_json(&row)?;
        } else {
            println!("{}", job_line(&row));
        }
    }
    if jobs.is_empty() && !options.json {
        println!("no jobs in {}", options.store);
    }
    Ok(())
}

/// A directory with a `format.json` is a job.
async fn jobs(store: &Store) -> Result<BTreeSet<JobName>, Problem> {
    let mut jobs = BTreeSet::new();
    for name in store.directories().await.map_err(|error| error.explain())? {
        let Ok(job) = name.parse::<JobName>() else { continue };
        if store.child(&name).head(layout::FORMAT).await.map_err(|error| error.explain())?.is_some() {
            jobs.insert(job);
        }
    }
    Ok(jobs)
}

fn job_line(row: &JobRow) -> String {
    let state = match (&row.newest, row.complete) {
        (_, true) => "complete".to_owned(),
        (Some(newest), false) => format!("{} generations, newest {newest}", row.generations),
        (None, false) => "no generation yet".to_owned(),
    };
    format!("{:32} {state}", row.job.as_str())
}

async fn list_generations(job: &StoredJob, json: bool) -> Result<(), Problem> {
    let repository = job.open().await?;
    let list = generations::list(&repository.store).await.map_err(|error| error.explain())?;
    if !json {
        let complete = completion::completion(&repository.store).await.map_err(|error| error.explain())?;
        if let Some(record) = complete {
            println!("job {} is complete since {}", job.job, humantime::format_rfc3339_seconds(record.at));
        }
        if list.is_empty() {
            println!("job {} has no generation", job.job);
        } else {
            println!("{HEADING}");
        }
    }
    for generation in list {
        let row = row(&repository, generation).await?;
        if json {
            print_json(&row)?;
        } else {
            println!("{}", generation_line(&row));
        }
    }
    Ok(())
}

async fn row(repository: &Repository, generation: Generation) -> Result<GenerationRow, Problem> {
    let crashes = completion::crashes(&repository.store, generation).await.map_err(|error| error.explain())?;
    let mut row = GenerationRow {
        generation,
        saved: None,
        reason: None,
        image_bytes: None,
        stored_bytes: None,
        frozen_ms: None,
        crashes,
        problem: None,
    };
    match generations::load(repository, generation).await {
        Ok(manifest) => {
            row.saved = Some(humantime::format_rfc3339_seconds(manifest.created).to_string());
            row.reason = Some(manifest.reason);
            row.image_bytes = Some(manifest.stats.image_bytes);
            row.stored_bytes = Some(manifest.stats.stored_bytes);
            row.frozen_ms = Some(manifest.stats.frozen_ms);
        }
        Err(generations::GenerationError::Store(error)) => return Err(error.explain()),
        Err(error) => row.problem = Some(error.to_string()),
    }
    Ok(row)
}

const HEADING: &str = "generation  saved                  size        new in store  frozen    why";

fn generation_line(row: &GenerationRow) -> String {
    let name = row.generation.to_string();
    if let Some(problem) = &row.problem {
        return format!("{name:11} {problem}");
    }
    let saved = row.saved.as_deref().unwrap_or_default();
    let size = |bytes: Option<u64>| bytes.map_or_else(String::new, words::bytes);
    let frozen = row.frozen_ms.map_or_else(String::new, |ms| words::duration(Duration::from_millis(ms)));
    let crashes =
        if row.crashes > 0 { format!(" (died soon after a restore {} times)", row.crashes) } else { String::new() };
    format!(
        "{name:11} {saved:22} {:11} {:13} {frozen:9} {}{crashes}",
        size(row.image_bytes),
        size(row.stored_bytes),
        row.reason.as_deref().unwrap_or_default()
    )
}
