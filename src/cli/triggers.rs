//! Options of `revenant run` about when a save is made, and what the end looks like from outside.

use super::run::time;
use super::tuning::size;
use crate::supervisor::settings::OnOom;
use crate::trigger::cloud::http::Endpoint;
use crate::trigger::cloud::{self, Cloud};
use crate::trigger::outside;
use crate::trigger::watching::Watching;
use clap::Args;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of "no file".
const NO_FILE: &str = "none";

/// When a save is made besides SIGTERM, schedule and request.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Triggers")]
pub struct TriggerOptions {
    /// How long a container of this job lives on average, for --every auto [default: as observed, from the store]
    #[arg(long, env = "REVENANT_MTBF", value_name = "TIME", value_parser = time)]
    pub mtbf: Option<Duration>,
    /// Another signal that means what SIGTERM means, for example an image's STOPSIGNAL (may be given several times)
    #[arg(long, env = "REVENANT_STOP_SIGNAL", value_name = "SIGNAL", value_parser = signal, value_delimiter = ',')]
    pub stop_signal: Vec<Signal>,
    /// Whether to save when memory, processes or disk of the container or its node run out
    #[arg(long, env = "REVENANT_ON_PRESSURE", value_name = "BOOL", default_value_t = true)]
    #[arg(action = clap::ArgAction::Set)]
    on_pressure: bool,
    /// The part of the container's memory limit, in percent, at which a save is made
    #[arg(long, env = "REVENANT_MEMORY_THRESHOLD", value_name = "PERCENT", default_value_t = 90)]
    #[arg(value_parser = clap::value_parser!(u8).range(10..=99))]
    memory_threshold: u8,
    /// The kubelet's eviction threshold for memory.available
    #[arg(long, env = "REVENANT_EVICTION_MEMORY", value_name = "SIZE", value_parser = size, default_value = "100MiB")]
    eviction_memory: u64,
    /// What becomes of a command that is killed for want of memory
    #[arg(long, env = "REVENANT_ON_OOM", value_enum, default_value = "restore")]
    pub on_oom: OnOom,
    /// Save when somebody touches this file (may be given several times)
    #[arg(long, env = "REVENANT_TRIGGER_FILE", value_name = "FILE", value_delimiter = ':')]
    trigger_file: Vec<PathBuf>,
    /// Save when the annotation revenant.dev/checkpoint changes in this downward API file
    #[arg(long, env = "REVENANT_ANNOTATIONS", value_name = "FILE", default_value = "/etc/podinfo/annotations")]
    annotations: PathBuf,
    /// Whose notices to listen to [default: found out from the machine's firmware]
    #[arg(long, env = "REVENANT_CLOUD", value_enum)]
    cloud: Option<Cloud>,
    /// Where the cloud's metadata service answers
    #[arg(long, env = "REVENANT_CLOUD_ENDPOINT", value_name = "URL", default_value = cloud::ADDRESS)]
    #[arg(value_parser = endpoint)]
    cloud_endpoint: String,
    /// Whether to watch the pod and its node through the cluster's API, as far as the pod has the rights
    #[arg(long, env = "REVENANT_KUBERNETES", value_name = "BOOL", default_value_t = true)]
    #[arg(action = clap::ArgAction::Set)]
    kubernetes: bool,
    /// The cluster's API server [default: as Kubernetes tells every pod]
    #[arg(long, env = "REVENANT_KUBERNETES_API", value_name = "URL")]
    kubernetes_api: Option<String>,
    /// Where to write why the container has ended, if the file is there; none writes nowhere
    #[arg(long, env = "REVENANT_TERMINATION_LOG", value_name = "FILE", default_value = "/dev/termination-log")]
    termination_log: PathBuf,
}

impl TriggerOptions {
    /// For the supervisor.
    pub fn watching(&self, spool: Option<&Path>, pod_uid: Option<String>) -> Watching {
        Watching {
            pressure: self.on_pressure,
            memory_threshold: f64::from(self.memory_threshold) / 100.0,
            eviction_memory: self.eviction_memory,
            files: self.trigger_file.clone(),
            annotations: file(&self.annotations),
            outside: outside::request(
                self.cloud,
                &self.cloud_endpoint,
                self.kubernetes,
                self.kubernetes_api.clone(),
                pod_uid,
            ),
            folders: [Path::new("/")].into_iter().chain(spool).map(Path::to_owned).collect(),
        }
    }

    /// Where the last words go.
    pub fn termination_log(&self) -> Option<PathBuf> {
        file(&self.termination_log)
    }
}

fn file(path: &Path) -> Option<PathBuf> {
    (path.as_os_str() != NO_FILE).then(|| path.to_owned())
}

fn endpoint(text: &str) -> Result<String, String> {
    Endpoint::parse(text).map(|_| text.to_owned())
}

/// `SIGINT`, `int` or `2`.
fn signal(text: &str) -> Result<Signal, String> {
    match signal_name(text) {
        None => Err(format!("{text:?} is no signal; write for example SIGINT")),
        Some(Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGCHLD | Signal::SIGUSR1 | Signal::SIGPIPE) => {
            Err(format!("{text} cannot mean the end: the kernel or revenant needs it for something else"))
        }
        Some(signal) => Ok(signal),
    }
}

/// The signal of this name or number.
pub fn signal_name(text: &str) -> Option<Signal> {
    let name = text.trim().to_ascii_uppercase();
    let named = if name.starts_with("SIG") { name.parse() } else { format!("SIG{name}").parse() };
    named.ok().or_else(|| Signal::try_from(text.trim().parse::<i32>().ok()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_people_write_them() {
        for text in ["SIGINT", "int", "2"] {
            assert_eq!(signal(text), Ok(Signal::SIGINT));
        }
        for bad in ["", "SIGKILL", "9", "SIGNOPE", "USR1"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }
}
