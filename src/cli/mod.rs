//! One file per subcommand: parse, print, map errors to exit codes.

mod asking;
mod bytes_bar;
mod checkpoint;
mod claimant;
mod completions;
mod diff;
mod doctor;
#[cfg(test)]
mod documentation_tests;
mod engine;
mod export;
mod hook;
mod hooks;
mod import;
mod inspect;
mod inspect_files;
mod job_name;
mod key;
mod lint;
mod list;
mod log;
mod man;
mod manifest;
mod output_file;
mod promote;
mod prune;
mod restore_plan;
mod run;
mod side_effects;
mod sizing;
mod status;
mod stored_job;
mod triggers;
mod tuning;
mod usage;
mod verify;
mod watch;

use crate::exit::Exit;
use crate::explain::Problem;
use crate::supervisor::signals;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::process::ExitCode;

/// Lets a long-running workload outlive its container.
///
/// As a container's entrypoint, revenant runs a command, saves its whole state (memory, open files, terminal)
/// when the container is about to die, and continues from there in the next container.
#[derive(Debug, Parser)]
#[command(name = "revenant", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "The workload's exit code is the container's. revenant's own codes are 200 to 219: \
200 saved and stopped, 201 stopped unsaved, 202 restore refused, 203 job in use, 204 fenced, 205 store, 206 CRIU, \
207 privileges, 208 key, 209 stopped before the start, 210 usage, 211 damaged data, 212 internal, 213 not running, 214 lazy restore broken off.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: log::LogOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command as the container's entrypoint: continue it if a checkpoint exists, else start it.
    Run(Box<run::RunOptions>),
    /// Ask the running entrypoint to save now; returns when the checkpoint is durable.
    Checkpoint(checkpoint::CheckpointOptions),
    /// Show what the running entrypoint is doing.
    Status(status::StatusOptions),
    /// Find out whether workloads can be checkpointed in this container; each check with its remedy.
    Doctor(doctor::DoctorOptions),
    /// List the jobs of a store, or the generations of a job.
    List(list::ListOptions),
    /// Show what a generation consists of.
    Inspect(inspect::InspectOptions),
    /// Show what a restore would do in this container, without doing it.
    RestorePlan(restore_plan::RestorePlanOptions),
    /// Show what changed between two generations: memory by process and mapping, and files.
    Diff(diff::DiffOptions),
    /// Check that what is stored is what was written.
    Verify(verify::VerifyOptions),
    /// Remove old generations of a job that is not running.
    Prune(prune::PruneOptions),
    /// Write generations of a job into one file.
    Export(export::ExportOptions),
    /// Take generations from such a file into a store; the job continues from them.
    Import(import::ImportOptions),
    /// Show, add, rotate and remove the keys to a job's checkpoints.
    Key(key::KeyOptions),
    /// Write the Kubernetes manifests of a long-running job, from a few answers.
    Manifest(Box<manifest::ManifestOptions>),
    /// Review Kubernetes manifests: what would kill a long-running job, why, and what to write instead.
    Lint(lint::LintOptions),
    /// Move a Job that has run out of memory to larger nodes; for an init container.
    Promote(promote::PromoteOptions),
    /// Say what to ask a cluster for, from what a run of the job has used.
    Sizing(sizing::SizingOptions),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsOptions),
    /// Print a manual page, or write all of them.
    Man(man::ManOptions),
    /// Be the process that `revenant doctor` saves (internal).
    #[command(hide = true)]
    Pulse,
    /// Serve one request of PID 1 (internal).
    #[command(hide = true)]
    Engine,
    /// Become the program of a hook (internal).
    #[command(hide = true)]
    Hook(hook::HookOptions),
    /// Listen to cloud and cluster for PID 1 (internal).
    #[command(hide = true)]
    Watch,
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    // First of all: a signal that PID 1 neither blocks nor handles is lost.
    let before = signals::block();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            signals::restore(&before);
            return refuse(&error);
        }
    };
    match cli.command {
        Command::Run(_) => {}
        // PID 1 blocks all signals, and a mask is inherited: the engine and its CRIU must not have it
        // (CRIU's own time limits are alarms).
        Command::Engine | Command::Watch | Command::Hook(_) => signals::restore(&signals::none()),
        _ => signals::restore(&before),
    }
    cli.log.install();
    let done = match cli.command {
        Command::Run(options) => run::run(*options),
        Command::Checkpoint(options) => checkpoint::run(&options),
        Command::Status(options) => status::run(&options),
        Command::List(options) => list::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::RestorePlan(options) => restore_plan::run(&options),
        Command::Diff(options) => diff::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Prune(options) => prune::run(&options),
        Command::Export(options) => export::run(&options),
        Command::Import(options) => import::run(&options),
        Command::Key(options) => key::run(&options),
        Command::Manifest(options) => manifest::run(*options),
        Command::Lint(options) => lint::run(&options),
        Command::Promote(options) => Ok(promote::run(&options)),
        Command::Sizing(options) => sizing::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Completions(options) => Ok(completions::run(&options)),
        Command::Man(options) => man::run(&options),
        Command::Pulse => Ok(crate::doctor::pulse()),
        Command::Engine => return engine::run(),
        Command::Watch => return watch::run(),
        Command::Hook(options) => return hook::run(&options),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(problem) => fail(&problem),
    }
}

/// Shows a problem and ends with its code.
fn fail(problem: &Problem) -> ExitCode {
    tracing::error!(exit = problem.exit, "{problem}");
    ExitCode::from(problem.exit)
}

/// Shows help where it was asked for; else what is wrong with the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            let asked = error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            if asked { ExitCode::SUCCESS } else { Exit::Usage.into() }
        }
        _ => {
            let problem = usage::explain(error);
            // How to log could not be read either.
            let _ = writeln!(std::io::stderr(), "revenant: error: {problem}");
            ExitCode::from(problem.exit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_run_has_an_environment_variable() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        for argument in run.get_arguments().filter(|a| a.get_long().is_some_and(|long| long != "help")) {
            let variable = argument.get_env().unwrap_or_else(|| panic!("--{} has none", argument.get_id()));
            assert!(variable.to_string_lossy().starts_with("REVENANT_"));
        }
    }
}
