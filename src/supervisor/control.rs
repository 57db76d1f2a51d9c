//! The control socket: how `revenant checkpoint` and `revenant status` talk to PID 1.
//!
//! One connection, one question: a JSON line from the asker, JSON lines back. The socket (0600) lies in
//! a folder of ours (0700); and only root and the user that runs the workload are answered.

use super::Input;
pub use super::status::{Phase, Status};
use crate::checkpoint::protocol::{Progress, Saved};
use crate::explain::Problem;
use crate::workload::private_dir;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

/// The longest question, in bytes.
const LONGEST_QUESTION: u64 = 4096;
/// How long an asker may take to say what it wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Askers at a time.
const MOST_CONNECTIONS: usize = 16;
/// Answers that wait for a slow asker; progress beyond that is dropped.
const BACKLOG: usize = 32;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Save now.
    Checkpoint {
        /// And end the workload once the save is durable.
        stop: bool,
    },
    /// What is going on?
    Status,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// How far the save is.
    Progress(Progress),
    /// The workload runs again; the upload goes on.
    Released {
        /// For how long it was frozen, in milliseconds.
        frozen_ms: u64,
    },
    /// The save is durable. The last answer.
    Durable(Saved),
    /// It was not done. The last answer.
    Failed {
        /// What, why, next.
        problem: Problem,
    },
    /// What is going on. The last answer.
    Status(Box<Status>),
}

/// A question with the way back to the asker.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// Where answers go; closed after the last.
    pub answers: mpsc::Sender<Answer>,
}

/// The socket in a runtime directory.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

/// The runtime directories that are looked at when none is named, the best first.
pub fn runtime_dirs() -> Vec<PathBuf> {
    crate::workload::reaper::folders()
}

/// Listens in `runtime_dir`; questions go to `inputs`. To be called inside the runtime.
pub fn listen(runtime_dir: &Path, inputs: mpsc::Sender<Input>) -> io::Result<()> {
    private_dir::create(runtime_dir)?;
    let path = socket_path(runtime_dir);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another revenant answers there"));
    }
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    tokio::spawn(accept(listener, inputs));
    Ok(())
}

async fn accept(listener: UnixListener, inputs: mpsc::Sender<Input>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let inputs = inputs.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, inputs).await {
                        tracing::debug!(%error, "a conversation on the control socket ended early");
                    }
                    drop(place);
                });
            }
            // Out of descriptors, for example: come back later.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn converse(stream: UnixStream, inputs: mpsc::Sender<Input>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(io::Error::other(format!("uid {uid} may not ask")));
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(reader).take(LONGEST_QUESTION);
    tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
    let question = serde_json::from_slice(&line)?;
    let (answers, mut queue) = mpsc::channel(BACKLOG);
    inputs.send(Input::Asked(Asked { question, answers })).await.map_err(io::Error::other)?;
    while let Some(answer) = queue.recv().await {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, writer.write_all(&line)).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(path: &Path, text: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(text).await.unwrap();
        let mut answer = Vec::new();
        // Bytes beyond the limit are never read, so the kernel may reset the connection: no answer either.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn answers_one_question_and_hangs_up_on_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, mut asked) = mpsc::channel(4);
        listen(folder.path(), inputs.clone()).unwrap();
        let path = socket_path(folder.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listen(folder.path(), inputs).is_err(), "a second entrypoint must not take the socket");

        let answering = tokio::spawn(async move {
            let Some(Input::Asked(asked)) = asked.recv().await else { panic!("no question") };
            assert_eq!(asked.question, Question::Checkpoint { stop: true });
            asked.answers.send(Answer::Released { frozen_ms: 7 }).await.unwrap();
        });
        let answer = ask(&path, b"{\"ask\":\"checkpoint\",\"stop\":true}\n").await;
        assert_eq!(answer, b"{\"answer\":\"released\",\"frozen_ms\":7}\n");
        answering.await.unwrap();

        for nonsense in [&b"{\"ask\":\"shell\"}\n"[..], b"\n", &[b'{'; 10_000]] {
            assert_eq!(ask(&path, nonsense).await, b"");
        }
    }
}
