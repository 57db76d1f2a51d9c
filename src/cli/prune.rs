//! `revenant prune`: remove old generations and leftovers of a job that is not running.

use super::claimant::claimant;
use super::stored_job::{StoredJob, block_on, print_json};
use super::verify::percent;
use crate::explain::{Explain, Problem};
use crate::repository::claim::{self, Claim, Take, Terms};
use crate::repository::open::Repository;
use crate::repository::repack::{self, Repacked};
use crate::repository::retention::{self, Keep, Pruned};
use crate::supervisor::words;
use clap::Args;
use std::time::Duration;

/// Options of `revenant prune`. A running job prunes itself after each save (`revenant run --keep`).
#[derive(Debug, Clone, Args)]
pub struct PruneOptions {
    #[command(flatten)]
    job: StoredJob,
    /// How many of the newest good generations stay, at least 1
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: u32,
    /// And all that are younger than this, for example 14d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    keep_within: Option<Duration>,
    /// A container that has not renewed its claim for this long is taken for dead
    #[arg(long, env = "REVENANT_LEASE", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// Then move what is still needed out of packs of which less than this share is, for example 50%, so that they can go
    /// too. Generations that are concerned, and those after them, get new numbers; their content stays the same
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    repack_below: Option<f64>,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

/// Takes the job, prunes, gives it back.
pub fn run(options: &PruneOptions) -> Result<u8, Problem> {
    let done = block_on(async {
        let repository = options.job.open().await?;
        let holder = claimant("prune");
        let terms = Terms { lease: options.lease, takeover: false };
        let claim = match claim::take(&repository.store, &holder, &terms).await.map_err(|error| error.explain())? {
            Take::Taken { claim, .. } => claim,
            Take::InUse(in_use) => {
                return Err(Problem {
                    next: "nothing: a running job prunes itself after each save; see --keep of `revenant run`"
                        .to_owned(),
                    ..in_use.explain()
                });
            }
        };
        let keep = Keep { last: options.keep_last, within: options.keep_within };
        let done = prune(&repository, &claim, keep, options.repack_below).await;
        claim.release().await.map_err(|error| error.explain())?;
        done
    })?;
    let (pruned, repacked) = done;
    if options.json {
        let mut report = serde_json::json!(pruned);
        if let Some(repacked) = &repacked {
            report["repacked"] = serde_json::json!(repacked);
        }
        print_json(&report)?;
    } else {
        let names: Vec<String> = pruned.generations.iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "no generation".to_owned() } else { names.join(", ") };
        println!("removed {names}; {} packs, {}", pruned.packs, words::bytes(pruned.bytes));
        if let Some(generation) = pruned.held_back_by {
            println!("packs stay because generation {generation} cannot be read; `revenant verify` says more");
        }
        if let Some(repacked) = &repacked {
            println!("{}", describe(repacked));
        }
    }
    Ok(0)
}

async fn prune(
    repository: &Repository,
    claim: &Claim,
    keep: Keep,
    repack_below: Option<f64>,
) -> Result<(Pruned, Option<Repacked>), Problem> {
    let pruned = retention::prune(repository, claim, keep, &[]).await.map_err(|error| error.explain())?;
    // What cannot be read might need anything.
    let Some(percent) = repack_below.filter(|_| pruned.held_back_by.is_none()) else { return Ok((pruned, None)) };
    let repacked = repack::repack(repository, claim, percent / 100.0).await.map_err(|error| error.explain())?;
    Ok((pruned, Some(repacked)))
}

fn describe(repacked: &Repacked) -> String {
    if repacked.packs == 0 {
        return "no pack was repacked".to_owned();
    }
    let renamed: Vec<String> = repacked.generations.iter().map(|(from, to)| format!("{from} is now {to}")).collect();
    let left =
        if repacked.left > 0 { format!("; {} more are left for the next time", repacked.left) } else { String::new() };
    format!(
        "repacked {} packs: {} of {} were still needed{left}\n{}",
        repacked.packs,
        words::bytes(repacked.moved),
        words::bytes(repacked.given_up),
        renamed.join(", ")
    )
}
