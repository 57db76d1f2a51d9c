//! What was seen, as a table for people and as JSON.

use crate::causes::Cause;
use crate::making::INTERVAL_SECONDS;
use serde_json::json;
use std::fmt::{self, Write as _};
use std::path::Path;

/// Where the table lies.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/survival.md");
/// Where the same lies for machines, below the build's folder.
const JSON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/build/survival/survival.json");

/// What can be known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The end is announced: it gets a last save with the workload stopped.
    Announced,
    /// Something may end soon, or somebody asks: a save, and the workload runs on.
    Warning,
    /// Nothing is known before.
    Unannounced,
}

/// What was seen of one cause.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What revenant did, in its own words.
    pub did: String,
    /// Steps of the workload that were done twice.
    pub ticks_lost: u64,
    /// The time that they took.
    pub seconds_lost: f64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; lost {:.2} s ({} steps)", self.did, self.seconds_lost, self.ticks_lost)
    }
}

/// A cause and what was seen of it; none if that failed.
pub struct Row {
    pub cause: &'static Cause,
    pub seen: Option<Seen>,
}

fn section(text: &mut String, rows: &[Row], kind: Kind, title: &str, words: &str) {
    let _ = writeln!(
        text,
        "## {title}\n\n{words}\n\n| cause | how it was made | what revenant did | work lost |\n|---|---|---|---|"
    );
    for Row { cause, seen } in rows.iter().filter(|row| row.cause.kind == kind) {
        let (did, lost) = match seen {
            None => ("FAILED".to_owned(), "?".to_owned()),
            Some(seen) if seen.ticks_lost == 0 => (seen.did.clone(), "none".to_owned()),
            Some(seen) => (seen.did.clone(), format!("{:.1} s", seen.seconds_lost)),
        };
        let _ = writeln!(text, "| {} | {} | {} | {lost} |", cause.name, cause.how, did.replace('|', "/"));
    }
    text.push('\n');
}

/// Of the control groups that hold this machine's memory.
fn version() -> &'static str {
    if Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() { "1" } else { "2" }
}

/// The whole page.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = "# What is survived\n\nMeasured, each cause by its real mechanism in a real container (runc, CRIU), or by a \
        server that speaks the documented\nprotocol. The workload counts; \"work lost\" is what it had counted and had to count \
        again in the next container.\n`make survival` makes this page anew. Memory was limited by cgroup version {}.\n\n"
        .replace("{}", version());
    section(
        &mut text,
        rows,
        Kind::Announced,
        "Announced: nothing may be lost",
        "A last save, with the workload stopped.",
    );
    section(
        &mut text,
        rows,
        Kind::Warning,
        "Warned: a save, and the workload runs on",
        "Here the container is killed (SIGKILL) at the moment at which the save is told to be durable: what is lost is what \
         the\nworkload did while its save was stored. Killed later, it loses what it did since.",
    );
    section(
        &mut text,
        rows,
        Kind::Unannounced,
        "Unannounced: at most the interval is lost",
        &format!(
            "With `--every {INTERVAL_SECONDS}s` (one save tenth more or less), for want of patience; `auto` weighs it for real jobs."
        ),
    );
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Both files.
pub fn write(rows: &[Row]) {
    std::fs::write(PAGE, markdown(rows)).unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|Row { cause, seen }| {
            json!({"cause": cause.name, "kind": format!("{:?}", cause.kind).to_lowercase(), "how": cause.how,
                "did": seen.as_ref().map(|seen| &seen.did), "steps_lost": seen.as_ref().map(|seen| seen.ticks_lost),
                "seconds_lost": seen.as_ref().map(|seen| seen.seconds_lost)})
        })
        .collect();
    std::fs::create_dir_all(Path::new(JSON).parent().unwrap()).unwrap();
    std::fs::write(JSON, serde_json::to_vec_pretty(&rows).unwrap()).unwrap();
}
