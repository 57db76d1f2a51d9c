//! `revenant run`: the entrypoint.

mod observation;

use super::hooks::HookOptions;
use super::job_name::Identity;
use super::side_effects::FileOptions;
use super::triggers::TriggerOptions;
use super::tuning::{self, TuningOptions};
use crate::checkpoint::clock::ClockPolicy;
use crate::checkpoint::compatibility::CpuPolicy;
use crate::checkpoint::protocol::{Cache, OnRestoreFailure, RestoreMode};
use crate::criu::probe::{Capability, Rights};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::job::JobName;
use crate::observe::{Metrics, http, identity};
use crate::supervisor::Input;
use crate::supervisor::control;
use crate::supervisor::lease;
use crate::supervisor::life::{self, live};
use crate::supervisor::settings::Settings;
use crate::supervisor::signals::Signals;
use crate::trigger::SharedBoard;
use crate::trigger::interval::Every;
use crate::trigger::outside::Outside;
use crate::trigger::{file, pressure};
use crate::workload::account::Account;
use crate::workload::command::Command;
use crate::workload::isolation::Isolate;
use crate::workload::stdio::{self, TtyMode};
use crate::workload::{credentials, inherited, private_dir, reaper, spawn};
use clap::{Args, ValueEnum};
use observation::ObservationOptions;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// The name of "no store".
const NO_STORE: &str = "none";

/// What sources have said and nobody has taken yet; one that has more to say waits.
const HEARD: usize = 16;

/// Kubernetes' own default for `terminationGracePeriodSeconds`.
const USUAL_GRACE: Duration = Duration::from_secs(30);

/// Options of `revenant run`, the most needed first.
#[derive(Debug, Clone, Args)]
#[allow(rustdoc::bare_urls)] // Shown as help, not as a page.
#[allow(clippy::doc_markdown)]
pub struct RunOptions {
    /// Where checkpoints are kept: file:///path, s3://bucket/prefix, gs://…, az://…; none runs without checkpoints
    #[arg(long, env = "REVENANT_STORE", value_name = "URL", default_value = "file:///checkpoints")]
    store: String,
    /// The job's name, the same in all its containers [default: from the pod, the Kubernetes Job or the host name]
    #[arg(long, env = "REVENANT_JOB", value_name = "NAME")]
    job: Option<JobName>,
    /// Continues the work natively (run by /bin/sh -c) when the job was started before and nothing can be restored
    #[arg(long, env = "REVENANT_RESUME_COMMAND", value_name = "COMMAND")]
    resume_command: Option<String>,
    /// What to do when checkpoints exist but none can be restored [default: resume-command if there is one, else fail]
    #[arg(long, env = "REVENANT_ON_RESTORE_FAILURE", value_enum, value_name = "POLICY")]
    on_restore_failure: Option<OnRestoreFailure>,
    /// From SIGTERM until the container is killed: the pod's terminationGracePeriodSeconds
    /// [default: as the pod says, where it can be read, else 30s]
    #[arg(long, env = "REVENANT_GRACE", value_name = "TIME", value_parser = time)]
    grace: Option<Duration>,

    /// Also save every so often, for example 1h; auto weighs what a save takes against how often containers die
    #[arg(long, env = "REVENANT_EVERY", value_name = "TIME|auto", value_parser = every, help_heading = "Saving")]
    every: Option<Every>,
    /// How many generations to keep
    #[arg(long, env = "REVENANT_KEEP_LAST", value_name = "N", default_value_t = 3, help_heading = "Saving")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: u32,
    /// What becomes of the checkpoints when the command has ended with success
    #[arg(long, env = "REVENANT_ON_COMPLETE", value_enum, default_value = "delete", help_heading = "Saving")]
    on_complete: OnComplete,
    /// A restored command that fails sooner than this is taken for a bad checkpoint
    #[arg(long, env = "REVENANT_CRASH_WINDOW", value_name = "TIME", default_value = "30s", value_parser = time)]
    #[arg(help_heading = "Saving")]
    crash_window: Duration,

    /// How long after its start the command is looked at for what cannot be saved; 0 to look only at each save
    #[arg(long, env = "REVENANT_LOOK_AFTER", value_name = "TIME", default_value = "1m", value_parser = time)]
    #[arg(help_heading = "Saving")]
    look_after: Duration,

