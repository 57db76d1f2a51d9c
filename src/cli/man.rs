//! `revenant man`: manual pages, from the definition of the command line.

use super::Cli;
use crate::exit::Exit;
use crate::explain::Problem;
use clap::{Args, Command, CommandFactory};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Options of `revenant man`.
#[derive(Debug, Clone, Args)]
pub struct ManOptions {
    /// The page of this subcommand [default: of revenant itself]
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "dir")]
    subcommand: Option<String>,
    /// Write all pages into this folder, as revenant.1, revenant-run.1, …
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints a page, or writes all of them.
pub fn run(options: &ManOptions) -> Result<u8, Problem> {
    let pages = pages().map_err(|error| failed(&error))?;
    if let Some(dir) = &options.dir {
        write_all(dir, &pages).map_err(|error| failed(&error))?;
    } else {
        let name = options.subcommand.as_ref().map_or("revenant".to_owned(), |name| format!("revenant-{name}"));
        let page = pages.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(&name))?;
        let _ = io::stdout().write_all(&page.1);
    }
    Ok(Exit::Ok.code())
}

/// Each page with its name: revenant's own first.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut cli = Cli::command();
    cli.build();
    let mut pages = vec![("revenant".to_owned(), render(cli.clone())?)];
    for subcommand in cli.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let name = format!("revenant-{}", subcommand.get_name());
        pages.push((name.clone(), render(subcommand.clone().name(name))?));
    }
    Ok(pages)
}

fn render(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let command = command.mut_args(with_variable);
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

/// Names the environment variable in the text: the pages do not show it by themselves.
fn with_variable(argument: clap::Arg) -> clap::Arg {
    let text = argument
        .get_help()
        .zip(argument.get_env())
        .map(|(help, variable)| format!("{help} [environment: {}]", variable.to_string_lossy()));
    match text {
        Some(text) => argument.help(text),
        None => argument,
    }
}

fn write_all(dir: &Path, pages: &[(String, Vec<u8>)]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    pages.iter().try_for_each(|(name, page)| std::fs::write(dir.join(format!("{name}.1")), page))
}

fn unknown(name: &str) -> Problem {
    Problem::new(
        Exit::Usage,
        format!("there is no page {name}"),
        "revenant has no subcommand of that name",
        "see `revenant --help`",
    )
}

fn failed(error: &io::Error) -> Problem {
    Problem::new(
        Exit::Failure,
        format!("the pages cannot be written: {error}"),
        "the folder cannot be created or written",
        "name a folder of yours: revenant man --dir DIR",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page_and_internals_have_none() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.starts_with(&["revenant", "revenant-run"]), "{names:?}");
        assert!(names.contains(&"revenant-checkpoint") && !names.contains(&"revenant-engine"), "{names:?}");
        let run = String::from_utf8(pages[1].1.clone()).unwrap();
        assert!(run.contains(".TH") && run.contains("\\-\\-store") && run.contains("REVENANT_STORE"), "{run}");
    }
}
