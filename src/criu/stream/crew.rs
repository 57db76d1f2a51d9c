//! The threads that carry bulky images, and how they wake the loop that started them.

use super::error::StreamError;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

/// Threads within a scope. Its descriptor is readable when one of them has ended.
pub(super) struct Crew<'scope, 'env, E> {
    scope: &'scope Scope<'scope, 'env>,
    bell: Arc<EventFd>,
    done: Sender<Result<(), E>>,
    results: Receiver<Result<(), E>>,
    busy: usize,
}

/// Reports the end of a thread, also when it panics.
struct Report<E: From<StreamError>> {
    result: Option<Result<(), E>>,
    done: Sender<Result<(), E>>,
    bell: Arc<EventFd>,
}

impl<'scope, 'env, E: From<StreamError> + Send + 'scope> Crew<'scope, 'env, E> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>) -> Result<Self, StreamError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_value_and_flags(0, flags).map_err(StreamError::sys("making an eventfd"))?;
        let (done, results) = channel();
        Ok(Self { scope, bell: Arc::new(bell), done, results, busy: 0 })
    }

    pub(super) fn start(&mut self, work: impl FnOnce() -> Result<(), E> + Send + 'scope) -> Result<(), StreamError> {
        let report = Report { result: None, done: self.done.clone(), bell: self.bell.clone() };
        std::thread::Builder::new()
            .name("image".into())
            .spawn_scoped(self.scope, move || report.of(work))
            .map_err(StreamError::io("starting a thread"))?;
        self.busy += 1;
        Ok(())
    }

    /// How many have not been collected yet.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Takes notice of those that have ended, without blocking.
    pub(super) fn collect(&mut self) -> Result<(), E> {
        // EAGAIN says that the bell has not rung.
        let _ = self.bell.read();
        while let Ok(result) = self.results.try_recv() {
            self.busy -= 1;
            result?;
        }
        Ok(())
    }

    /// Waits for all.
    pub(super) fn finish(mut self) -> Result<(), E> {
        while self.busy > 0 {
            let Ok(result) = self.results.recv() else { break };
            self.busy -= 1;
            result?;
        }
        Ok(())
    }
}

impl<E> AsFd for Crew<'_, '_, E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl<E: From<StreamError>> Report<E> {
    fn of(mut self, work: impl FnOnce() -> Result<(), E>) {
        self.result = Some(work());
    }
}

impl<E: From<StreamError>> Drop for Report<E> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(StreamError::Panicked.into()));
        // Nobody listens any more when the loop has failed for another reason.
        let _ = self.done.send(result);
        // The counter can only be full when the loop has been woken already.
        let _ = self.bell.write(1);
    }
}
