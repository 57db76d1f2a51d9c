//! Who answers: a thread that follows the address spaces, threads for faults, threads for the rest.

use super::PAGE;
use super::hot::{Hot, Recorder};
use super::missing::Piece;
use super::plan::Plan;
use super::recent::{self, Recent};
use super::space::{Awaited, Put, Space};
use super::uffd::Uffd;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::read::{Opened, ReadError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of an image that the background brings at a time.
const SPAN: u64 = 2 << 20;
/// What a fault brings with it: a chunk or two from a directory; from a server, where a request costs more than bytes, more.
const NEIGHBOURS: u64 = 64 << 10;
const NEIGHBOURS_FAR: u64 = 512 << 10;
/// While a process changes its memory, nothing can be put there: mostly for microseconds.
const CHANGING: Duration = Duration::from_micros(50);
/// A fault in memory that changes for so long is told anew.
const TOLD_ANEW: u32 = 2000;
/// Between attempts at a store that is out of reach.
const AGAIN: Duration = Duration::from_millis(500);
/// When nothing could be put anywhere for so long, although the store answers, something is wrong.
const STUCK: Duration = Duration::from_secs(60);

/// A restore's lazy pages.
#[derive(Debug)]
pub struct Service {
    opened: Opened,
    /// How long a store may be out of reach.
    patience: Duration,
    /// Bytes a second for the background.
    limit: Option<u64>,
    tasks: Mutex<HashMap<i32, super::plan::Task>>,
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
    /// Background batches under way.
    at_work: usize,
    /// Something was put in place since the lap began.
    progress: Option<Instant>,
    /// The background rests until then, to keep its limit.
    rests_until: Option<Instant>,
    over: Option<Result<(), Problem>>,
    trouble: Option<Problem>,
}

enum Job {
    Fault(Arc<Space>, u64),
    Batch(Arc<Space>, Vec<Piece>, Next),
}

/// What will be asked for after a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// What lies behind it.
    Behind,
    /// Something else.
    Elsewhere,
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

    /// Finds out in which order the background is to bring things: what was waited for in earlier restores, then what was
    /// changed lately. While the store is asked, the rest comes in its own order.
    pub fn find_order(&self, recent: Option<&Recent>) {
        let hot = Hot::of(&self.opened);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&hot);
        let Some(spaces) = self.spaces_when_begun() else { return };
        let by_pid = |pid: i32| spaces.iter().find(|space| space.pid == Some(pid)).cloned();
        self.come_first(hot.ranges(SPAN).into_iter().filter_map(|(pid, range)| Some((by_pid(pid)?, range))));
        let Some(recent) = recent else { return };
        let packs = recent.new_packs();
        for space in spaces.iter().filter(|space| !space.image.is_empty()) {
            let parts = recent::changed(&self.opened, &space.image, &packs, || self.state().over.is_some());
            let addresses = space.addresses(&parts).into_iter();
            self.come_first(addresses.map(|range| (Arc::clone(space), range)));
        }
    }

    fn spaces_when_begun(&self) -> Option<Vec<Arc<Space>>> {
        let waiting = |state: &mut State| !state.begun && state.over.is_none();
        let state = self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        state.over.is_none().then(|| state.spaces.clone())
    }

    fn come_first(&self, parts: impl Iterator<Item = (Arc<Space>, Range<u64>)>) {
        self.state().first.extend(parts);
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

    /// Reads what the kernel tells, until all is over.
    pub fn follow(&self) {
        while let Some(spaces) = self.present() {
            let mut fds = vec![PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN)];
            fds.extend(spaces.iter().map(|space| PollFd::new(space.uffd().as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return self.end(Err(system("wait for page faults", &errno.into()))),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            let _ = self.alarm.read();
            for (space, _) in spaces.iter().zip(ready.into_iter().skip(1)).filter(|(_, ready)| *ready) {
                match space.follow() {
                    Ok((faults, children)) => {
                        let mut state = self.state();
                        state.faults.extend(faults.into_iter().map(|page| (Arc::clone(space), page)));
                        state.spaces.extend(children);
                        drop(state);
                        self.changed.notify_all();
                    }
                    // Its table cannot be trusted any more.
                    Err(error) => return self.end(Err(system("follow a process's memory", &error))),
                }
            }
        }
    }

    /// Those that may still tell something. The others are let go: their processes get zeros from the kernel.
    fn present(&self) -> Option<Vec<Arc<Space>>> {
        let mut state = self.state();
        if state.over.is_some() {
            return None;
        }
        if state.begun {
            state.spaces.retain(|space| !space.is_over());
        }
        Some(state.spaces.clone())
    }

    /// Answers faults, and brings the rest beside them if `all`; until all is over.
    pub fn work(&self, all: bool) {
        let mut buffer = Vec::new();
        while let Some(job) = self.next_job(all) {
            match job {
                Job::Fault(space, page) => {
                    self.answer(&space, page, &mut buffer);
                    self.faults.fetch_add(1, Ordering::Relaxed);
                }
                Job::Batch(space, batch, next) => {
                    self.bring(&space, &batch, &mut buffer, next);
                    self.state().at_work -= 1;
                    self.tell();
                }
            }
        }
    }

    fn next_job(&self, all: bool) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.over.is_some() {
                return None;
            }
            if let Some((space, page)) = state.faults.pop_front() {
                return Some(Job::Fault(space, page));
            }
            if let Some(rest) = state.rests_until.and_then(|until| until.checked_duration_since(Instant::now()))
                && all
                && state.begun
            {
                state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if all && state.begun {
                if let Some((space, batch, next)) = next_batch(&mut state) {
                    state.at_work += 1;
                    state.rests_until = self.limit.map(|limit| Instant::now() + rest_after(&batch, limit));
                    return Some(Job::Batch(space, batch, next));
                }
                if state.at_work == 0 {
                    state = self.lap_is_over(state);
                    continue;
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Every batch was brought once. What is left was in motion, and is asked for again.
    fn lap_is_over<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.spaces.iter().all(|space| space.is_over()) {
            state.over = Some(Ok(()));
            drop(state);
            self.tell();
            return self.state();
        }
        let since = *state.progress.get_or_insert_with(Instant::now);
        if since.elapsed() > STUCK {
            state.over = Some(Err(Problem::new(
                Exit::FillFailed,
                "memory of the workload could not be put in place",
                "the kernel has refused it for a minute: the container is out of memory, or revenant has a defect",
                "the next container restores all memory before the workload runs; report this",
            )));
            drop(state);
            self.tell();
            return self.state();
        }
        state.spaces.iter().for_each(|space| space.rewind());
        let pause = Duration::from_millis(2);
        self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
    }

    fn answer(&self, space: &Space, page: u64, buffer: &mut Vec<u8>) {
        let window = if self.opened.is_local() { NEIGHBOURS } else { NEIGHBOURS_FAR };
        for attempt in 0.. {
            let put = match space.awaited(page) {
                Awaited::Answered(put @ (Put::Done(_) | Put::Gone)) => return self.count(put),
                Awaited::Answered(put) => put,
                Awaited::Page(run) => {
                    if let Some(pid) = space.pid.filter(|_| attempt == 0) {
                        self.recorder.waited(pid, page);
                    }
                    let piece = around(run, page, window);
                    if self.load(&space.image, piece.offset, piece.length, buffer, false).is_none() {
                        return;
                    }
                    space.put(piece, buffer)
                }
            };
            self.count(put);
            if matches!(put, Put::Changing | Put::NoMemory) {
                if attempt > TOLD_ANEW {
                    return space.wake(page);
                }
                std::thread::sleep(CHANGING);
            }
            if self.state().over.is_some() {
                return;
            }
        }
    }

    fn bring(&self, space: &Space, batch: &[Piece], buffer: &mut Vec<u8>, next: Next) {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return };
        if self
            .load(&space.image, first.offset, last.image_end() - first.offset, buffer, next == Next::Behind)
            .is_none()
        {
            return;
        }
        for piece in batch {
            let narrow = |offset: u64| usize::try_from(offset - first.offset).unwrap_or(usize::MAX);
            let bytes = buffer.get(narrow(piece.offset)..narrow(piece.image_end())).unwrap_or_default();
            let put = space.put(*piece, bytes);
            self.count(put);
            if put == Put::Gone {
                return;
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

    /// Reads a part of an image, however long the store takes for it. None when all is over.
    fn load(&self, image: &str, offset: u64, length: u64, buffer: &mut Vec<u8>, on: bool) -> Option<()> {
        buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        let mut since = None;
        loop {
            let read = if on {
                self.opened.read_on(image, offset, buffer)
            } else {
                self.opened.read_at(image, offset, buffer)
            };
            let problem = match read {
                Ok(read) if read == buffer.len() => {
                    if since.is_some() {
                        let mut state = self.state();
                        (state.trouble, state.progress) = (None, None);
                    }
                    return Some(());
                }
                Ok(_) => {
                    let problem = ReadError::NoSuchImage(image.to_owned()).explain();
                    self.end(Err(fatal(problem)));
                    return None;
                }
                Err(error) => {
                    let problem = error.explain();
                    let passing = problem.passing || matches!(error, ReadError::Aborted);
                    if !passing || since.get_or_insert_with(Instant::now).elapsed() > self.patience {
                        self.end(Err(fatal(problem)));
                        return None;
                    }
                    problem
                }
            };
            let mut state = self.state();
            if state.over.is_some() {
                return None;
            }
            state.trouble = Some(problem);
            state.progress = None;
            drop(state);
            std::thread::sleep(AGAIN);
        }
    }
}

/// What the background brings next: what is to come first, or else what follows in the order of the memory.
fn next_batch(state: &mut State) -> Option<(Arc<Space>, Vec<Piece>, Next)> {
    while let Some((space, range)) = state.first.pop_front() {
        let batch = space.batch_of(&range, SPAN);
        if let Some(last) = batch.last() {
            let end = last.address + last.length;
            if end < range.end {
                state.first.push_front((Arc::clone(&space), end..range.end));
            }
            return Some((space, batch, Next::Elsewhere));
        }
    }
    state.spaces.iter().find_map(|space| Some((Arc::clone(space), space.next_batch(SPAN)?, Next::Behind)))
}

/// How long a batch may take at this many bytes a second.
fn rest_after(batch: &[Piece], limit: u64) -> Duration {
    let bytes: u64 = batch.iter().map(|piece| piece.length).sum();
    Duration::from_micros(bytes.saturating_mul(1_000_000) / limit)
}

/// The part of a run that is brought for one of its pages.
fn around(run: Piece, page: u64, window: u64) -> Piece {
    let at = run.offset + (page - run.address);
    let start = (at / window * window).max(run.offset);
    let end = (at / window * window + window).min(run.image_end()).max(at + PAGE);
    Piece { address: run.address + (start - run.offset), length: end - start, offset: start }
}

fn fatal(problem: Problem) -> Problem {
    Problem {
        what: format!("the rest of the workload's memory could not be brought: {}", problem.what),
        exit: Exit::FillFailed.code(),
        ..problem
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_brings_its_neighbours_of_the_same_run() {
        let run = Piece { address: 0x10_0000, length: 0x20_0000, offset: 0x3000 };
        let near = around(run, 0x10_0000, 0x10000);
        assert_eq!(near, Piece { address: 0x10_0000, length: 0xd000, offset: 0x3000 });
        let inside = around(run, 0x10_e000, 0x10000);
        assert_eq!(inside, Piece { address: 0x10_d000, length: 0x10000, offset: 0x10000 });
        let last = around(run, 0x2f_f000, 0x10000);
        assert_eq!(last, Piece { address: 0x2f_d000, length: 0x3000, offset: 0x20_0000 });
    }
}