    /// Take the job over although another container seems to run it
    #[arg(long, env = "REVENANT_TAKEOVER", help_heading = "Claim and store")]
    takeover: bool,
    /// A container that has not renewed its claim for this long is taken for dead
    #[arg(long, env = "REVENANT_LEASE", value_name = "TIME", default_value = "60s", value_parser = time)]
    #[arg(help_heading = "Claim and store")]
    lease: Duration,
    /// A CRIU that restores and takes nothing of the checkpoint for this long is ended; 0 waits for ever
    #[arg(long, env = "REVENANT_RESTORE_STALL", value_name = "TIME", default_value = "10m", value_parser = time)]
    #[arg(help_heading = "Claim and store")]
    restore_stall: Duration,
    /// Whether the workload runs before its memory has arrived (docs/lazy-restore.md) [SYS_PTRACE]: auto where that is
    /// allowed and its memory is 16 GiB or more, lazy wherever it is allowed, eager never
    #[arg(long, env = "REVENANT_RESTORE", value_name = "MANNER", value_enum, default_value_t = RestoreMode::Auto)]
    #[arg(help_heading = "Claim and store")]
    restore: RestoreMode,
    /// In a lazy restore, memory that nobody waits for comes no faster than this in a second
    #[arg(long, env = "REVENANT_FILL_LIMIT", value_name = "SIZE", value_parser = tuning::size)]
    #[arg(help_heading = "Claim and store")]
    fill_limit: Option<u64>,
    /// Keep what restores read from a server in this folder of the node, for the next restore here
    #[arg(long, env = "REVENANT_CACHE_DIR", value_name = "DIR", help_heading = "Claim and store")]
    cache: Option<PathBuf>,
    /// The most bytes in the cache; what was not used for longest makes way
    #[arg(long, env = "REVENANT_CACHE_LIMIT", value_name = "SIZE", default_value = "16G", value_parser = tuning::size)]
    #[arg(help_heading = "Claim and store")]
    cache_limit: u64,
    /// How long to wait at the start for a store that does not answer
    #[arg(long, env = "REVENANT_STORE_PATIENCE", value_name = "TIME", default_value = "5m", value_parser = time)]
    #[arg(help_heading = "Claim and store")]
    store_patience: Duration,

    /// Whether the command gets a terminal
    #[arg(long, env = "REVENANT_TTY", value_enum, default_value = "auto", help_heading = "Surroundings")]
    tty: TtyMode,
    /// Run the command as this user of the image, a name or a number; needs SETUID, SETGID, SYS_PTRACE, DAC_OVERRIDE
    #[arg(long, env = "REVENANT_USER", value_name = "USER[:GROUP]", help_heading = "Surroundings")]
    user: Option<String>,
    /// Namespaces that the job has for itself: ipc carries System V shared memory, semaphores and messages [SYS_ADMIN];
    /// auto makes it where that is allowed and no limit of it was changed; pid,ipc,mount lets nobody else hold an ID of
    /// the job [SYS_ADMIN, NET_ADMIN, SYS_TIME, SYS_CHROOT]
    #[arg(long, env = "REVENANT_ISOLATE", value_name = "auto|none|ipc|pid,ipc,mount", default_value = "auto")]
    #[arg(help_heading = "Surroundings")]
    isolate: Isolate,
    /// What to do where the monotonic clock would go back and its namespace cannot be made [SYS_ADMIN, SYS_TIME]
    #[arg(long, env = "REVENANT_CLOCK", value_enum, default_value = "require", value_name = "POLICY")]
    #[arg(help_heading = "Surroundings")]
    clock: ClockPolicy,
    /// A private folder for sockets and small files [default: /run/revenant, or the first that can be used]
    #[arg(long, env = "REVENANT_RUNTIME_DIR", value_name = "DIR", help_heading = "Surroundings")]
    runtime_dir: Option<PathBuf>,

    #[command(flatten)]
    triggers: TriggerOptions,
    #[command(flatten)]
    hooks: HookOptions,
    /// What a processor without an instruction set of the first one means for a restore
    #[arg(long, env = "REVENANT_CPU_CAP", value_enum, default_value = "all", help_heading = "Surroundings")]
    cpu_cap: CpuPolicy,

    #[command(flatten)]
    tuning: TuningOptions,
    #[command(flatten)]
    files: FileOptions,
    #[command(flatten)]
    observation: ObservationOptions,

    /// The command and its arguments, after two dashes
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// See [`RunOptions::on_complete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnComplete {
    /// They stay.
    Keep,
    /// They are removed, and the job stays marked as complete.
    Delete,
}

