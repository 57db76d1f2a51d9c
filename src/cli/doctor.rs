//! `revenant doctor`: can this container checkpoint?

use crate::doctor::{self, Check, Report, Subject, Verdict};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::tree;
use clap::Args;
use std::fmt::Write;
use std::path::PathBuf;

/// Options of `revenant doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorOptions {
    /// The store to try, as for `revenant run`; none leaves it out
    #[arg(long, env = "REVENANT_STORE", value_name = "URL", default_value = "file:///checkpoints")]
    store: String,
    /// Look at what this process and its descendants hold that no checkpoint can carry
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Do not save and restore a small process of revenant's own
    #[arg(long)]
    no_trial: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The entrypoint's runtime directory [default: /run/revenant, or where it answers]
    #[arg(long, env = "REVENANT_RUNTIME_DIR", value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
}

/// Examines and prints. Ends with 0 where saves and restores work, else with the code of what is missing.
pub fn run(options: &DoctorOptions) -> Result<u8, Problem> {
    if let Some(pid) = options.pid {
        tree::Process::read(pid).map_err(|error| no_such_process(pid, &error))?;
    }
    let subject = Subject {
        store: (options.store != "none").then(|| options.store.clone()),
        trial: !options.no_trial,
        pid: options.pid,
        runtime_dir: options.runtime_dir.clone(),
    };
    let report = doctor::examine(&subject, |check| {
        if !options.json {
            print!("{}", line(check));
        }
    });
    if options.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        print!("{}", conclusion(&report));
    }
    Ok(report.exit())
}

fn no_such_process(pid: i32, error: &std::io::Error) -> Problem {
    Problem::new(
        Exit::Usage,
        format!("process {pid} cannot be looked at: {error}"),
        "there is no such process in this container",
        "see its number with ps or `revenant status`",
    )
}

fn line(check: &Check) -> String {
    let mark = match check.verdict {
        Verdict::Good => "ok",
        Verdict::Skipped => "skipped",
        Verdict::Limited => "limited",
        Verdict::Bad => "FAILED",
    };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{mark:<8} {:<13} {}", check.name, check.found);
    for (name, said) in [("means:", &check.meaning), ("do:", &check.remedy)] {
        if !said.is_empty() {
            let _ = writeln!(text, "{:<22} {name:<6} {said}", "");
        }
    }
    text
}

fn conclusion(report: &Report) -> String {
    let mut text = match (report.ok, report.profile) {
        (true, Some(profile)) => format!("\nWorkloads can be checkpointed here, with the {profile} profile.\n"),
        (false, Some(profile)) if report.only_this_workload() => {
            format!("\nWorkloads can be checkpointed here, with the {profile} profile, but not this one as it is.\n")
        }
        _ => "\nWorkloads cannot be checkpointed here.\n".to_owned(),
    };
    for left_out in &report.leaves_out {
        let _ = writeln!(text, "It leaves out: {left_out}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_what_it_means_and_what_to_do() {
        let check = Check {
            name: "clock",
            verdict: Verdict::Limited,
            found: "SYS_TIME missing".into(),
            meaning: "waits last too long".into(),
            remedy: "add it".into(),
            exit: None,
        };
        insta::assert_snapshot!(line(&check), @r"
        limited  clock         SYS_TIME missing
                               means: waits last too long
                               do:    add it
        ");
    }
}
