//! `revenant diff`: what changed from one generation to another.

use super::stored_job::{StoredJob, block_on, print_json};
use crate::checkpoint::compare::{Comparison, FileChange, MappingChange, ProcessChange, compare};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::{Generation, JobName};
use crate::repository::generations::{self, GenerationError};
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::supervisor::words;
use clap::Args;
use serde::Serialize;
use std::cmp::Reverse;

/// Options of `revenant diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffOptions {
    #[command(flatten)]
    job: StoredJob,
    /// The older generation [default: the newest but one]
    older: Option<Generation>,
    /// The newer generation [default: the newest]
    #[arg(requires = "older")]
    newer: Option<Generation>,
    /// How many mappings of each process, and how many files, are shown
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    job: &'a JobName,
    older: Generation,
    newer: Generation,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

/// Compares.
pub fn run(options: &DiffOptions) -> Result<u8, Problem> {
    let (older, newer, comparison) = block_on(async {
        let repository = options.job.open().await?;
        let (older, newer) = choose(options, &repository).await?;
        let (a, b) = (opened(&repository, older).await?, opened(&repository, newer).await?);
        let compared = tokio::task::spawn_blocking(move || compare(&a, &b)).await;
        let comparison = compared
            .map_err(|error| Problem::new(Exit::Internal, error.to_string(), "a bug in revenant", "please report it"))?
            .map_err(|error| error.explain())?;
        Ok((older, newer, comparison))
    })?;
    if options.json {
        print_json(&Document { job: &options.job.job, older, newer, comparison: &comparison })?;
    } else {
        println!("{}", describe(older, newer, &comparison, options.top));
    }
    Ok(0)
}

async fn choose(options: &DiffOptions, repository: &Repository) -> Result<(Generation, Generation), Problem> {
    let list = generations::list(&repository.store).await.map_err(|error| error.explain())?;
    let there = |generation: Generation| {
        if list.contains(&generation) { Ok(generation) } else { Err(GenerationError::Unknown(generation).explain()) }
    };
    let few = || {
        Problem::new(
            Exit::Failure,
            format!("job {} has {} generations, two are needed", options.job.job, list.len()),
            "it was saved less than twice, or older ones were pruned",
            "save again; `--keep` of `revenant run` says how many stay",
        )
    };
    let newer = match options.newer {
        Some(newer) => there(newer)?,
        None => *list.last().ok_or_else(few)?,
    };
    let older = match options.older {
        Some(older) => there(older)?,
        None => *list.iter().rev().nth(1).ok_or_else(few)?,
    };
    Ok((older, newer))
}

async fn opened(repository: &Repository, generation: Generation) -> Result<Opened, Problem> {
    let manifest = generations::load(repository, generation).await.map_err(|error| error.explain())?;
    let handle = tokio::runtime::Handle::current();
    let opened = Opened::open(repository, manifest.index.id, manifest.index.len, &handle).await;
    opened.map_err(|error| error.explain())
}

fn describe(older: Generation, newer: Generation, comparison: &Comparison, top: usize) -> String {
    let mut lines = vec![format!(
        "memory from {older} to {newer}: {}",
        sizes(comparison.memory_before, comparison.memory_after, comparison.memory_new)
    )];
    let mut processes: Vec<&ProcessChange> = comparison.processes.iter().collect();
    processes.sort_by_key(|process| (Reverse(process.new), Reverse(process.after), process.pid));
    for process in processes {
        let state = match (process.was, process.is) {
            (true, false) => ", ended",
            (false, true) => ", new",
            _ => "",
        };
        let size = sizes(process.before, process.after, process.new);
        lines.push(format!("process {} {}{state}: {size}", process.pid, process.name));
        let mut mappings: Vec<&MappingChange> =
            process.mappings.iter().filter(|mapping| mapping.new > 0 || mapping.before != mapping.after).collect();
        mappings.sort_by_key(|mapping| (Reverse(mapping.new), Reverse(mapping.before.abs_diff(mapping.after))));
        for mapping in mappings.iter().take(top) {
            let gone = if mapping.gone { ", unmapped" } else { "" };
            let size = sizes(mapping.before, mapping.after, mapping.new);
            lines.push(format!("  {:012x}-{:012x} {}{gone}: {size}", mapping.start, mapping.end, mapping.what));
        }
        if mappings.len() > top {
            lines.push(format!("  and {} mappings more", mappings.len() - top));
        }
    }
    for shared in comparison.shared.iter().filter(|shared| shared.new > 0 || shared.before != shared.after) {
        lines.push(format!("shared memory {}: {}", shared.number, sizes(shared.before, shared.after, shared.new)));
    }
    let mut files: Vec<&FileChange> = comparison.files.iter().collect();
    files.sort_by_key(|file| Reverse(file.after.unwrap_or(0).abs_diff(file.before.unwrap_or(0))));
    for file in files.iter().take(top) {
        let size = match (file.before, file.after) {
            (None, Some(after)) => format!("{}, new", words::bytes(after)),
            (Some(before), None) => format!("{}, removed", words::bytes(before)),
            (Some(before), Some(after)) if before == after => format!("{}, written", words::bytes(after)),
            (before, after) => {
                format!("{} → {}", words::bytes(before.unwrap_or(0)), words::bytes(after.unwrap_or(0)))
            }
        };
        lines.push(format!("file {}{}: {size}", file.path, if file.on_volume { " (volume)" } else { "" }));
    }
    if files.len() > top {
        lines.push(format!("and {} files more", files.len() - top));
    }
    lines.join("\n")
}

fn sizes(before: u64, after: u64, new: u64) -> String {
    let sign = if after >= before { '+' } else { '-' };
    let by = words::bytes(after.abs_diff(before));
    format!("{} → {} ({sign}{by}), {} new", words::bytes(before), words::bytes(after), words::bytes(new))
}
