//! Processes that belong to a job but are not below the root of its tree: a dump would lose them.

use super::inner_ids::InnerIds;
use super::tree::{self, Process};
use std::collections::HashSet;
use std::io;

/// Every living process of this PID namespace that shares a session or a process group with the tree of
/// `root`, and is not in it. How this happens: its parent ended, and something above was to adopt it.
pub fn of(root: i32) -> io::Result<Vec<Process>> {
    Ok(among(&tree::all()?, &tree::below(root)?))
}

/// Those that a dump of the tree with these processes leaves behind: strays, and what is in the tree but
/// was not dumped. The dumped ones as the job calls them.
pub fn left_behind(root: i32, dumped: &[u32]) -> io::Result<Vec<Process>> {
    let (everyone, tree) = (tree::all()?, tree::below(root)?);
    let ids = InnerIds::of(root);
    let inner = |pid| ids.inner(pid).and_then(|pid| u32::try_from(pid).ok());
    let was_dumped = |process: &Process| inner(process.pid).is_some_and(|pid| dumped.contains(&pid));
    let forgotten = tree.iter().filter(|process| !was_dumped(process)).cloned();
    Ok(among(&everyone, &tree).into_iter().chain(forgotten).collect())
}

fn among(everyone: &[Process], tree: &[Process]) -> Vec<Process> {
    let inside: HashSet<i32> = tree.iter().map(|process| process.pid).collect();
    let sessions: HashSet<i32> = tree.iter().map(|process| process.sid).collect();
    let groups: HashSet<i32> = tree.iter().map(|process| process.pgid).collect();
    let belongs = |process: &&Process| {
        !inside.contains(&process.pid)
            && !matches!(process.state, 'Z' | 'X')
            && process.sid != 0
            && (sessions.contains(&process.sid) || groups.contains(&process.pgid))
    };
    everyone.iter().filter(belongs).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn an_orphan_that_fell_out_is_found_and_others_are_not() {
        let other = Command::new("/bin/sleep").arg("60").process_group(0).spawn();
        let script = "setsid sh -c '(sleep 61 & echo $!); echo $$; sleep 62'";
        let mut shell = Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut number = || lines.next().unwrap().unwrap().parse::<i32>().unwrap();
        let (orphan, leader) = (number(), number());
        let dumped = [u32::try_from(leader).unwrap()];
        let (mut found, mut left) = (Vec::new(), Vec::new());
        for _ in 0..500 {
            found = of(leader).unwrap();
            left = left_behind(leader, &dumped).unwrap().into_iter().map(|process| process.comm).collect();
            // The shell says who it is before it starts its own child, and a child is a shell until it is its program.
            if !found.is_empty() && left == ["sleep", "sleep"] && tree::below(leader).is_ok_and(|tree| tree.len() == 2)
            {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let found: Vec<i32> = found.iter().map(|process| process.pid).collect();
        for pid in tree::below(leader).unwrap().iter().map(|process| process.pid).chain([orphan]) {
            super::super::kill::send(pid, nix::sys::signal::Signal::SIGKILL);
        }
        shell.wait().unwrap();
        let mut other = other.unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found, [orphan]);
        assert_eq!(left, ["sleep", "sleep"], "the orphan, and a child that was not dumped");
    }
}
