//! Can a workload be checkpointed in this container? Each precondition, what was found, what it means and
//! what to do about it; in the end the proof: a process that is saved and restored here.

mod clock;
mod criu;
mod kernel;
mod lazy;
mod place;
mod privileges;
mod store;
mod trial;
mod workload;

pub use privileges::leaves_out;
pub use trial::pulse;

use crate::criu::probe::{Probe, Profile, Rights};
use crate::explain::Problem;
use serde::Serialize;
use std::path::PathBuf;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Not tried, because it would tell nothing or do harm.
    Skipped,
    /// Saves and restores work, but something is left out.
    Limited,
    /// Saves or restores do not work.
    Bad,
}

/// One precondition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What it means for the workload; empty where all is well.
    pub meaning: String,
    /// What to do; empty where nothing need be done.
    pub remedy: String,
    /// revenant's exit code for it, if it is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Good,
            found: found.into(),
            meaning: String::new(),
            remedy: String::new(),
            exit: None,
        }
    }

    fn of(
        verdict: Verdict,
        name: &'static str,
        found: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, verdict, found: found.into(), meaning: meaning.into(), remedy: remedy.into(), exit: None }
    }

    fn limited(
        name: &'static str,
        found: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::of(Verdict::Limited, name, found, meaning, remedy)
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::of(Verdict::Skipped, name, why, "", "")
    }

    fn bad(name: &'static str, problem: &Problem) -> Self {
        let check = Self::of(Verdict::Bad, name, &problem.what, &problem.cause, &problem.next);
        Self { exit: Some(problem.exit), ..check }
    }
}

/// What is to be examined.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Store URL; none to leave it out.
    pub store: Option<String>,
    /// Save and restore a process of our own.
    pub trial: bool,
    /// Look at what this process and its descendants hold.
    pub pid: Option<i32>,
    /// Where an entrypoint's sockets may lie.
    pub runtime_dir: Option<PathBuf>,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether saves and restores work here.
    pub ok: bool,
    /// How much the container allows; none: not enough.
    pub profile: Option<&'static str>,
    /// What that leaves out.
    pub leaves_out: Vec<&'static str>,
    /// Each check.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing but what `--pid` holds is in the way.
    pub fn only_this_workload(&self) -> bool {
        self.checks.iter().filter(|check| check.verdict == Verdict::Bad).all(|check| check.name == workload::NAME)
    }

    /// The code for an init container: 0, or that of the first bad check.
    pub fn exit(&self) -> u8 {
        let bad = self.checks.iter().find(|check| check.verdict == Verdict::Bad);
        bad.map_or(crate::exit::Exit::Ok.code(), |check| check.exit.unwrap_or(crate::exit::Exit::Failure.code()))
    }
}

/// Examines this container. Takes some seconds. `told` hears each check as it is done.
pub fn examine(subject: &Subject, mut told: impl FnMut(&Check)) -> Report {
    let rights = Rights::current().unwrap_or_default();
    let probe = Probe::of(&rights);
    let mut checks = Vec::new();
    let mut keep = |found: Vec<Check>| {
        found.iter().for_each(&mut told);
        checks.extend(found);
    };
    keep(privileges::checks(&rights, &probe));
    keep(vec![criu::check()]);
    keep(kernel::checks());
    keep(vec![clock::check(&probe), lazy::check()]);
    keep(place::checks());
    if let Some(pid) = subject.pid {
        keep(workload::checks(pid));
    }
    if let Some(url) = &subject.store {
        keep(store::checks(url));
    }
    // Neither the store nor the workload is used for it.
    let besides = [store::NAME, workload::NAME];
    let hopeless = checks.iter().any(|check| check.verdict == Verdict::Bad && !besides.contains(&check.name));
    let trial = match (subject.trial, hopeless) {
        (false, _) => Check::skipped(trial::NAME, "not asked for"),
        (true, true) => Check::skipped(trial::NAME, "it cannot succeed before what is above is mended"),
        (true, false) => trial::check(subject.runtime_dir.as_deref()),
    };
    told(&trial);
    checks.push(trial);
    Report {
        ok: checks.iter().all(|check| check.verdict != Verdict::Bad),
        profile: probe.profile.map(Profile::name),
        leaves_out: leaves_out(probe.profile),
        checks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn the_first_bad_check_gives_the_exit_code() {
        let problem = |exit| Problem::new(exit, "what", "why", "next");
        let bad = |exit| Check::bad("x", &problem(exit));
        let report = |checks: Vec<Check>| Report { ok: false, profile: None, leaves_out: Vec::new(), checks };
        let limited = Check::limited("clock", "a", "b", "c");
        assert_eq!(report(vec![Check::good("a", ""), limited.clone()]).exit(), 0);
        assert_eq!(report(vec![limited, bad(Exit::Privileges), bad(Exit::CriuUnusable)]).exit(), 207);
    }
}
