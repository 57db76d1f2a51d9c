//! What is heard from outside of the container: the cloud and the cluster.
//!
//! Asking them takes TLS, HTTP and large documents. A process of its own does it (`revenant watch`, hidden), so that
//! PID 1 stays small, a defect there harms nobody, and where there is neither cloud nor cluster it costs nothing.
//! PID 1 writes one [`Request`] and then [`Told`] lines to its stdin; it writes [`Heard`] lines to its stdout, and ends
//! when its stdin ends.

use super::cloud::http::Endpoint;
use super::cloud::{self, Cloud};
use super::{Heard, Source};
use crate::kubernetes::watch::annotation::{self, Checkpoint};
use crate::kubernetes::watch::client::{self, Cluster};
use crate::kubernetes::watch::events::{self, Happening};
use crate::workload::{kill, tree};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;

/// The longest line in either direction, in bytes.
const LONGEST_LINE: u64 = 64 << 10;
/// One that has died is started again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// What is said and not yet written.
const BACKLOG: usize = 16;

/// What is to be watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whose machine this is.
    pub cloud: Cloud,
    /// Where its metadata service answers: `http://HOST[:PORT]`.
    pub cloud_endpoint: String,
    /// Whether the cluster is asked.
    pub kubernetes: bool,
    /// Its API server, if not the one in the environment.
    pub kubernetes_api: Option<String>,
    /// The pod's UID, if known, for its events.
    pub pod_uid: Option<String>,
}

impl Request {
    /// Whether there is anything to watch.
    pub fn is_worth_it(&self) -> bool {
        self.cloud != Cloud::None || self.kubernetes
    }
}

/// What PID 1 tells, for the pod's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What happened.
    pub happening: Happening,
    /// In words.
    pub message: String,
    /// The checkpoint that is now the newest, for the pod's annotation.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
}

/// The process as PID 1 sees it.
#[derive(Debug)]
pub struct Outside {
    pid: Rc<Cell<Option<i32>>>,
    stdin: SharedStdin,
    again_at_once: Rc<Notify>,
    listening: JoinHandle<()>,
}

impl Outside {
    /// Starts it, and again whenever it dies. To be called inside a `LocalSet`.
    pub fn start(request: Request, heard: Sender<Heard>) -> Self {
        let pid = Rc::new(Cell::new(None));
        let stdin = Rc::new(RefCell::new(None));
        // The first at once: its PID is a low one, which no checkpoint needs.
        let first = launch(&request, &pid, &stdin);
        let again_at_once = Rc::new(Notify::new());
        let shared = (pid.clone(), stdin.clone(), again_at_once.clone());
        let listening = tokio::task::spawn_local(keep(request, first, shared, heard));
        Self { pid, stdin, again_at_once, listening }
    }

    /// Its PID, while it lives.
    pub fn pid(&self) -> Option<i32> {
        self.pid.get()
    }

    /// Whether it, or a thread of it, has one of these IDs.
    pub fn holds(&self, ids: &[i32]) -> bool {
        let threads = self.pid().and_then(|pid| tree::threads(pid).ok()).unwrap_or_default();
        threads.iter().any(|thread| ids.contains(thread))
    }

    /// Ends it, and starts another one at once.
    pub fn restart(&self) {
        if let Some(pid) = self.pid() {
            self.again_at_once.notify_one();
            kill::send(pid, Signal::SIGKILL);
        }
    }

    /// Puts something on the pod's record. Never waits: what cannot be written now is lost.
    pub fn tell(&self, told: &Told) {
        if let (Some(stdin), Ok(mut line)) = (self.stdin.borrow_mut().as_mut(), serde_json::to_vec(told)) {
            line.push(b'\n');
            let _ = stdin.write_all(&line);
        }
    }

    /// Lets it put its last word and end, for at most `patience`.
    pub async fn close(self, patience: Duration) {
        self.stdin.borrow_mut().take();
        let ended = async {
            while self.pid.get().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(patience, ended).await;
        self.listening.abort();
    }
}

type SharedStdin = Rc<RefCell<Option<std::process::ChildStdin>>>;

fn launch(request: &Request, pid: &Rc<Cell<Option<i32>>>, stdin: &SharedStdin) -> io::Result<OwnedFd> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("revenant").arg("watch").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to it"))?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe from it"))?;
    let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
    line.push(b'\n');
    // Far smaller than a pipe holds.
    input.write_all(&line)?;
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&input, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    pid.set(i32::try_from(child.id()).ok());
    stdin.borrow_mut().replace(input);
    Ok(OwnedFd::from(output))
}

