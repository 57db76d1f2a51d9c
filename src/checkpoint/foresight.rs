//! What stands in the way of a save, found before anything is frozen.

use super::engine::Events;
use super::files::FilePolicy;
use super::needs::{self, Needs};
use super::protocol::{Event, Look as Request, Tcp};
use crate::criu::probe::{Capability, Rights};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::credentials::Credentials;
use crate::workload::resources::{self, Allowed, Effect, Finding, WatchedPaths};

/// How many findings one message names.
const NAMED: usize = 5;

/// What was seen, and what of it matters.
#[derive(Debug, Default)]
pub struct Look {
    /// The options that a dump needs.
    pub needs: Needs,
    /// What cannot be carried, or will be lost.
    pub findings: Vec<Finding>,
}

/// Serves one request.
pub fn serve(request: &Request, events: &Events) -> Result<(), Problem> {
    let look = look(request.root_pid, &request.files, request.tcp)?;
    events.send(&Event::Looked { findings: look.findings });
    Ok(())
}

/// Looks at the tree below `root_pid`.
pub fn look(root_pid: i32, files: &FilePolicy, tcp: Tcp) -> Result<Look, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::new(
            Exit::Failure,
            format!("the workload's processes cannot be looked at: {error}"),
            "/proc is not mounted as usual",
            "mount /proc in the container",
        )
    };
    let holdings = resources::look(root_pid).map_err(unreadable)?;
    let rights = Rights::current().map_err(unreadable)?;
    let keeps_tcp = needs::keeps_tcp(tcp, &holdings, rights.has(Capability::NetAdmin));
    // Whose the tree's root is, CRIU is.
    let owner = Credentials::of(root_pid).or_else(|_| Credentials::here()).unwrap_or_default();
    let uid = owner.uid;
    let is_anybody = rights.uid == 0 && uid == 0 && rights.lacking(&Capability::FOR_ANOTHER_USER).is_empty();
    let allowed = Allowed {
        sys_admin: rights.has(Capability::SysAdmin),
        dac_read_search: rights.has(Capability::DacReadSearch),
        other_users: rights.has(Capability::SysResource) || is_anybody,
        uid,
        gid: owner.gid,
        keeps_tcp,
        closes_tcp: tcp == Tcp::Close,
        accepts_files: files.accept,
        ghost_limit: files.limit_bytes,
    };
    let watched = WatchedPaths::of(&holdings);
    let findings = resources::findings(&holdings, &watched, &allowed);
    Ok(Look { needs: Needs::of(&holdings, &watched, files.limit_bytes, keeps_tcp), findings })
}

/// Whether the save was tried all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// It was given up before.
    Never,
    /// CRIU tried, and failed.
    Tried,
}

/// Whether CRIU would succeed, and the restored workload would not be what was saved.
pub fn would_be_another(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.effect == Effect::Spoils)
}

/// Why a save cannot succeed; none if nothing is known against it.
pub fn doom(findings: &[Finding], frozen: Frozen) -> Option<Problem> {
    let prevents: Vec<&Finding> = findings.iter().filter(|finding| finding.effect.refuses()).collect();
    let first = prevents.first()?;
    let mut cause: Vec<String> = prevents.iter().take(NAMED).map(ToString::to_string).collect();
    if prevents.len() > NAMED {
        cause.push(format!("… and {} more", prevents.len() - NAMED));
    }
    let mut remedies: Vec<&str> = prevents.iter().take(NAMED).map(|finding| finding.remedy.as_str()).collect();
    remedies.dedup();
    Some(Problem::new(
        Exit::Failure,
        format!(
            "the workload holds what cannot be saved: {}{}",
            first.what,
            if frozen == Frozen::Never { "; it was not frozen" } else { "" }
        ),
        cause.join("\n        "),
        remedies.join("; or "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(effect: Effect, pid: i32) -> Finding {
        Finding {
            effect,
            pid: Some(pid),
            program: "node".into(),
            descriptor: Some(9),
            what: "a kernel object of the kind io_uring".into(),
            reason: "CRIU cannot save this kind".into(),
            remedy: "tell the program to use plain I/O".into(),
        }
    }

    #[test]
    fn only_what_prevents_a_save_dooms_it() {
        assert_eq!(doom(&[finding(Effect::Loses, 4)], Frozen::Never), None);
        let problem = doom(&[finding(Effect::Prevents, 4), finding(Effect::Loses, 5)], Frozen::Never).unwrap();
        insta::assert_snapshot!(problem, @r"
        the workload holds what cannot be saved: a kernel object of the kind io_uring; it was not frozen
          why:  process 4 (node), descriptor 9: a kernel object of the kind io_uring; CRIU cannot save this kind
          next: tell the program to use plain I/O
        ");
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<Finding> = (0..9).map(|pid| finding(Effect::Prevents, pid)).collect();
        assert!(doom(&many, Frozen::Tried).unwrap().cause.ends_with("… and 4 more"));
    }
}
