//! Finished packs on their way to the store: a bounded number of buffers, a bounded number of
//! uploads, and the spool for what neither holds.

use super::Spool;
use super::engine::Engine;
use super::error::SaveError;
use super::spool::{self, SpoolFile, Spooled};
use crate::failpoint;
use crate::repository::crypto::ObjectId;
use crate::repository::layout;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Uploads {
    shared: Arc<Shared>,
    spool: Option<File>,
    most_in_flight: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// True once the save has failed: ends uploads at once.
    closed: tokio::sync::watch::Sender<bool>,
    limit: usize,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    buffers: Vec<Vec<u8>>,
    outstanding: usize,
    in_flight: usize,
    spool: Option<SpoolFile>,
    spooled: VecDeque<Spooled>,
    closed: bool,
}

/// Bytes of a pack under way. The buffer is reused when the last reference to them is gone; its
/// place is free as soon as the upload has ended, because a store may keep the bytes (one in memory does).
struct Lent {
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.shared.lock().buffers.push(std::mem::take(&mut self.buffer));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One pack less is in memory.
    fn release(&self) {
        let mut state = self.lock();
        state.outstanding = state.outstanding.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }
}

impl Uploads {
    pub fn new(
        buffers: usize,
        capacity: usize,
        most_in_flight: usize,
        spool: Option<&Spool>,
    ) -> Result<Self, SaveError> {
        let failed = |error| SaveError::system("make a file in the spool directory", error);
        let spool =
            spool.map(|spool| SpoolFile::create(&spool.dir, spool.limit, capacity)).transpose().map_err(failed)?;
        let file = spool.as_ref().map(SpoolFile::handle).transpose().map_err(failed)?;
        let state =
            State { buffers: Vec::new(), outstanding: 0, in_flight: 0, spool, spooled: VecDeque::new(), closed: false };
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
                closed: tokio::sync::watch::Sender::new(false),
                limit: buffers,
                capacity,
            }),
            spool: file,
            most_in_flight,
        })
    }

    /// A buffer for a pack, waiting until one is free; none when the save has failed.
    pub fn buffer(&self) -> Option<Vec<u8>> {
        let shared = &self.shared;
        let mut state = shared.lock();
        while state.outstanding >= shared.limit && !state.closed {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.outstanding += 1;
        let buffer = state.buffers.pop();
        drop(state);
        Some(buffer.unwrap_or_else(|| Vec::with_capacity(shared.capacity)))
    }

    /// Wakes everybody and ends all uploads.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.closed.send_replace(true);
        self.shared.changed.notify_all();
    }

    /// Waits until everything is durable; none when the save has failed.
    pub fn wait_empty(&self) -> Option<()> {
        let mut state = self.shared.lock();
        while !state.closed && (state.in_flight > 0 || !state.spooled.is_empty()) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed { None } else { Some(()) }
    }

    /// The next pack of the spool, read into a buffer; or one upload less is under way.
    fn next(&self) -> Result<Option<(ObjectId, Vec<u8>)>, SaveError> {
        let (spooled, buffer) = {
            let mut state = self.shared.lock();
            let Some(spooled) = state.spooled.pop_front() else {
                state.in_flight -= 1;
                drop(state);
                self.shared.changed.notify_all();
                return Ok(None);
            };
            state.outstanding += 1;
            (spooled, state.buffers.pop())
        };
        let mut buffer = buffer.unwrap_or_default();
        let file = self.spool.as_ref().ok_or(SaveError::Internal("a spooled pack without a spool"))?;
        spool::read(file, &spooled, &mut buffer).map_err(|error| SaveError::system("read the spool", error))?;
        let mut state = self.shared.lock();
        if let Some(spool) = &mut state.spool {
            spool.release(spooled.offset);
        }
        drop(state);
        self.shared.changed.notify_all();
        Ok(Some((spooled.id, buffer)))
    }
}

