//! `revenant status`: what the running entrypoint is doing.

mod page;

use super::asking::{WhereOptions, hung_up};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::observe::probe::Probe;
use crate::supervisor::control::{Answer, Question, Status};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Clears a terminal and goes to its upper left corner (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Options of `revenant status`.
#[derive(Debug, Clone, Args)]
pub struct StatusOptions {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print it again every so many seconds, until the entrypoint ends or you stop it
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Answer one question by the exit code: 0 yes, 1 no, 213 no entrypoint runs here
    #[arg(long, value_enum, value_name = "PROBE", conflicts_with_all = ["json", "watch"])]
    probe: Option<Probe>,
    #[command(flatten)]
    place: WhereOptions,
}

/// Asks and prints.
pub fn run(options: &StatusOptions) -> Result<u8, Problem> {
    let status = ask(&options.place)?;
    if let Some(probe) = options.probe {
        let health = probe.judge(&status);
        say(&format!("{}\n", health.reason));
        return Ok(if health.ok { Exit::Ok.code() } else { Exit::Failure.code() });
    }
    let Some(seconds) = options.watch else {
        say(&text(&status, options.json));
        return Ok(Exit::Ok.code());
    };
    watch(options, status, Duration::from_secs(seconds))
}

/// Shows it again and again. An entrypoint that is gone is the end, not a failure.
fn watch(options: &StatusOptions, mut status: Status, pause: Duration) -> Result<u8, Problem> {
    let live = !options.json && std::io::stdout().is_terminal();
    loop {
        let text = text(&status, options.json);
        let shown = if live { say(&format!("{CLEAR}{text}")) } else { say(&text) && (options.json || say("\n")) };
        if !shown {
            // Nobody reads any more.
            return Ok(Exit::Ok.code());
        }
        std::thread::sleep(pause);
        status = match ask(&options.place) {
            Ok(status) => status,
            Err(problem) if problem.exit == Exit::NotRunning.code() => return Ok(Exit::Ok.code()),
            Err(problem) => return Err(problem),
        };
    }
}

fn text(status: &Status, json: bool) -> String {
    if json { serde_json::to_string(status).unwrap_or_default() + "\n" } else { page::page(status) }
}

/// Whether it could be written.
fn say(text: &str) -> bool {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// What the entrypoint says of itself, as JSON.
pub(super) fn json(place: &WhereOptions) -> Result<String, Problem> {
    Ok(text(&ask(place)?, true))
}

fn ask(place: &WhereOptions) -> Result<Status, Problem> {
    for answer in place.ask(&Question::Status)? {
        if let Answer::Status(status) = answer? {
            return Ok(*status);
        }
    }
    Err(hung_up())
}
