//! What the workload is given as stdin, stdout and stderr: with our terminal, and without it.

use super::Interposed;
use super::kind::Kind;
use super::terminal::Terminal;
use super::{above_stdio, containers};
use crate::checkpoint::protocol::Stdio as Roles;
use crate::workload::spawn::Descriptors;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Three descriptors, and the names of those that CRIU must be told about.
#[derive(Debug)]
pub struct Arranged {
    /// What becomes the workload's 0, 1 and 2.
    pub given: Descriptors,
    /// What the kernel calls them.
    pub roles: Roles,
}

/// One of the three.
struct One {
    fd: OwnedFd,
    link: Option<String>,
}

/// Without a terminal of ours: pipes and files are passed through, the rest is reached by pipes, whose
/// other ends are left in `interposed`.
pub fn plain(kinds: &[Kind; 3], interposed: &mut Vec<Interposed>) -> io::Result<Arranged> {
    let stdin = one(0, &kinds[0], interposed)?;
    let stdout = one(1, &kinds[1], interposed)?;
    // Two, also where both lead to one terminal: what has become one pipe can never be two again.
    let stderr = one(2, &kinds[2], interposed)?;
    let roles = Roles { stdin: stdin.link, stdout: stdout.link, stderr: stderr.link, tty: None };
    Ok(Arranged { given: Descriptors { stdin: stdin.fd, stdout: stdout.fd, stderr: stderr.fd }, roles })
}

/// `plain` with our terminal where `on_terminal` says so.
pub fn with_terminal(plain: &Arranged, terminal: &Terminal, on_terminal: [bool; 3]) -> io::Result<Arranged> {
    let mut given = plain.given.try_clone()?;
    let mut roles = Roles { tty: on_terminal.contains(&true).then_some(terminal.key), ..plain.roles.clone() };
    let places = [
        (&mut given.stdin, &mut roles.stdin),
        (&mut given.stdout, &mut roles.stdout),
        (&mut given.stderr, &mut roles.stderr),
    ];
    for ((fd, link), _) in places.into_iter().zip(on_terminal).filter(|(_, on_terminal)| *on_terminal) {
        *fd = above_stdio(terminal.slave.as_fd())?;
        *link = None;
    }
    Ok(Arranged { given, roles })
}

fn one(number: i32, kind: &Kind, interposed: &mut Vec<Interposed>) -> io::Result<One> {
    Ok(match kind {
        Kind::Pipe(name) => One { fd: above_stdio(containers(number))?, link: Some(name.clone()) },
        Kind::Reachable => One { fd: above_stdio(containers(number))?, link: None },
        Kind::Null => One { fd: OpenOptions::new().read(true).write(true).open("/dev/null")?.into(), link: None },
        Kind::Foreign | Kind::Terminal => {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
            let link = fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd()))?.to_string_lossy().into_owned();
            let (theirs, ours) = if number == 0 { (reader, writer) } else { (writer, reader) };
            interposed.push(Interposed { number, link: link.clone(), ours });
            One { fd: theirs, link: Some(link) }
        }
    })
}
