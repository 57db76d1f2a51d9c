//! `revenant restore-plan`: what a restore would do in this container, without doing it.

use super::side_effects::FileOptions;
use super::stored_job::{StoredJob, print_json, threads};
use crate::checkpoint::compatibility::CpuPolicy;
use crate::checkpoint::rehearsal::{self, Rehearsal};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::job::Generation;
use crate::supervisor::words;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Options of `revenant restore-plan`.
#[derive(Debug, Clone, Args)]
pub struct RestorePlanOptions {
    #[command(flatten)]
    job: StoredJob,
    /// The generation [default: the newest]
    generation: Option<Generation>,
    /// What a processor without an instruction set of the first one means
    #[arg(long, env = "REVENANT_CPU_CAP", value_enum, default_value = "all")]
    cpu_cap: CpuPolicy,
    #[command(flatten)]
    files: FileOptions,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Looks and prints; 202 when a restore would be refused.
pub fn run(options: &RestorePlanOptions) -> Result<u8, Problem> {
    let runtime = threads()?;
    let repository = runtime.block_on(options.job.open())?;
    let generation = rehearsal::choose(&repository, options.generation, &runtime)?;
    let store = options.job.store.strip_prefix("file://").map(PathBuf::from);
    let policy = options.files.clone().policy(store.into_iter().collect());
    let rehearsal = rehearsal::rehearse(&repository, generation, &policy, options.cpu_cap, &runtime)?;
    if options.json {
        print_json(&as_json(&rehearsal))?;
    } else {
        print!("{}", page(&rehearsal));
    }
    Ok(if rehearsal.succeeds() { 0 } else { Exit::RestoreRefused.code() })
}

fn page(rehearsal: &Rehearsal) -> String {
    let manifest = &rehearsal.manifest;
    let mut lines = vec![format!(
        "generation {} of job {}, saved {} ago ({}), {}",
        manifest.generation,
        manifest.job,
        words::age(manifest.created),
        manifest.reason,
        words::bytes(manifest.stats.image_bytes)
    )];
    lines.push(rehearsal.files.to_string());
    for misfit in rehearsal.misfits.iter().filter(|misfit| !misfit.refuses) {
        lines.push(format!("note: {misfit}\n  next: {}", misfit.remedy));
    }
    if !rehearsal.taken.is_empty() {
        let taken: Vec<String> = rehearsal.taken.iter().take(8).map(ToString::to_string).collect();
        lines.push(format!("note: PIDs of the checkpoint are in use in this container now: {}", taken.join(", ")));
    }
    for problem in &rehearsal.refusals {
        lines.push(format!("refused: {problem}"));
    }
    lines.push(if rehearsal.succeeds() {
        "a restore would be tried".to_owned()
    } else {
        "a restore would be refused; nothing was changed".to_owned()
    });
    lines.join("\n") + "\n"
}

fn as_json(rehearsal: &Rehearsal) -> serde_json::Value {
    let misfits = rehearsal.misfits.iter().map(|misfit| {
        json!({ "refuses": misfit.refuses, "what": misfit.what, "cause": misfit.cause, "next": misfit.remedy })
    });
    json!({
        "generation": rehearsal.manifest.generation,
        "restorable": rehearsal.succeeds(),
        "refusals": rehearsal.refusals,
        "misfits": misfits.collect::<Vec<_>>(),
        "taken_pids": rehearsal.taken,
        "files": rehearsal.files.to_string().lines().collect::<Vec<_>>(),
        "obstacles": rehearsal.files.obstacles(),
    })
}
