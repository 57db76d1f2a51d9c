//! Restoring: from a durable generation to a running tree.

mod lazily;
pub mod pids;
mod stall;
mod stdio;

use super::clock::{self, Plan};
use super::compatibility::{self, Surroundings};
use super::engine::Events;
use super::images_dir::ImagesDir;
use super::lazy::{Filling, Recent};
use super::outlet::OutletError;
use super::protocol::{Begin as Request, Stdio};
use super::record::{Host, Record};
use super::side_effects;
use super::told::while_telling;
use crate::criu::Criu;
use crate::criu::explain::{Operation, explain_in, identify, read_log};
use crate::criu::hook::Hook;
use crate::criu::options::{self, InheritFd, PID_FILE, RestoreOptions};
use crate::criu::preload;
use crate::criu::probe::{Capability, Rights};
use crate::criu::run::CriuProcess;
use crate::criu::stream::StreamError;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::read::Opened;
use crate::workload::clock::Clocks;
use crate::workload::inner_ids::{self, InnerIds};
use crate::workload::{reaper, spawn};
use lazily::{FeedError, Source};
use pids::Begun;
use stall::Stall;
use std::os::fd::AsRawFd;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long CRIU may take from its start to its first word.
const CRIU_STARTS_WITHIN: Duration = Duration::from_secs(60);

/// How often a restore is tried when another process of the container takes an ID of the tree meanwhile.
const ATTEMPTS: u32 = 5;

/// The image that holds the reaper's program.
pub const REAPER_IMAGE: &str = "revenant-reaper.img";

/// The longest reaper, in bytes.
pub const REAPER_LIMIT: u64 = 256 * 1024;

/// The tree runs.
#[derive(Debug)]
pub struct Restored {
    /// The reaper.
    pub root_pid: i32,
    /// The user's command.
    pub command_pid: i32,
    /// The stdio as it is now.
    pub stdio: Stdio,
}

/// How one generation is restored.
#[derive(Debug, Clone)]
pub struct Manner {
    /// A newer one failed in this container.
    pub again: bool,
    /// The workload may run before its memory has arrived.
    pub may_be_lazy: bool,
    /// What may have been changed lately, and comes early then.
    pub recent: Option<Recent>,
}

/// Restores one generation; what is returned besides goes on bringing memory. On an error no process of it is left.
pub fn restore(
    request: &Request,
    criu: &Criu,
    opened: &Opened,
    record: &Record,
    manner: &Manner,
    events: &Events,
) -> Result<(Restored, Option<Filling>), Problem> {
    let version = criu.supported_version().map_err(|error| error.explain())?.to_string();
    let host = Host::here(&version);
    record.refuse_elsewhere(&host)?;
    record.refuse_of_another_user()?;
    record.refuse_without_its_namespaces()?;
    let misfits = record.misfits(&host, &Surroundings::here(), request.cpu);
    if let Some(problem) = compatibility::refusal(&misfits) {
        return Err(problem);
    }
    for misfit in misfits {
        events.warn(misfit.into());
    }
    let clock = clock_plan(request, record, events)?;
    side_effects::bring_back(&request.context, opened, manner.again, events)?;
    // The reaper of the checkpoint, not our own: another version of revenant may have made it.
    let program = opened.read(REAPER_IMAGE, REAPER_LIMIT).map_err(|error| error.explain())?;
    reaper::install(&record.reaper_path, &program).map_err(|error| error.explain())?;
    let mut attempts = ATTEMPTS;
    // Not tried with a PID namespace of its own, where CRIU and this process know the tree by other IDs.
    let mut lazy = manner.may_be_lazy && !record.own_pids && lazily::is_wanted(request, opened, events);
    loop {
        if !record.own_pids {
            pids::make_free(&record.pids, events)?;
        }
        attempts -= 1;
        let prepare =
            |images: &ImagesDir| Source::prepare(lazy, request, opened, record, manner.recent.as_ref(), images);
        match attempt(request, criu, prepare, record, &clock, events) {
            Err(Failure::PidTaken(problem)) if attempts > 0 => {
                events.notice(format!("{}; trying again", problem.what));
            }
            Err(Failure::Other(problem)) if lazy && !problem.passing => {
                lazy = false;
                events.notice(format!(
                    "no lazy restore, but one of all memory at once: {} ({})",
                    problem.what, problem.cause
                ));
            }
            Err(Failure::PidTaken(problem) | Failure::Other(problem)) => return Err(problem),
            Ok(restored) => return Ok(restored),
        }
    }
}

