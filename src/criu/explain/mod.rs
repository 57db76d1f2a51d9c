//! Turning CRIU's log into an error that a person can act on.
//!
//! What is known lies in [`catalogue`] as data, one entry per error, each with a log line.
//! The entries are ordered: where several match, the first in the catalogue wins, because one
//! failure drags further errors behind it. An unknown error shows CRIU's own words.

mod catalogue;
mod log;
mod pattern;

pub use catalogue::Explanation;
pub use log::read_log;

use crate::exit::Exit;
use crate::explain::Problem;
use pattern::Captures;
use std::fmt;
use std::path::Path;

/// What CRIU was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Saving.
    Dump,
    /// Restoring.
    Restore,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dump => "dump",
            Self::Restore => "restore",
        })
    }
}

/// Errors that come from the moment: a process was ending just then. Trying again helps.
const PASSING: [&str; 2] = ["ending-process", "ended-at-once"];

/// How many of CRIU's own error lines a person gets to see.
const LINES_SHOWN: usize = 4;

/// Explains why the operation failed, from CRIU's log (and what it printed, appended to it).
pub fn explain(log: &str, operation: Operation) -> Problem {
    let lines: Vec<&str> = log.lines().filter(|line| log::is_error(line)).collect();
    let (what, exit) = match operation {
        Operation::Dump => ("the workload's state could not be saved", Exit::Failure),
        Operation::Restore => ("the workload could not be restored", Exit::RestoreRefused),
    };
    let known = find(&lines, operation).map(|(entry, captures)| {
        let exit = entry.exit.unwrap_or(exit);
        let mut problem = Problem::new(
            exit,
            format!("{what}: {}", captures.fill(entry.what)),
            captures.fill(entry.cause),
            captures.fill(entry.next),
        );
        problem.passing = PASSING.contains(&entry.id);
        problem
    });
    known.unwrap_or_else(|| Problem::new(exit, what, unknown(&lines, log), "the whole CRIU log says more"))
}

/// The same for the logs in an images directory, and says where they are. The caller keeps the
/// directory if the person is to look there.
pub fn explain_in(images: &Path, operation: Operation) -> Problem {
    let mut problem = explain(&read_log(images, operation), operation);
    let log = images.join(log::file_name(operation));
    problem.next = format!("{} (CRIU's log: {})", problem.next, log.display());
    problem
}

/// The identifier of the entry that explains this log, for metrics and tests.
pub fn identify(log: &str, operation: Operation) -> Option<&'static str> {
    let lines: Vec<&str> = log.lines().filter(|line| log::is_error(line)).collect();
    find(&lines, operation).map(|(entry, _)| entry.id)
}

fn find<'a>(lines: &[&'a str], operation: Operation) -> Option<(&'static Explanation, Captures<'a>)> {
    catalogue::entries().filter(|entry| entry.operation.is_none_or(|only| only == operation)).find_map(|entry| {
        lines.iter().find_map(|line| pattern::capture(entry.pattern, line).map(|captures| (entry, captures)))
    })
}

fn unknown(errors: &[&str], log: &str) -> String {
    let shortened = |line: &str| line.trim().chars().take(200).collect::<String>();
    // The first errors are nearest to the cause; the last one only says that it failed.
    let named = errors.iter().filter(|line| !log::is_harmless(line)).take(LINES_SHOWN);
    let named: Vec<String> = named.map(|line| shortened(line)).collect();
    if !named.is_empty() {
        return format!("CRIU says: {}", named.join("; "));
    }
    // It was killed, or stopped without a word: what it was doing is all that is known.
    let mut last: Vec<&str> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(LINES_SHOWN).collect();
    last.reverse();
    if last.is_empty() {
        return "CRIU gave no reason".to_owned();
    }
    let last: Vec<String> = last.into_iter().map(shortened).collect();
    format!("CRIU gave no reason; the last lines of its log: {}", last.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_entry_explains_its_own_example() {
        for entry in catalogue::entries() {
            for operation in entry.operation.map_or(vec![Operation::Dump, Operation::Restore], |only| vec![only]) {
                assert_eq!(identify(entry.example, operation), Some(entry.id), "{}", entry.example);
                let problem = explain(entry.example, operation);
                let text = problem.to_string();
                assert!(!text.contains(['{', '}']), "{} leaves a capture unfilled: {text}", entry.id);
                assert!(!problem.cause.is_empty() && !problem.next.is_empty(), "{}", entry.id);
            }
        }
    }

    #[test]
    fn identifiers_are_unique_and_entries_many() {
        let ids: HashSet<_> = catalogue::entries().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), catalogue::entries().count());
        assert!(ids.len() >= 25);
    }

    #[test]
    fn the_cause_wins_over_what_follows_from_it() {
        let log = "\
            (00.003159) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n\
            (00.021000) Error (criu/files-reg.c:2175): File vol/f-rw has bad size 1015 (expect 1010)\n\
            (00.021100)   5000: Error (criu/files.c:1221): Unable to open fd=3 id=0x14\n\
            (00.026000) Error (criu/cr-restore.c:2331): Restoring FAILED.\n";
        assert_eq!(identify(log, Operation::Restore), Some("file-size-changed"));
        insta::assert_snapshot!(explain(log, Operation::Restore), @r"
        the workload could not be restored: /vol/f-rw has 1015 bytes now and had 1010 at the checkpoint
          why:  something has written to the file since, and the workload must find it as it was
          next: restore the file to that size (truncate it if it only grew), or remove the job's checkpoints to start again
        ");
    }

    #[test]
    fn an_unknown_error_shows_criu_s_words_but_not_its_noise() {
        let log = "\
            (00.000001) Version: 4.2.1\n\
            (00.003159) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n\
            (00.021000) Error (criu/new.c:1): the moon is in the wrong phase\n\
            (00.026000) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        insta::assert_snapshot!(explain(log, Operation::Dump), @r"
        the workload's state could not be saved
          why:  CRIU says: (00.021000) Error (criu/new.c:1): the moon is in the wrong phase
          next: the whole CRIU log says more
        ");
    }

    #[test]
    fn a_log_without_errors_says_so_and_shows_its_end() {
        assert_eq!(explain("", Operation::Dump).cause, "CRIU gave no reason");
        let log = "(00.1) one\n(00.2) two\n(00.3) three\n(00.4) four\n(00.5) Dumping pages of 304\n\n";
        assert_eq!(
            explain(log, Operation::Dump).cause,
            "CRIU gave no reason; the last lines of its log: (00.2) two; (00.3) three; (00.4) four; \
             (00.5) Dumping pages of 304"
        );
    }
}