/// Sends a finished pack on its way: an upload if one may start, else the spool if it has room,
/// else waits for either.
pub(super) fn submit(engine: &Arc<Engine>, id: ObjectId, bytes: Vec<u8>) -> Result<(), SaveError> {
    let uploads = &engine.uploads;
    loop {
        let Some(offset) = place(engine, bytes.len())? else {
            engine.runtime.spawn(upload(Arc::clone(engine), id, bytes));
            return Ok(());
        };
        let file = uploads.spool.as_ref().ok_or(SaveError::Internal("a place in no spool"))?;
        match spool::write(file, offset, &bytes) {
            Ok(()) => {
                spooled(engine, Spooled { id, offset, length: bytes.len() }, bytes);
                return Ok(());
            }
            Err(error) => {
                // Others write to that disk too: from now on the spool is what it has already become.
                tracing::warn!(%error, "the spool can take no more ({error}); this save waits for the store instead");
                if let Some(spool) = &mut uploads.shared.lock().spool {
                    spool.stop_growing();
                }
            }
        }
    }
}

/// Where a pack goes: into an upload (none), or to this place of the spool.
fn place(engine: &Engine, length: usize) -> Result<Option<u64>, SaveError> {
    let uploads = &engine.uploads;
    let mut waited = false;
    let backlog = engine.has_backlog();
    let mut state = uploads.shared.lock();
    loop {
        if state.closed {
            return Err(engine.failure());
        }
        if state.in_flight < uploads.most_in_flight {
            if !waited && state.in_flight == 0 {
                engine.pace.link_is_idle(backlog);
            }
            state.in_flight += 1;
            return Ok(None);
        }
        if let Some(place) = state.spool.as_mut().and_then(|spool| spool.reserve(length)) {
            return Ok(Some(place));
        }
        if !waited {
            waited = true;
            engine.pace.link_is_behind();
        }
        state = uploads.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// A pack lies in the spool: its buffer is free, and an upload may fetch it.
fn spooled(engine: &Arc<Engine>, spooled: Spooled, buffer: Vec<u8>) {
    let uploads = &engine.uploads;
    failpoint!("save.pack.spooled");
    uploads.shared.lock().buffers.push(buffer);
    uploads.shared.release();
    let mut state = uploads.shared.lock();
    state.spooled.push_back(spooled);
    // Uploads may all have ended since.
    if state.in_flight < uploads.most_in_flight {
        state.in_flight += 1;
        drop(state);
        engine.runtime.spawn(drain(Arc::clone(engine)));
    }
}

/// Uploads one pack, then what the spool holds.
async fn upload(engine: Arc<Engine>, id: ObjectId, bytes: Vec<u8>) {
    if put(&engine, id, bytes).await {
        drain(engine).await;
    }
}

/// Uploads what the spool holds until it is empty.
async fn drain(engine: Arc<Engine>) {
    loop {
        let reader = Arc::clone(&engine);
        match engine.runtime.spawn_blocking(move || reader.uploads.next()).await {
            Ok(Ok(Some((id, bytes)))) => {
                if !put(&engine, id, bytes).await {
                    return;
                }
            }
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                engine.fail(error);
                return;
            }
            Err(_) => {
                engine.fail(SaveError::Internal("an upload was interrupted"));
                return;
            }
        }
    }
}

/// Puts one pack into the store. A failure fails the save.
async fn put(engine: &Arc<Engine>, id: ObjectId, buffer: Vec<u8>) -> bool {
    let length = buffer.len() as u64;
    let shared = Arc::clone(&engine.uploads.shared);
    let mut closed = shared.closed.subscribe();
    let bytes = Bytes::from_owner(Lent { buffer, shared: Arc::clone(&shared) });
    let key = layout::pack(&id);
    let started = Instant::now();
    let result = tokio::select! {
        result = engine.repository.store.put_new(&key, bytes) => result,
        _ = closed.wait_for(|closed| *closed) => return false,
    };
    shared.release();
    // "Already exists" is an earlier try of this very put whose answer was lost: the name is random.
    match result {
        Ok(_) => {
            failpoint!("save.pack.uploaded");
            engine.pace.uploaded(length, started.elapsed());
            engine.counters.uploaded.fetch_add(length, Ordering::Relaxed);
            true
        }
        Err(error) => {
            engine.fail(error.into());
            false
        }
    }
}
