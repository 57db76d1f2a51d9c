//! `revenant manifest`: Kubernetes manifests for a long-running job.

use super::tuning::size;
use crate::explain::{Explain, Problem};
use crate::kubernetes::manifest::{self, Answers, Kind, Store, Tier};
use clap::Args;

/// Options of `revenant manifest`.
#[derive(Debug, Clone, Args)]
pub struct ManifestOptions {
    /// Name of the job
    #[arg(long)]
    name: String,
    /// The image, by digest if you can; revenant is its ENTRYPOINT
    #[arg(long)]
    image: String,
    /// Expected peak of memory, for example 128GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: u64,
    /// Expected use of CPU, in cores
    #[arg(long, value_name = "CORES", value_parser = cores)]
    cpus: u64,
    /// What is written
    #[arg(long, value_enum, default_value = "job")]
    kind: Kind,
    /// How much the job matters: where it runs, and who makes room
    #[arg(long, value_enum, default_value = "critical")]
    tier: Tier,
    /// An object store for checkpoints (s3://…, gs://…, az://…) instead of a claim
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The Secret with the object store's credentials as variables
    #[arg(long, value_name = "NAME", requires = "store")]
    store_secret: Option<String>,
    /// Size of the claim for checkpoints [default: three times the memory]
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "store")]
    claim_size: Option<u64>,
    /// Its storage class [default: the cluster's]
    #[arg(long, value_name = "NAME", conflicts_with = "store")]
    storage_class: Option<String>,
    /// A claim that holds the data, and where it is mounted
    #[arg(long, value_name = "CLAIM=PATH", value_parser = data)]
    data: Option<(String, String)>,
    /// How long a save takes; the grace period is twice that [default: 2 s for each GiB of memory]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    save_time: Option<std::time::Duration>,
    /// Also save every so often, for example 1h; auto follows from the cost of a save
    #[arg(long, value_name = "TIME", default_value = "auto")]
    every: String,
    /// A Secret whose entry `key` encrypts the checkpoints
    #[arg(long, value_name = "NAME")]
    key_secret: Option<String>,
    /// The label of high-memory nodes
    #[arg(long, value_name = "NAME=VALUE", default_value = "node-class=high-memory")]
    high_memory_label: String,
    /// When it begins (kind cronjob), for example '0 2 * * 0'
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
    /// The command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints the manifests.
pub fn run(options: ManifestOptions) -> Result<u8, Problem> {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let gib = |bytes: u64| u32::try_from(bytes.div_ceil(GIB)).unwrap_or(u32::MAX);
    let store = match options.store {
        Some(url) => Store::Url { url, secret: options.store_secret },
        None => Store::Claim {
            gib: gib(options.claim_size.unwrap_or(options.memory.saturating_mul(3))),
            class: options.storage_class,
        },
    };
    let answers = Answers {
        name: options.name,
        kind: options.kind,
        tier: options.tier,
        image: options.image,
        command: options.command,
        memory_mib: options.memory.div_ceil(MIB),
        cpu_milli: options.cpus,
        store,
        data: options.data,
        save_seconds: options.save_time.map_or_else(|| 2 * u64::from(gib(options.memory)), |time| time.as_secs()),
        every: options.every,
        key_secret: options.key_secret,
        high_memory_label: options.high_memory_label,
        schedule: options.schedule,
    };
    print!("{}", manifest::manifest(&answers).map_err(|error| error.explain())?);
    Ok(0)
}

/// Cores, as thousandths.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within bounds that were just checked.
fn cores(text: &str) -> Result<u64, String> {
    let cores: f64 = text.parse().map_err(|_| format!("{text:?} is no number of cores"))?;
    if (0.001..=4096.0).contains(&cores) {
        Ok((cores * 1000.0).round() as u64)
    } else {
        Err(format!("{text} cores cannot be asked for"))
    }
}

fn data(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((claim, path)) if !claim.is_empty() && path.starts_with('/') => Ok((claim.to_owned(), path.to_owned())),
        _ => Err(format!("{text:?} is not CLAIM=/PATH")),
    }
}
