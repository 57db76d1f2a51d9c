//! A command line that cannot be used, told as every other problem is.

use crate::exit::Exit;
use crate::explain::Problem;
use clap::error::{ContextKind, ErrorKind};

/// What, why and next for a refused command line.
pub fn explain(error: &clap::Error) -> Problem {
    let rendered = error.to_string();
    // What clap says of usage and help comes after the first empty line; ours is below.
    let what = rendered.split("\n\nUsage:").next().unwrap_or_default();
    let what = what.split("\n\nFor more information").next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what).trim();
    let missing = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    if error.kind() == ErrorKind::MissingRequiredArgument && missing.contains("COMMAND") {
        return Problem::new(
            Exit::Usage,
            "no command was given",
            "revenant runs a command and keeps it alive; the image's CMD or the pod's args are empty",
            "name it after two dashes: revenant run -- COMMAND ARG…",
        );
    }
    Problem::new(
        Exit::Usage,
        what,
        "an argument, or the REVENANT_… variable that stands for it, is mistyped or missing",
        "correct it; `--help` lists all of them, also after a subcommand",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;

    fn told(arguments: &[&str]) -> String {
        explain(&Cli::try_parse_from(arguments).unwrap_err()).to_string()
    }

    #[test]
    fn a_missing_command_and_a_bad_value_are_told_with_the_next_step() {
        insta::assert_snapshot!(told(&["revenant", "run", "--"]), @r"
        no command was given
          why:  revenant runs a command and keeps it alive; the image's CMD or the pod's args are empty
          next: name it after two dashes: revenant run -- COMMAND ARG…
        ");
        insta::assert_snapshot!(told(&["revenant", "run", "--grace", "soon", "--", "true"]), @r"
        invalid value 'soon' for '--grace <TIME>': expected number at 0; write for example 90s, 10m or 1h
          why:  an argument, or the REVENANT_… variable that stands for it, is mistyped or missing
          next: correct it; `--help` lists all of them, also after a subcommand
        ");
    }
}
