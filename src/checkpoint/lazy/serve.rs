//! Who answers: a thread that follows the address spaces, threads for faults, threads for the rest.

mod answer;
mod follow;
mod load;
mod order;

use super::hot::{Hot, Recorder};
use super::plan::{Plan, Task};
use super::space::{Put, Space};
use super::uffd::Uffd;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::repository::read::Opened;
use nix::sys::eventfd::{EfdFlags, EventFd};
use order::{Job, UnderWay};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A restore's lazy pages.
#[derive(Debug)]
pub struct Service {
    opened: Opened,
    /// How long a store may be out of reach.
    patience: Duration,
    /// Bytes a second for the background.
    limit: Option<u64>,
    tasks: Mutex<HashMap<i32, Task>>,
    recorder: Recorder,
    known: Mutex<Hot>,
    state: Mutex<State>,
    changed: Condvar,
    alarm: EventFd,
    /// Bytes that come later, in all.
    pub total: u64,
    /// Bytes put in place.
    pub put: AtomicU64,
    /// Faults answered.
    pub faults: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    spaces: Vec<Arc<Space>>,
    faults: VecDeque<(Arc<Space>, u64)>,
    /// CRIU is done: the background may begin.
    begun: bool,
    /// What comes first in the background: addresses, in order.
    first: VecDeque<(Arc<Space>, Range<u64>)>,
    /// What the background brings at this moment.
    under_way: Vec<UnderWay>,
    batches: u64,
    /// Something was put in place since the lap began.
    progress: Option<Instant>,
    /// The background rests until then, to keep its limit.
    rests_until: Option<Instant>,
    over: Option<Result<(), Problem>>,
    trouble: Option<Problem>,
}

impl Service {
    /// Of one generation.
    pub fn new(opened: &Opened, plan: Plan, patience: Duration, limit: Option<u64>) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            opened: opened.clone(),
            patience,
            limit: limit.map(|limit| limit.max(1)),
            total: plan.lazy_bytes,
            tasks: Mutex::new(plan.tasks),
            recorder: Recorder::default(),
            known: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            alarm: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            put: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.notify_all();
        // It is full only when somebody has been told already.
        let _ = self.alarm.write(1);
    }

    /// A process of the tree, by its PID in the checkpoint.
    pub fn add(&self, pid: i32, uffd: OwnedFd) {
        let task = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
        let (image, missing) = task.map_or_else(Default::default, |task| (task.image, task.missing));
        self.state().spaces.push(Space::new(Uffd::new(uffd), image, missing, Some(pid)));
        self.tell();
    }

    /// Everything is where it belongs: the background may begin.
    pub fn begin(&self) {
        self.state().begun = true;
        self.tell();
    }

    /// What was waited for, in this restore and earlier ones.
    pub fn hot(&self) -> Hot {
        self.recorder.before(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends all threads, complete or not.
    pub fn end(&self, how: Result<(), Problem>) {
        self.state().over.get_or_insert(how);
        self.tell();
    }

    /// How it went, when it is over; waits for that at most so long.
    pub fn over_within(&self, time: Duration) -> Option<Result<(), Problem>> {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, time, |state| state.over.is_none());
        waited.map_or_else(|poisoned| poisoned.into_inner().0.over.clone(), |(state, _)| state.over.clone())
    }

    /// What stands in the way at the moment: the workload waits, for nothing else.
    pub fn trouble(&self) -> Option<Problem> {
        self.state().trouble.clone()
    }

    /// Answers faults, and brings the rest beside them if `all`; until all is over.
    pub fn work(&self, all: bool) {
        let mut buffer = Vec::new();
        while let Some(job) = self.next_job(all) {
            match job {
                Job::Fault(space, page) => self.answer(&space, page, &mut buffer),
                Job::Batch(batch) => {
                    self.bring(&batch, &mut buffer);
                    for page in self.is_brought(&batch) {
                        self.answer(&batch.space, page, &mut buffer);
                    }
                }
            }
        }
    }

    fn count(&self, put: Put) {
        match put {
            Put::Done(bytes) if bytes > 0 => {
                self.put.fetch_add(bytes, Ordering::Relaxed);
                self.state().progress = None;
            }
            _ => {}
        }
    }
}

fn system(what: &str, error: &std::io::Error) -> Problem {
    Problem::new(
        Exit::FillFailed,
        format!("cannot {what}: {error}"),
        "the engine is out of descriptors or memory, or the kernel does not support what it promised",
        "the next container restores all memory before the workload runs; report this",
    )
}
