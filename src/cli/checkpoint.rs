//! `revenant checkpoint`: save now, and return when it is durable.

use super::asking::{WhereOptions, hung_up};
use crate::checkpoint::protocol::Progress;
use crate::explain::Problem;
use crate::supervisor::control::{Answer, Question};
use crate::supervisor::words;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a plain line says how far the save is.
const PLAIN_LINES_EVERY: Duration = Duration::from_secs(2);

/// Options of `revenant checkpoint`.
#[derive(Debug, Clone, Args)]
pub struct CheckpointOptions {
    /// End the workload once the save is durable; the container ends with code 200
    #[arg(long)]
    stop: bool,
    /// Print each event as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: WhereOptions,
}

/// Asks for a save and shows how it goes.
pub fn run(options: &CheckpointOptions) -> Result<u8, Problem> {
    let mut screen = Screen::new(options.json);
    for answer in options.place.ask(&Question::Checkpoint { stop: options.stop })? {
        let answer = answer?;
        screen.show(&answer);
        match answer {
            Answer::Durable(_) => return Ok(0),
            Answer::Failed { problem } if options.json => return Ok(problem.exit),
            Answer::Failed { problem } => return Err(problem),
            _ => {}
        }
    }
    Err(hung_up())
}

/// Where answers are shown.
enum Screen {
    Json,
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Screen {
    fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None };
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Bar(bar)
    }

    fn show(&mut self, answer: &Answer) {
        match self {
            Self::Json => {
                if let Ok(line) = serde_json::to_string(answer) {
                    println!("{line}");
                }
            }
            Self::Bar(bar) => show_on_bar(bar, answer),
            Self::Lines { last } => match answer {
                Answer::Progress(progress) if last.is_none_or(|last| last.elapsed() >= PLAIN_LINES_EVERY) => {
                    *last = Some(Instant::now());
                    println!("{}", progress_line(progress));
                }
                Answer::Released { frozen_ms } => println!("{}", released_line(*frozen_ms)),
                Answer::Durable(saved) => println!("{}", words::saved(saved)),
                _ => {}
            },
        }
    }
}

fn show_on_bar(bar: &ProgressBar, answer: &Answer) {
    match answer {
        Answer::Progress(progress) => {
            if let (Some(total), None) = (progress.total_bytes, bar.length()) {
                bar.set_length(total);
                let style = ProgressStyle::with_template("{msg:12} {wide_bar} {bytes}/{total_bytes} {eta}");
                if let Ok(style) = style {
                    bar.set_style(style);
                }
            }
            if let Some(total) = progress.total_bytes {
                bar.set_length(total);
                bar.set_position(progress.done_bytes);
                bar.set_message(progress.phase.clone());
            } else {
                bar.set_message(progress_line(progress));
            }
        }
        Answer::Released { frozen_ms } => bar.println(released_line(*frozen_ms)),
        Answer::Durable(saved) => {
            bar.finish_and_clear();
            println!("{}", words::saved(saved));
        }
        _ => bar.finish_and_clear(),
    }
}

fn progress_line(progress: &Progress) -> String {
    let total = progress.total_bytes.map_or_else(String::new, |total| format!(" of {}", words::bytes(total)));
    let done = words::bytes(progress.done_bytes);
    format!("{}: {done}{total}, {} to the store", progress.phase, words::bytes(progress.store_bytes))
}

fn released_line(frozen_ms: u64) -> String {
    format!("the workload runs again after {}; storing", words::duration(Duration::from_millis(frozen_ms)))
}