/// Runs the workload's whole life; returns the container's exit code.
pub fn run(options: RunOptions) -> Result<u8, Problem> {
    become_init()?;
    let settings = options.settings()?;
    let reaper_path = reaper::install_in(&reaper::folders()).map_err(|error| error.explain())?;
    let stdio = stdio::prepare(settings.tty)
        .map_err(|error| internal("the workload's stdin, stdout and stderr cannot be arranged", &error))?;
    if let Some(account) = &settings.account {
        spawn::give_to(&account.credentials, &stdio.for_restore().0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| internal("the event loop cannot be started", &error))?;
    let code = runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
        let signals = Signals::listen().map_err(|error| internal("signals cannot be read", &error))?;
        let (inputs, arriving) = mpsc::channel(life::INPUTS);
        if let Err(error) = control::listen(&settings.runtime_dir, inputs.clone()) {
            warn!(
                %error,
                "`revenant checkpoint` and `revenant status` will not work: cannot listen in {}: {error}",
                settings.runtime_dir.display()
            );
        }
        serve_http(&settings, &inputs);
        let board = SharedBoard::default();
        let outside = watch(&settings, &board, &inputs);
        let lease = lease::of(&settings, &board);
        Ok(live(settings, reaper_path, stdio, lease, (board, outside), signals, (inputs, arriving)).await)
    }));
    // A read of the container's stdin may still be under way.
    runtime.shutdown_background();
    code
}

/// Starts what watches for reasons to save. To be called inside the `LocalSet`.
fn watch(settings: &Settings, board: &SharedBoard, inputs: &mpsc::Sender<Input>) -> Option<Outside> {
    settings.store.as_ref()?;
    let (heard, mut hearing) = mpsc::channel(HEARD);
    if settings.watching.pressure {
        tokio::task::spawn_local(pressure::watch(settings.watching.clone(), board.clone(), heard.clone()));
    }
    let request = settings.watching.outside.clone();
    let outside = request.is_worth_it().then(|| Outside::start(request, heard.clone()));
    tokio::task::spawn_local(file::watch(settings.watching.clone(), heard));
    let inputs = inputs.clone();
    tokio::task::spawn_local(async move {
        while let Some(heard) = hearing.recv().await {
            if inputs.send(Input::Heard(heard)).await.is_err() {
                return;
            }
        }
    });
    outside
}

/// Probes and metrics. A port that is taken must not keep the workload from running; probes will tell.
fn serve_http(settings: &Settings, inputs: &mpsc::Sender<Input>) {
    let Some(http) = &settings.http else { return };
    match http::listen(http, settings.metrics.clone(), inputs.clone()) {
        Ok(address) => debug!(%address, "probes and metrics are served"),
        Err(error) => warn!(%error, "probes and metrics will not work: cannot listen on {}: {error}", http.address),
    }
}

/// What PID 1 must be, also when it is not PID 1: nobody's orphan escapes, nobody's descriptor leaks.
fn become_init() -> Result<(), Problem> {
    inherited::close_on_exec().map_err(|error| internal("inherited descriptors cannot be closed", &error))?;
    credentials::use_permitted()
        .map_err(|error| internal("capabilities of the program file cannot be used", &error))?;
    if std::process::id() != 1 {
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|error| internal("cannot become the reaper of orphans", &error.into()))?;
    }
    Ok(())
}

impl RunOptions {
    fn settings(self) -> Result<Settings, Problem> {
        let command = Command::find(&self.command).map_err(|error| error.explain())?;
        let resume_command = match self.resume_command.as_deref().filter(|text| !text.trim().is_empty()) {
            Some(text) => Some(Command::shell(text).map_err(|error| error.explain())?),
            None => None,
        };
        let on_restore_failure = match (self.on_restore_failure, &resume_command) {
            (Some(OnRestoreFailure::ResumeCommand), None) => {
                return Err(Problem::new(
                    Exit::Usage,
                    "--on-restore-failure resume-command was given without a resume command",
                    "there is nothing to run in that case",
                    "add --resume-command 'TOOL --continue …', or choose fresh or fail",
                ));
            }
            (Some(policy), _) => policy,
            (None, Some(_)) => OnRestoreFailure::ResumeCommand,
            (None, None) => OnRestoreFailure::Fail,
        };
        let account = self.user.as_deref().filter(|user| !user.is_empty()).map(account).transpose()?.flatten();
        let http = self.observation.settings()?;
        let namespaces = self.isolate.own(account.is_some())?;
        let store = (self.store != NO_STORE).then_some(self.store);
        let job = match self.job {
            Some(job) => job,
            None => derived_job(store.is_some())?,
        };
        identity::speak_for(&job);
        let runtime_dir = runtime_dir(self.runtime_dir)?;
        let pod_uid = std::env::var("REVENANT_POD_UID").ok().filter(|uid| !uid.is_empty());
        let mut own = vec![runtime_dir.clone()];
        own.extend(store.as_deref().and_then(|url| url.strip_prefix("file://")).map(PathBuf::from));
        own.extend(self.cache.clone());
        Ok(Settings {
            metrics: Metrics::new(job.clone()),
            http,
            job,
            store,
            runtime_dir,
            command,
            account,
            own: namespaces,
            resume_command,
            on_restore_failure,
            keep_on_complete: self.on_complete == OnComplete::Keep,
            grace: self.grace.unwrap_or(USUAL_GRACE),
            grace_told: self.grace.is_some(),
            keep: self.keep_last,
            every: self.every.filter(|every| *every != Every::Fixed(Duration::ZERO)),
            mtbf: self.triggers.mtbf,
            watching: self.triggers.watching(self.tuning.spool(), pod_uid.clone()),
            on_oom: self.triggers.on_oom,
            hooks: self.hooks.hooks()?,
            stop_signals: self.triggers.stop_signal.clone(),
            termination_log: self.triggers.termination_log(),
            look_after: self.look_after,
            cpu: self.cpu_cap,
            takeover: self.takeover,
            lease: self.lease,
            store_patience: self.store_patience,
            restore_stall: self.restore_stall,
            restore: self.restore,
            fill_limit: self.fill_limit,
            cache: self.cache.map(|folder| Cache { folder, limit: self.cache_limit }),
            crash_window: self.crash_window,
            clock: self.clock,
            tty: self.tty,
            files: self.files.policy(own),
            chunk_sizes: self.tuning.chunk_sizes(),
            tuning: self.tuning.tuning(),
            pod_uid,
        })
    }
}

