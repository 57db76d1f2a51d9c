//! The new container's stdio and terminal in the place of the old one's.

use crate::checkpoint::inherited_fd;
use crate::checkpoint::protocol::Stdio;
use crate::criu::options::Resource;
use crate::exit::Exit;
use crate::explain::Problem;
use std::os::fd::{OwnedFd, RawFd};

/// Which descriptors of the new container take the place of which of the old one, and the stdio
/// that results. Each key gets a descriptor of its own: CRIU closes them one by one.
pub fn inherited(old: &Stdio, new: &Stdio) -> Result<(Vec<(OwnedFd, Resource)>, Stdio), Problem> {
    let mut inherit: Vec<(OwnedFd, Resource)> = Vec::new();
    for (link, fd, _) in replacements(old, new) {
        inherit.push((duplicate(fd)?, Resource::Link(link.to_owned())));
    }
    if let Some(tty) = old.tty {
        if new.tty.is_none() {
            return Err(no_terminal());
        }
        inherit.push((duplicate(inherited_fd::TTY)?, Resource::Tty(tty)));
    }
    Ok((inherit, continued(old, new)))
}

/// Each pipe of the old container once, the descriptor that takes its place, and what that one is called.
fn replacements<'a>(old: &'a Stdio, new: &'a Stdio) -> Vec<(&'a str, RawFd, &'a Option<String>)> {
    let mut found: Vec<(&str, RawFd, &Option<String>)> = Vec::new();
    for (old, fd, new) in [
        (&old.stdin, inherited_fd::STDIN, &new.stdin),
        (&old.stdout, inherited_fd::STDOUT, &new.stdout),
        (&old.stderr, inherited_fd::STDERR, &new.stderr),
    ] {
        // Stdout and stderr that were one pipe stay one.
        if let Some(link) = old.as_deref().filter(|link| found.iter().all(|(known, _, _)| known != link)) {
            found.push((link, fd, new));
        }
    }
    found
}

/// What the workload's stdio is called after a restore.
fn continued(old: &Stdio, new: &Stdio) -> Stdio {
    let replacements = replacements(old, new);
    let now = |old: &Option<String>| {
        let old = old.as_deref()?;
        replacements.iter().find(|(link, _, _)| *link == old).and_then(|(_, _, new)| (*new).clone())
    };
    Stdio { stdin: now(&old.stdin), stdout: now(&old.stdout), stderr: now(&old.stderr), tty: old.tty.and(new.tty) }
}

fn no_terminal() -> Problem {
    Problem::new(
        Exit::RestoreRefused,
        "the workload has a terminal, and this container cannot open one for it",
        "/dev/ptmx or /dev/pts is missing in this container",
        "mount a devpts file system at /dev/pts, as container runtimes do",
    )
}

fn duplicate(fd: RawFd) -> Result<OwnedFd, Problem> {
    inherited_fd::duplicate(fd).map_err(|error| {
        Problem::new(
            Exit::Internal,
            format!("the engine did not get descriptor {fd}: {error}"),
            "the engine is started by `revenant run` with the container's stdio",
            "please report it",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::protocol::TtyKey;

    fn stdio(names: [&str; 3]) -> Stdio {
        let [stdin, stdout, stderr] = names.map(|name| (!name.is_empty()).then(|| name.to_owned()));
        Stdio { stdin, stdout, stderr, tty: None }
    }

    #[test]
    fn one_pipe_stays_one_and_two_may_become_one() {
        let one = stdio(["", "pipe:[7]", "pipe:[7]"]);
        let two = stdio(["", "pipe:[8]", "pipe:[9]"]);
        assert_eq!(replacements(&one, &two).len(), 1);
        assert_eq!(continued(&one, &two), stdio(["", "pipe:[8]", "pipe:[8]"]));
        assert_eq!(replacements(&two, &one).len(), 2);
        assert_eq!(continued(&two, &one), one);
    }

    #[test]
    fn what_was_no_pipe_stays_what_it_was() {
        let old = stdio(["", "pipe:[8]", ""]);
        let new = stdio(["pipe:[1]", "", "pipe:[3]"]);
        assert_eq!(continued(&old, &new), stdio(["", "", ""]), "stdout now goes to a file or to nowhere");
        let terminal = Stdio { tty: Some(TtyKey { rdev: 1, dev: 2 }), ..Stdio::default() };
        assert_eq!(continued(&old, &Stdio { tty: terminal.tty, ..new.clone() }).tty, None);
        assert_eq!(continued(&terminal, &terminal), terminal);
    }
}