/// Why CRIU did not restore the tree.
enum Failure {
    /// Another process of the container was given an ID of the tree in the meantime.
    PidTaken(Problem),
    /// All else.
    Other(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Other(problem)
    }
}

fn clock_plan(request: &Request, record: &Record, events: &Events) -> Result<Plan, Problem> {
    let (then, here) = (record.clocks(), Clocks::here().unwrap_or_else(|_| record.clocks()));
    let plan = clock::plan(then, here, clock::can_continue(), request.clock)?;
    if let Plan::GoBack(problem) = &plan {
        events.warn(problem.clone());
    }
    Ok(plan)
}

fn attempt<'a>(
    request: &Request,
    criu: &Criu,
    prepare: impl FnOnce(&ImagesDir) -> Result<Source<'a>, Problem>,
    record: &Record,
    clock: &Plan,
    events: &Events,
) -> Result<(Restored, Option<Filling>), Failure> {
    let images = ImagesDir::create(&request.context.runtime_dir, "criu-restore")?;
    let mut source = prepare(&images)?;
    let hook = Hook::bind(images.path()).map_err(|error| broken(&error, &images))?;
    let (inherit, stdio) = stdio::inherited(&record.stdio, &request.stdio)?;
    if let Some(owner) = &record.owner {
        // Whose the processes are, theirs are the pipes and the terminal, whatever `--user` says now.
        spawn::give_to(owner, &inherit.iter().map(|(fd, _)| fd).collect::<Vec<_>>());
    }
    let mut options = RestoreOptions::new(images.path());
    if record.own_pids {
        options.rights = options::Rights::Privileged;
    }
    options.lazy_pages = source.is_lazy();
    if options.lazy_pages {
        let library = preload::install(&record.reaper_path);
        options.preload = Some(library.map_err(|error| error.explain())?);
    }
    options.keeps_tcp = keeps_tcp(record, events);
    options.inherit = inherit.iter().map(|(fd, key)| InheritFd { fd: fd.as_raw_fd(), key: key.clone() }).collect();
    options.script = std::fs::read_link("/proc/self/exe").ok();
    // Plain CRIU makes a time namespace by itself.
    if *clock == Plan::Continue && !record.own_pids {
        options.clock = Some(clock::offsets(record.clocks())?);
    }
    let mut process = CriuProcess::restore(criu, &options).map_err(|error| error.explain())?;
    let begun = Begun::now(process.id());
    let watched = process.watched().map_err(|error| error.explain())?;
    let stall = Stall::new(Duration::from_secs(request.restore_stall_seconds));
    let mut incomplete = Vec::new();
    let fed = match source.accept(process.peer(), CRIU_STARTS_WITHIN) {
        Ok(connection) => while_telling(
            events,
            || source.progress(),
            || {
                std::thread::scope(|scope| {
                    let (source, watched) = (&source, &watched);
                    let feeding = scope.spawn(move || source.feed(connection, watched));
                    scope.spawn(|| stall.watch(watched, || source.sent()));
                    if let Ok(Some(held)) = hook.wait(&process, || ()) {
                        let root = root(record, process.id());
                        incomplete = root.map_or_else(|| record.pids.clone(), |root| pids::missing(&record.pids, root));
                        stall.excused.store(true, Ordering::Relaxed);
                        let may_run = incomplete.is_empty() && events.may_run();
                        stall.excused.store(false, Ordering::Relaxed);
                        if may_run {
                            // A script that is gone has a CRIU that is gone, which is seen next.
                            let _ = held.proceed();
                        }
                    }
                    let ended = process.wait();
                    if !ended.as_ref().is_ok_and(ExitStatus::success) {
                        // Half-restored processes hold the connection open, and wait for a CRIU that is gone.
                        let _ = process.kill();
                        pids::kill_leftovers(record, begun);
                    }
                    feeding.join().unwrap_or(Err(StreamError::Panicked.into()))
                })
            },
        ),
        Err(error) => {
            // It may live on and never say a word.
            let _ = process.kill();
            Err(error.into())
        }
    };
    let judged = judge(&mut process, &stall, &images, fed, incomplete.first());
    let filling = source.into_filling();
    if let Err(failure) = judged {
        if let Some(filling) = filling {
            pids::kill_leftovers(record, begun);
            filling.give_up();
        }
        return Err(failure);
    }
    if let Some(filling) = &filling {
        filling.service.begin();
    }
    let root_pid = std::fs::read_to_string(images.path().join(PID_FILE))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(record.root_pid);
    images.remove();
    let command_pid = InnerIds::of(root_pid).outer(root_pid, record.command_pid).unwrap_or(root_pid);
    Ok((Restored { root_pid, command_pid, stdio }, filling))
}

