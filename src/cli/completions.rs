//! `revenant completions`: completion scripts for shells, from the definition of the command line.

use super::Cli;
use crate::exit::Exit;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

/// Options of `revenant completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsOptions {
    /// For this shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(options: &CompletionsOptions) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut visible(), "revenant", &mut script);
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(&script);
    Exit::Ok.code()
}

/// The command line without what only revenant itself calls.
fn visible() -> Command {
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).cloned();
    Command::new("revenant").args(whole.get_arguments().cloned()).subcommands(shown)
}
