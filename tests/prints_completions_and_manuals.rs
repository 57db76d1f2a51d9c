//! Completions and manual pages come from the definitions of the command line, and tools can use them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

use std::process::{Command, Output};

fn revenant(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_revenant")).args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = revenant(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_subcommands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("revenant.bash");
    std::fs::write(&script, text(&["completions", "bash"])).unwrap();
    let complete = |words: &str| {
        let ask = format!(
            "source {}; COMP_WORDS=(revenant {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); \
             _revenant revenant \"${{COMP_WORDS[-1]}}\" revenant; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(complete("che").lines().any(|word| word == "checkpoint"), "{}", complete("che"));
    assert!(complete("status --pro").lines().any(|word| word == "--probe"), "{}", complete("status --pro"));
    assert_eq!(complete("eng").trim(), "", "internals are not offered");
}

#[test]
fn every_shell_has_a_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(text(&["completions", shell]).contains("checkpoint"), "{shell}");
    }
    assert_eq!(revenant(&["completions", "csh"]).status.code(), Some(210));
}

#[test]
fn manual_pages_are_written_for_all_subcommands() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man");
    text(&["man", "--dir", dir.to_str().unwrap()]);
    let run = std::fs::read_to_string(dir.join("revenant-run.1")).unwrap();
    assert!(run.contains("REVENANT_GRACE") && run.contains(".TH"), "{run}");
    assert_eq!(run, text(&["man", "run"]));
    assert!(dir.join("revenant.1").exists() && dir.join("revenant-doctor.1").exists());
    assert_eq!(revenant(&["man", "engine"]).status.code(), Some(210));
}

/// What most people need is what they see first.
#[test]
fn help_begins_with_the_five_options_that_most_people_need() {
    let help = text(&["run", "--help"]);
    let options: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Options:"))
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .map(|line| line.split([' ', '=', '[']).next().unwrap())
        .take(5)
        .collect();
    assert_eq!(options, ["store", "job", "resume-command", "on-restore-failure", "grace"], "{help}");
}
