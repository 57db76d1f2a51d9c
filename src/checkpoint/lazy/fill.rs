//! A fill under way, from before CRIU's start until everything is there.

use super::collapse;
use super::keeper::Keeper;
use super::plan::Plan;
use super::recent::Recent;
use super::serve::Service;
use crate::checkpoint::engine::Events;
use crate::checkpoint::protocol::{Event, Progress};
use crate::explain::Problem;
use crate::repository::read::Opened;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads that do nothing but answer faults.
const ANSWERING: usize = 2;
const ANSWERING_FAR: usize = 6;

/// How often PID 1 is told how far it is.
const EVERY: Duration = Duration::from_millis(500);

/// How often it is said that the workload waits for the store.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The threads of a fill, and what they share.
#[derive(Debug)]
pub struct Filling {
    /// What they share.
    pub service: Arc<Service>,
    opened: Opened,
    /// By PID as in the checkpoint.
    tasks: Vec<i32>,
    threads: Vec<JoinHandle<()>>,
    keeper: Keeper,
    runtime_dir: PathBuf,
    begun: Instant,
}

/// How memory is brought.
#[derive(Debug)]
pub struct Manner {
    /// How long a store may be out of reach.
    pub patience: Duration,
    /// Bytes a second for what nobody waits for.
    pub limit: Option<u64>,
    /// What may have been changed lately.
    pub recent: Option<Recent>,
    /// Where what was waited for is kept for the next save.
    pub runtime_dir: PathBuf,
}

impl Filling {
    /// Starts the threads.
    pub fn start(opened: &Opened, plan: Plan, manner: Manner) -> io::Result<Self> {
        let Manner { patience, limit, recent, runtime_dir } = manner;
        // Before anything large is in memory: the keeper holds a copy of what there is now.
        let keeper = Keeper::start()?;
        let tasks = plan.tasks.keys().copied().collect();
        let service = Service::new(opened, plan, patience, limit)?;
        let mut filling = Self {
            service: Arc::clone(&service),
            opened: opened.clone(),
            tasks,
            threads: Vec::new(),
            keeper,
            runtime_dir,
            begun: Instant::now(),
        };
        let answering = if opened.is_local() { ANSWERING } else { ANSWERING_FAR };
        let workers = (0..answering).map(|_| false).chain((0..opened.parallelism()).map(|_| true));
        let started = spawn(&service, Service::follow)
            .and_then(|thread| {
                filling.threads.push(thread);
                filling.threads.push(spawn(&service, move |service| service.find_order(recent.as_ref()))?);
                workers.map(|all| spawn(&service, move |service| service.work(all))).collect::<io::Result<Vec<_>>>()
            })
            .map(|threads| filling.threads.extend(threads));
        match started {
            Ok(()) => Ok(filling),
            Err(error) => {
                filling.give_up();
                Err(error)
            }
        }
    }

    /// Who keeps the workload waiting when this process is gone.
    pub fn keeper(&self) -> i32 {
        self.keeper.pid()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            phase: "fill".to_owned(),
            done_bytes: self.service.put.load(Ordering::Relaxed),
            total_bytes: Some(self.service.total),
            store_bytes: 0,
        }
    }

    /// Nothing of the tree is left: nobody will ask for a page.
    pub fn give_up(self) {
        self.service.end(Ok(()));
        for thread in self.threads {
            let _ = thread.join();
        }
    }

    /// Waits until everything is there, says so, and makes its huge pages huge again until a save is wanted. On an error
    /// whoever waits for a page waits on, and beyond the end of this process: PID 1 has to end the workload, and the keeper
    /// after it.
    pub fn wait(self, events: &Events) -> Result<(), Problem> {
        if let Err(problem) = self.over(events) {
            self.keeper.leave();
            // Its descriptors are shared with the keeper: what is closed here is closed there.
            std::mem::forget(self.service);
            return Err(problem);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
        if let Err(error) = self.service.hot().keep(&self.runtime_dir) {
            tracing::debug!(%error, "what was waited for cannot be kept");
        }
        let (bytes, faults) = (self.service.put.load(Ordering::Relaxed), self.service.faults.load(Ordering::Relaxed));
        let total_bytes = Some(self.service.total);
        // The workload's memory is its own again, before a save may begin.
        drop((self.service, self.keeper));
        events.send(&Event::Progress(Progress {
            phase: "fill".to_owned(),
            done_bytes: bytes,
            total_bytes,
            store_bytes: 0,
        }));
        let took_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        events.send(&Event::Filled { bytes, faults, took_ms });
        let places = collapse::places(&self.opened, &self.tasks);
        // With all that was kept for reading.
        drop(self.opened);
        collapse::collapse(&places, collapse::is_told_to_stop);
        Ok(())
    }

    /// Tells how far it is until it is over.
    fn over(&self, events: &Events) -> Result<(), Problem> {
        let mut said: Option<Instant> = None;
        loop {
            if let Some(result) = self.service.over_within(EVERY) {
                return result;
            }
            events.send(&Event::Progress(self.progress()));
            match self.service.trouble() {
                Some(problem) if said.is_none_or(|said| said.elapsed() > SAY_EVERY) => {
                    said = Some(Instant::now());
                    events.notice(format!("the workload waits for memory that has not arrived: {}", problem.what));
                }
                None if said.take().is_some() => events.notice("the store answers again"),
                _ => {}
            }
        }
    }
}

fn spawn(service: &Arc<Service>, work: impl FnOnce(&Service) + Send + 'static) -> io::Result<JoinHandle<()>> {
    let service = Arc::clone(service);
    std::thread::Builder::new().name("fill".to_owned()).spawn(move || work(&service))
}