/// Whether CRIU has done what it was asked to, and if not, why.
fn judge(
    process: &mut CriuProcess,
    stall: &Stall,
    images: &ImagesDir,
    fed: Result<(), FeedError>,
    incomplete: Option<&i32>,
) -> Result<(), Failure> {
    let ended = process.wait().map_err(|error| error.explain())?;
    if let Err(FeedError::Bring(problem)) = fed {
        return Err(problem.into());
    }
    if let Some(problem) = stall.problem(images.path()) {
        return Err(problem.into());
    }
    if let Err(FeedError::Serve(OutletError::Read(error))) = fed {
        return Err(error.explain().into());
    }
    if let Some(lost) = incomplete {
        return Err(fell_out(*lost).into());
    }
    if !ended.success() {
        let problem = explain_in(images.path(), Operation::Restore);
        let known = identify(&read_log(images.path(), Operation::Restore), Operation::Restore);
        return Err(match known {
            Some("pid-taken" | "tid-taken") => Failure::PidTaken(problem),
            _ => Failure::Other(problem),
        });
    }
    Ok(())
}

/// The root of the tree that this CRIU has made, as we see it.
fn root(record: &Record, criu: u32) -> Option<i32> {
    if !record.own_pids {
        return Some(record.root_pid);
    }
    inner_ids::init_below(i32::try_from(criu).ok()?)
}

/// Connections that were saved to go on do so where the container may give them their state back.
fn keeps_tcp(record: &Record, events: &Events) -> bool {
    let may = Rights::current().is_ok_and(|rights| rights.has(Capability::NetAdmin));
    if record.keeps_tcp && !may {
        events.notice(
            "TCP connections were saved to go on, which needs the capability NET_ADMIN here too: they are closed",
        );
    }
    record.keeps_tcp && may
}

fn fell_out(pid: i32) -> Problem {
    Problem::new(
        Exit::RestoreRefused,
        format!("process {pid} of the workload would fall out of its tree, and the next save would leave it behind"),
        "it is a daemon whose session's leader has ended, and revenant could not trace the root of the tree to keep it",
        "allow ptrace in the container (no seccomp filter; kernel.yama.ptrace_scope at most 1, or SYS_PTRACE)",
    )
}

fn broken(error: &impl std::fmt::Display, images: &ImagesDir) -> Problem {
    Problem::new(
        Exit::CriuUnusable,
        format!("the connection with CRIU broke: {error}"),
        "CRIU ended early, or the runtime directory is not usable",
        format!("see {} for CRIU's log", images.path().display()),
    )
}