/// None when it is the user that revenant has anyway.
fn account(text: &str) -> Result<Option<Account>, Problem> {
    let account = Account::find(text).map_err(|error| error.explain())?;
    let here = credentials::Credentials::here().map_err(|error| internal("/proc cannot be read", &error))?;
    if (here.uid, here.gid) == (account.credentials.uid, account.credentials.gid) {
        return Ok(None);
    }
    let rights = Rights::current().map_err(|error| internal("/proc cannot be read", &error))?;
    let missing = rights.lacking(&Capability::FOR_ANOTHER_USER);
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Problem::new(
            Exit::Privileges,
            format!("the command cannot run as user {text}: this container lacks {missing}"),
            "revenant becomes that user to start the command, and to save and restore it",
            format!(
                "let revenant start as root and add to securityContext.capabilities.add: [{missing}]; or let the \
                 whole container run as that user (docs/users.md)"
            ),
        ));
    }
    Ok(Some(account))
}

fn derived_job(matters: bool) -> Result<JobName, Problem> {
    let derived = Identity::here().job()?;
    if matters && derived.stable {
        info!(job = %derived.name, "the job is called {}, from {} (--job gives it another name)", derived.name, derived.from);
    } else if matters {
        warn!(
            job = %derived.name,
            "the job is called {} after this container's host name, which looks random: the next container will have \
             another one and will not find these checkpoints; give the job a name of its own (--job NAME)",
            derived.name
        );
    }
    Ok(derived.name)
}

/// The folder that was asked for, else the first that can be ours alone.
fn runtime_dir(asked: Option<PathBuf>) -> Result<PathBuf, Problem> {
    let candidates = asked.map_or_else(control::runtime_dirs, |folder| vec![folder]);
    let mut refused = Vec::new();
    for folder in candidates {
        match private_dir::create(&folder) {
            Ok(()) => {
                debug!(folder = %folder.display(), "runtime directory");
                return Ok(folder);
            }
            Err(error) => refused.push(format!("{} ({error})", folder.display())),
        }
    }
    Err(Problem::new(
        Exit::Failure,
        format!("no folder for revenant's sockets and small files; tried {}", refused.join(", ")),
        "the container's file system is read-only, or the folder belongs to somebody else",
        "mount a small writable volume at /run/revenant (in Kubernetes: an emptyDir), or name one: --runtime-dir DIR",
    ))
}

fn internal(what: &str, error: &std::io::Error) -> Problem {
    Problem::new(
        Exit::Internal,
        format!("{what}: {error}"),
        "the kernel or the container's limits (processes, open files, memory) do not allow it",
        "check the container's limits; if they are not the cause, report this as a defect of revenant",
    )
}

/// `30s`, `10m`, `1h 30m`; a bare number is seconds, as in Kubernetes.
pub fn time(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 90s, 10m or 1h")),
    }
}

/// `auto`, or a time.
fn every(text: &str) -> Result<Every, String> {
    if text.trim() == "auto" { Ok(Every::Auto) } else { time(text).map(Every::Fixed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(time("30"), Ok(Duration::from_secs(30)));
        assert_eq!(time("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(time("soon").unwrap_err().contains("write for example"));
    }
}
