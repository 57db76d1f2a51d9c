//! `revenant sizing`: what to ask a cluster for, from what a run has used.

use super::asking::WhereOptions;
use super::status;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::kubernetes::manifest::{Resources, Tier, cpu, memory};
use crate::kubernetes::usage::Usage;
use crate::supervisor::words;
use clap::Args;
use std::io::Read as _;
use std::path::PathBuf;

/// The longest file that is read: months of scrapes of one job.
const LONGEST: u64 = 64 << 20;

/// Options of `revenant sizing`.
#[derive(Debug, Clone, Args)]
pub struct SizingOptions {
    /// What runs of this job have told: `revenant status --json`, or the text of /metrics; `-` is standard input
    /// [default: the entrypoint that runs in this container]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How much the job matters, as for `revenant manifest`
    #[arg(long, value_enum, default_value = "critical")]
    tier: Tier,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: WhereOptions,
}

/// Reads, reckons, prints.
pub fn run(options: &SizingOptions) -> Result<u8, Problem> {
    let texts = if options.files.is_empty() {
        vec![("this container's status".to_owned(), status::json(&options.place)?)]
    } else {
        options.files.iter().map(read).collect::<Result<_, _>>()?
    };
    let mut all = Usage::default();
    for (name, text) in texts {
        all = all.and(Usage::read(&text).ok_or_else(|| nothing(&name))?);
    }
    print!("{}", if options.json { json(&all, options.tier) } else { page(&all, options.tier) });
    Ok(Exit::Ok.code())
}

fn read(path: &PathBuf) -> Result<(String, String), Problem> {
    let name = path.display().to_string();
    let mut text = String::new();
    let read = if name == "-" {
        std::io::stdin().lock().take(LONGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok((name, text)),
        Err(error) => Err(Problem::new(
            Exit::Usage,
            format!("{name} cannot be read: {error}"),
            "it does not exist, or is no text",
            "write it with `revenant status --json > FILE` or `curl http://POD:9102/metrics > FILE`",
        )),
    }
}

fn nothing(name: &str) -> Problem {
    Problem::new(
        Exit::Usage,
        format!("{name} does not say how much memory and processor time the run has used"),
        "it is neither the JSON of a status nor the text of /metrics, or the container does not show its control groups",
        "write it with `revenant status --json > FILE` while the job runs, or ask Prometheus for \
         revenant_container_memory_held_max_bytes, revenant_container_cpu_seconds and revenant_uptime_seconds",
    )
}

/// What the job is expected to use: MiB, and thousandths of a core, in tenths of a core.
fn expected(usage: &Usage) -> (u64, u64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Of a positive number of cores.
    let tenths = (usage.cores() * 10.0).ceil().max(1.0) as u64;
    (usage.memory.div_ceil(1 << 20), tenths * 100)
}

fn page(usage: &Usage, tier: Tier) -> String {
    let (mib, milli) = expected(usage);
    let asked = Resources::of(tier, mib, milli);
    let of = if usage.containers == 1 { String::new() } else { format!(" of {} containers", usage.containers) };
    let (limits, why) = match asked.memory_limit_mib {
        Some(limit) => (format!("memory: {}", memory(limit)), "no CPU limit; it yields to long runs"),
        None => ("none".to_owned(), "a spike does not kill, and eviction takes others first"),
    };
    format!(
        "used        {} of memory at most, {:.1} cores on average, over {}{of}\n\
         requests    cpu: {}, memory: {}\n\
         limits      {limits} ({why})\n\
         manifest    revenant manifest --memory {mib}MiB --cpus {} --tier {} …\n",
        words::bytes(usage.memory),
        usage.cores(),
        words::duration(usage.time),
        cpu(asked.cpu_milli),
        memory(asked.memory_mib),
        // It is in tenths of a core.
        format_args!("{}.{}", milli / 1000, milli % 1000 / 100),
        tier.name(),
    )
}

fn json(usage: &Usage, tier: Tier) -> String {
    let (mib, milli) = expected(usage);
    let asked = Resources::of(tier, mib, milli);
    let mut limits = serde_json::Map::new();
    if let Some(limit) = asked.memory_limit_mib {
        limits.insert("memory".to_owned(), memory(limit).into());
    }
    let text = serde_json::json!({
        "used": {"memory_bytes": usage.memory, "cores": usage.cores(), "seconds": usage.time.as_secs(), "containers": usage.containers},
        "tier": tier.name(),
        "resources": {
            "requests": {"cpu": cpu(asked.cpu_milli).trim_matches('"'), "memory": memory(asked.memory_mib)},
            "limits": limits,
        },
    });
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const USED: Usage = Usage {
        memory: (12 << 30) + 1,
        cpu: Duration::from_secs(761_000),
        time: Duration::from_secs(100_000),
        containers: 2,
    };

    #[test]
    fn long_runs_and_short_ones() {
        insta::assert_snapshot!(page(&USED, Tier::Critical), @r#"
        used        12.0 GiB of memory at most, 7.6 cores on average, over 1 day 3 h of 2 containers
        requests    cpu: 11550m, memory: 18434Mi
        limits      none (a spike does not kill, and eviction takes others first)
        manifest    revenant manifest --memory 12289MiB --cpus 7.7 --tier critical …
        "#);
        insta::assert_snapshot!(page(&USED, Tier::Short), @r#"
        used        12.0 GiB of memory at most, 7.6 cores on average, over 1 day 3 h of 2 containers
        requests    cpu: 7700m, memory: 9832Mi
        limits      memory: 14747Mi (no CPU limit; it yields to long runs)
        manifest    revenant manifest --memory 12289MiB --cpus 7.7 --tier short …
        "#);
    }

    #[test]
    fn machines_get_what_kubernetes_reads() {
        let read: serde_json::Value = serde_json::from_str(&json(&USED, Tier::Short)).unwrap();
        assert_eq!(read["resources"]["requests"], serde_json::json!({"cpu": "7700m", "memory": "9832Mi"}));
        assert_eq!(read["resources"]["limits"], serde_json::json!({"memory": "14747Mi"}));
    }
}
