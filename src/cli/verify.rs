//! `revenant verify`: is what is stored what was written?

use super::stored_job::{StoredJob, block_on, print_json};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::verify::{Depth, Report, verify};
use crate::supervisor::words;
use clap::Args;
use indicatif::ProgressBar;
use std::io::IsTerminal as _;

/// Options of `revenant verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyOptions {
    #[command(flatten)]
    job: StoredJob,
    /// Read every byte of every pack, not only metadata
    #[arg(long)]
    read_data: bool,
    /// Read every byte of that share of the packs, chosen at random, for example 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "read_data")]
    read_data_subset: Option<f64>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// `5%` or `5`.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().map_err(|error| error.to_string())?;
    if number > 0.0 && number <= 100.0 { Ok(number) } else { Err("a share lies above 0 % and up to 100 %".to_owned()) }
}

/// Verifies; ends with the code for damaged data when there is any.
pub fn run(options: &VerifyOptions) -> Result<u8, Problem> {
    let depth = match (options.read_data, options.read_data_subset) {
        (true, _) => Depth::Data { percent: 100.0 },
        (false, Some(percent)) => Depth::Data { percent },
        (false, None) => Depth::Metadata,
    };
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let report = block_on(async {
        let repository = options.job.open().await?;
        let progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        verify(&repository, depth, progress).await.map_err(|error| error.explain())
    })?;
    bar.finish_and_clear();
    if options.json {
        print_json(&report)?;
    } else {
        print!("{}", describe(&report));
    }
    Ok(if report.damages.is_empty() { 0 } else { Exit::Damaged.code() })
}

fn describe(report: &Report) -> String {
    let mut lines = Vec::new();
    for damage in &report.damages {
        let hurts: Vec<String> = damage.hurts.iter().map(ToString::to_string).collect();
        let hurts =
            if hurts.is_empty() { "no generation".to_owned() } else { format!("generations {}", hurts.join(", ")) };
        lines.push(format!("damaged: {}\n  why:   {}\n  hurts: {hurts}", damage.key, damage.what));
    }
    lines.push(format!(
        "{} of {} generations are good; {} packs, {} of them read whole ({})",
        report.good.len(),
        report.generations.len(),
        report.packs,
        report.packs_read,
        words::bytes(report.bytes_read)
    ));
    if report.unreferenced_packs > 0 {
        let size = words::bytes(report.unreferenced_bytes);
        lines.push(format!(
            "{} packs ({size}) belong to no generation: a save under way, or prune removes them",
            report.unreferenced_packs
        ));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_shares() {
        assert_eq!(percent("5%"), Ok(5.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        for bad in ["0", "101%", "-1", "much", "NaN", "inf"] {
            assert!(percent(bad).is_err(), "{bad} was accepted");
        }
    }
}