async fn keep(
    request: Request,
    first: io::Result<OwnedFd>,
    (pid, stdin, again_at_once): (Rc<Cell<Option<i32>>>, SharedStdin, Rc<Notify>),
    heard: Sender<Heard>,
) {
    let mut output = first;
    loop {
        match output {
            Ok(output) => {
                if let Err(error) = listen(output, &heard).await {
                    tracing::warn!(%error, "what watches cloud and cluster said something strange: {error}");
                }
            }
            Err(error) => tracing::warn!(%error, "cloud and cluster are not watched: {error}"),
        }
        pid.set(None);
        // Closed by us: it is over.
        if stdin.borrow_mut().take().is_none() {
            return;
        }
        let _ = tokio::time::timeout(AGAIN_AFTER, again_at_once.notified()).await;
        output = launch(&request, &pid, &stdin);
    }
}

async fn listen(output: OwnedFd, heard: &Sender<Heard>) -> io::Result<()> {
    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(output)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if heard.send(serde_json::from_slice(&line)?).await.is_err() {
            return Ok(());
        }
    }
}

use std::os::unix::process::CommandExt;

/// `revenant watch`: reads what to watch, watches, and ends with its stdin.
pub fn serve() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let request: Request = serde_json::from_str(&line)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(request));
    runtime.shutdown_background();
    Ok(())
}

async fn watch(request: Request) {
    let (heard, mut hearing) = mpsc::channel(BACKLOG);
    let cluster = match request.kubernetes.then(|| Cluster::of_this_pod(request.kubernetes_api.as_deref())) {
        Some(Ok(cluster)) => Some(cluster),
        Some(Err(reason)) => {
            let message = format!("the cluster's API is not used: {reason}");
            let _ = heard.send(Heard::Note { message }).await;
            None
        }
        None => None,
    };
    match Endpoint::parse(&request.cloud_endpoint) {
        Ok(endpoint) => drop(tokio::spawn(cloud::watch(request.cloud, endpoint, heard.clone()))),
        Err(message) => drop(heard.send(Heard::Note { message }).await),
    }
    if let Some(cluster) = cluster.clone() {
        tokio::spawn(settled(cluster, heard.clone()));
    }
    let saying = tokio::spawn(async move {
        while let Some(heard) = hearing.recv().await {
            let Ok(mut line) = serde_json::to_vec(&heard) else { continue };
            line.push(b'\n');
            let mut stdout = io::stdout().lock();
            if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
                return;
            }
        }
    });
    if let Err(error) = tell(cluster, request.pod_uid, &heard).await {
        tracing::debug!(%error, "the line to PID 1 has broken");
    }
    saying.abort();
}

/// A pod that is deleted gets its SIGTERM at the same moment, as a rule: then the signal decides, and a save that runs
/// already would be in its way. What is still alive a moment later has a preStop hook, and time.
const MOMENT: Duration = Duration::from_secs(2);

async fn settled(cluster: Cluster, heard: Sender<Heard>) {
    let (found, mut finding) = mpsc::channel(BACKLOG);
    let passing = async {
        while let Some(said) = finding.recv().await {
            if matches!(&said, Heard::Trigger(trigger) if trigger.source == Source::Pod) {
                tokio::time::sleep(MOMENT).await;
            }
            if heard.send(said).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(crate::kubernetes::watch::run(cluster, found), passing);
}

/// Puts what PID 1 tells on the pod, until there is no more.
async fn tell(cluster: Option<Cluster>, uid: Option<String>, heard: &Sender<Heard>) -> io::Result<()> {
    use std::os::fd::AsFd;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    nix::fcntl::fcntl(&stdin, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(stdin)?);
    let mut line = Vec::new();
    let (mut told_trouble, mut may_annotate) = (false, true);
    loop {
        line.clear();
        if (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let told: Told = serde_json::from_slice(&line)?;
        let Some(cluster) = &cluster else { continue };
        if let Some(checkpoint) = told.checkpoint.as_ref().filter(|_| may_annotate) {
            may_annotate = annotated(cluster, checkpoint).await;
        }
        if let Err(error) = events::post(cluster, uid.as_deref(), told.happening, &told.message).await
            && !std::mem::replace(&mut told_trouble, true)
        {
            let message =
                format!("no events are put on the pod (deploy/rbac.yaml has the rights that it takes): {error}");
            let _ = heard.send(Heard::Note { message }).await;
        }
    }
}

/// Whether it is worth trying again. The right is optional, so that its lack is no news for an operator.
async fn annotated(cluster: &Cluster, checkpoint: &Checkpoint) -> bool {
    match annotation::put(cluster, checkpoint).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "the pod was not annotated: {error}");
            !matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403))
        }
    }
}

/// What to watch, from what the user said and what there is.
pub fn request(
    cloud: Option<Cloud>,
    cloud_endpoint: &str,
    kubernetes: bool,
    kubernetes_api: Option<String>,
    pod_uid: Option<String>,
) -> Request {
    Request {
        cloud: cloud.unwrap_or_else(cloud::of_this_machine),
        cloud_endpoint: cloud_endpoint.to_owned(),
        kubernetes: kubernetes && client::is_here(kubernetes_api.as_deref()),
        kubernetes_api,
        pod_uid,
    }
}
