//! `revenant inspect`: all that a generation's manifest says.

use super::inspect_files;
use super::stored_job::{StoredJob, block_on, print_json, threads};
use crate::checkpoint::rehearsal;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::Generation;
use crate::repository::generations;
use crate::repository::manifest::Manifest;
use crate::supervisor::words;
use clap::Args;
use std::time::Duration;

/// Options of `revenant inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectOptions {
    #[command(flatten)]
    job: StoredJob,
    /// The generation [default: the newest]
    generation: Option<Generation>,
    /// Show the files that it carries or has recorded
    #[arg(long)]
    files: bool,
    /// Print the manifest (with --files: the catalogue of files) as JSON
    #[arg(long)]
    json: bool,
}

/// Inspects.
pub fn run(options: &InspectOptions) -> Result<u8, Problem> {
    if options.files {
        return files(options);
    }
    let manifest = block_on(async {
        let repository = options.job.open().await?;
        let list = generations::list(&repository.store).await.map_err(|error| error.explain())?;
        let generation = match options.generation {
            Some(generation) if list.contains(&generation) => generation,
            Some(generation) => return Err(generations::GenerationError::Unknown(generation).explain()),
            None => *list.last().ok_or_else(|| {
                Problem::new(
                    Exit::Failure,
                    format!("job {} has no generation", options.job.job),
                    "nothing was saved yet, or the job is complete and its checkpoints were removed",
                    "`revenant checkpoint` in its container saves now",
                )
            })?,
        };
        generations::load(&repository, generation).await.map_err(|error| error.explain())
    })?;
    if options.json {
        print_json(&manifest)?;
    } else {
        print!("{}", describe(&manifest));
    }
    Ok(0)
}

fn files(options: &InspectOptions) -> Result<u8, Problem> {
    let runtime = threads()?;
    let repository = runtime.block_on(options.job.open())?;
    let generation = rehearsal::choose(&repository, options.generation, &runtime)?;
    let catalogue = rehearsal::catalogue(&repository, generation, &runtime)?;
    if options.json {
        print_json(&catalogue)?;
    } else {
        print!("{}", inspect_files::page(&catalogue));
    }
    Ok(0)
}

fn describe(manifest: &Manifest) -> String {
    let stats = &manifest.stats;
    let packed: u64 = manifest.packs.iter().map(|pack| pack.len).sum();
    let base = manifest.base.map_or_else(|| "nothing".to_owned(), |base| base.to_string());
    let mut lines = vec![
        format!("generation {} of job {}", manifest.generation, manifest.job),
        format!("saved      {} ({})", humantime::format_rfc3339_seconds(manifest.created), manifest.reason),
        format!("compared   with {base}"),
        format!("size       {} in {} images", words::bytes(stats.image_bytes), manifest.images.len()),
        format!(
            "stored     {} new, {} packs of {} needed",
            words::bytes(stats.stored_bytes),
            manifest.packs.len(),
            words::bytes(packed)
        ),
        format!(
            "took       {}, frozen for {}",
            words::duration(Duration::from_millis(stats.total_ms)),
            words::duration(Duration::from_millis(stats.frozen_ms))
        ),
        "images".to_owned(),
    ];
    lines.extend(manifest.images.iter().map(|image| format!("  {:28} {}", image.name, words::bytes(image.len))));
    lines.join("\n") + "\n"
}
