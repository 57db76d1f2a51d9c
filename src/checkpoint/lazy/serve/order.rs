//! What is done next: faults, what comes first, the rest in the order of the memory, and what was in motion once more.

use super::{Service, State};
use crate::checkpoint::lazy::hot::Hot;
use crate::checkpoint::lazy::missing::Piece;
use crate::checkpoint::lazy::recent::{self, Recent};
use crate::checkpoint::lazy::space::Space;
use crate::exit::Exit;
use crate::explain::Problem;
use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of an image that the background brings at a time.
const SPAN: u64 = 2 << 20;
/// When nothing could be put anywhere for so long, although the store answers, something is wrong.
const STUCK: Duration = Duration::from_secs(60);

/// What a thread does next.
pub(super) enum Job {
    Fault(Arc<Space>, u64),
    Batch(Batch),
}

/// Pieces of one image that are brought together.
pub(super) struct Batch {
    number: u64,
    pub space: Arc<Space>,
    pub pieces: Arc<[Piece]>,
    pub next: Next,
}

/// A batch that some thread brings.
#[derive(Debug)]
pub(super) struct UnderWay {
    number: u64,
    space: Arc<Space>,
    pieces: Arc<[Piece]>,
    /// Pages that threads wait for meanwhile.
    awaited: Vec<u64>,
}

/// What will be asked for after a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// What lies behind it.
    Behind,
    /// Something else.
    Elsewhere,
}

impl Service {
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

    pub(super) fn next_job(&self, all: bool) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.over.is_some() {
                return None;
            }
            if let Some((space, page)) = state.faults.pop_front() {
                if self.comes_anyway(&mut state, &space, page) {
                    continue;
                }
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
                if let Some((space, pieces, next)) = next_batch(&mut state) {
                    state.rests_until = self.limit.map(|limit| Instant::now() + rest_after(&pieces, limit));
                    return Some(Job::Batch(set_out(&mut state, space, pieces, next)));
                }
                if state.under_way.is_empty() {
                    state = self.lap_is_over(state);
                    continue;
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a page is on its way already: from a server, to ask for it once more takes as long as to wait. Whoever walks
    /// through memory in order would always be where the background is, and fetch all of it twice.
    fn comes_anyway(&self, state: &mut State, space: &Arc<Space>, page: u64) -> bool {
        let holds = |piece: &Piece| (piece.address..piece.address + piece.length).contains(&page);
        let brings = |batch: &&mut UnderWay| Arc::ptr_eq(&batch.space, space) && batch.pieces.iter().any(holds);
        let Some(batch) = state.under_way.iter_mut().find(brings).filter(|_| !self.opened.is_local()) else {
            return false;
        };
        batch.awaited.push(page);
        if let Some(pid) = space.pid {
            self.recorder.waited(pid, page);
        }
        true
    }

    /// A batch is where it belongs, or could not be put there. Returns what was waited for in it, for another look.
    pub(super) fn is_brought(&self, batch: &Batch) -> Vec<u64> {
        let mut state = self.state();
        let at = state.under_way.iter().position(|other| other.number == batch.number);
        let awaited = at.map(|at| state.under_way.swap_remove(at).awaited);
        drop(state);
        self.tell();
        awaited.unwrap_or_default()
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

fn set_out(state: &mut State, space: Arc<Space>, pieces: Vec<Piece>, next: Next) -> Batch {
    state.batches += 1;
    let (number, pieces) = (state.batches, Arc::from(pieces));
    let under_way = UnderWay { number, space: Arc::clone(&space), pieces: Arc::clone(&pieces), awaited: Vec::new() };
    state.under_way.push(under_way);
    Batch { number, space, pieces, next }
}

/// How long a batch may take at this many bytes a second.
fn rest_after(batch: &[Piece], limit: u64) -> Duration {
    let bytes: u64 = batch.iter().map(|piece| piece.length).sum();
    Duration::from_micros(bytes.saturating_mul(1_000_000) / limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::lazy::PAGE;
    use crate::checkpoint::lazy::fixture::{IMAGE, Job as Saved};
    use crate::checkpoint::lazy::missing::Missing;
    use crate::checkpoint::lazy::plan::Plan;
    use crate::checkpoint::lazy::uffd::Uffd;
    use std::fs::File;

    fn space(missing: &[Piece]) -> Arc<Space> {
        let mut table = Missing::default();
        for piece in missing {
            table.add(*piece);
        }
        Space::new(Uffd::new(File::open("/dev/null").unwrap().into()), IMAGE.into(), table, Some(300))
    }

    #[test]
    fn a_page_that_is_on_its_way_from_a_server_is_looked_at_when_it_is_there() {
        let mut saved = Saved::new();
        saved.save(&[]);
        let service = Service::new(&saved.saved[0].1, Plan::default(), Duration::ZERO, None).unwrap();
        let (near, far) = (space(&[Piece { address: 0, length: 8 * PAGE, offset: 0 }]), space(&[]));
        service.state().spaces.push(Arc::clone(&near));
        service.begin();
        let Some(Job::Batch(batch)) = service.next_job(true) else { panic!("nothing to bring") };
        let comes = |space: &Arc<Space>, page: u64| service.comes_anyway(&mut service.state(), space, page * PAGE);
        assert!(comes(&near, 3) && comes(&near, 7));
        assert!(!comes(&near, 8), "behind the batch");
        assert!(!comes(&far, 3), "of another process");
        assert_eq!(service.is_brought(&batch), [3 * PAGE, 7 * PAGE]);
        assert!(!comes(&near, 3), "nobody brings it any more");
        assert!(service.is_brought(&batch).is_empty());
        assert_ne!(service.hot(), Hot::default(), "it was waited for");
    }
}
