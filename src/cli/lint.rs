//! `revenant lint`: what in these manifests would kill a long-running job.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::kubernetes::lint::{self, Danger};
use clap::{Args, ValueEnum};
use std::io::Read as _;
use std::path::PathBuf;

/// Options of `revenant lint`.
#[derive(Debug, Clone, Args)]
pub struct LintOptions {
    /// Manifests to review together; - reads standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How findings are shown
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// End with code 1 from this danger on
    #[arg(long, value_enum, value_name = "DANGER", default_value = "fatal")]
    fail_on: Danger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Sarif,
}

/// Reviews; returns 1 when something is as bad as the user does not want it.
pub fn run(options: &LintOptions) -> Result<u8, Problem> {
    let mut files = Vec::new();
    for path in &options.files {
        let name = if path.as_os_str() == "-" { "(standard input)".to_owned() } else { path.display().to_string() };
        let text = if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        };
        let text = text.map_err(|error| {
            Problem::new(
                Exit::Usage,
                format!("{name} cannot be read: {error}"),
                "there is no such file, or it is not text",
                "name a manifest, for example deploy/job.yaml",
            )
        })?;
        files.push((name, text));
    }
    let report = lint::lint(&files).map_err(|error| error.explain())?;
    match options.format {
        Format::Text => print!("{}", lint::text(&report)),
        Format::Json => println!("{:#}", lint::json(&report)),
        Format::Sarif => println!("{:#}", lint::sarif(&report)),
    }
    Ok(if report.at_least(options.fail_on) > 0 { Exit::Failure } else { Exit::Ok }.code())
}
