//! Asking the running entrypoint on its control socket.

use crate::exit::Exit;
use crate::explain::Problem;
use crate::supervisor::control::{self, Answer, Question};
use clap::Args;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where the entrypoint is.
#[derive(Debug, Clone, Args)]
pub struct WhereOptions {
    /// The entrypoint's runtime directory [default: /run/revenant, or where it answers]
    #[arg(long, env = "REVENANT_RUNTIME_DIR", value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
}

/// The answers to one question.
pub struct Answers(Lines<BufReader<UnixStream>>);

impl WhereOptions {
    /// Asks, and returns the answers as they come.
    pub fn ask(&self, question: &Question) -> Result<Answers, Problem> {
        let folders = self.runtime_dir.clone().map_or_else(control::runtime_dirs, |folder| vec![folder]);
        let mut reasons = Vec::new();
        for folder in folders {
            match connect(&control::socket_path(&folder), question) {
                Ok(stream) => return Ok(Answers(BufReader::new(stream).lines())),
                Err(error) => reasons.push(format!("{} ({error})", folder.display())),
            }
        }
        Err(Problem::new(
            Exit::NotRunning,
            format!("no running revenant answers here; looked in {}", reasons.join(", ")),
            "this container's entrypoint is not `revenant run`, or it has ended, or it belongs to another user",
            "run this inside the workload's container, as root or as the workload's user: kubectl exec POD -- revenant …",
        ))
    }
}

fn connect(socket: &std::path::Path, question: &Question) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(stream)
}

impl Iterator for Answers {
    type Item = Result<Answer, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.0.next()?;
        Some(line.and_then(|line| Ok(serde_json::from_str(&line)?)).map_err(|error| {
            Problem::new(
                Exit::Failure,
                format!("the entrypoint's answer cannot be read: {error}"),
                "it ended meanwhile, or is of another version of revenant",
                "look at the container's log",
            )
        }))
    }
}

/// The connection ended before the last answer.
pub fn hung_up() -> Problem {
    Problem::new(
        Exit::NotRunning,
        "the entrypoint hung up before the work was done",
        "it has ended, or this user may not ask",
        "look at the container's log; ask as root or as the workload's user",
    )
}
