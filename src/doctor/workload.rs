//! What a process and its descendants hold that no checkpoint can carry. Nobody is stopped.

use super::{Check, Verdict};
use crate::checkpoint::files::FilePolicy;
use crate::checkpoint::foresight;
use crate::checkpoint::protocol::Tcp;
use crate::workload::resources::{Effect, Finding};

pub(super) const NAME: &str = "workload";

pub(super) fn checks(pid: i32) -> Vec<Check> {
    match foresight::look(pid, &FilePolicy::default(), Tcp::default()) {
        Err(problem) => vec![Check::bad(NAME, &problem)],
        Ok(look) if look.findings.is_empty() => {
            vec![Check::good(NAME, format!("process {pid} and its descendants hold nothing that cannot be carried"))]
        }
        Ok(look) => look.findings.iter().map(check).collect(),
    }
}

fn check(finding: &Finding) -> Check {
    let (verdict, meaning) = match finding.effect {
        Effect::Prevents | Effect::Spoils => (Verdict::Bad, "no save can succeed while it is there"),
        Effect::Loses => (Verdict::Limited, "a restored workload will not have it as it was"),
    };
    Check::of(verdict, NAME, finding.to_string(), meaning, &finding.remedy)
}
