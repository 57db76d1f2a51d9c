//! Signals as a stream, without handlers and without a moment in which one could be lost.
//!
//! The kernel throws a signal for PID 1 away while PID 1 neither handles nor blocks it. So `main`
//! blocks all of them first, and they are read from a signalfd from then on; those that come earlier wait there.
#![allow(unsafe_code)] // Watching a descriptor by its number.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A defect of our own: must keep killing us.
const FAULTS: [Signal; 6] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT, Signal::SIGTRAP];

/// Blocks all signals but those of our own faults; returns the mask as it was.
pub fn block() -> SigSet {
    let mut before = SigSet::empty();
    // Cannot fail with a valid `how`.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all()), Some(&mut before));
    before
}

/// Puts the mask back, for subcommands that are ordinary programs.
pub fn restore(before: &SigSet) {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(before), None);
}

/// The mask of an ordinary program.
pub fn none() -> SigSet {
    SigSet::empty()
}

fn all() -> SigSet {
    let mut set = SigSet::all();
    for fault in FAULTS {
        set.remove(fault);
    }
    set
}

/// The signals that have come.
#[derive(Debug)]
pub struct Signals(AsyncFd<SignalFd>);

impl Signals {
    /// Of this process; they must be blocked already. To be called inside the runtime.
    pub fn listen() -> io::Result<Self> {
        let fd = SignalFd::with_flags(&all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: the signalfd owns its descriptor and keeps it open until it is dropped with the AsyncFd.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// The next signal. Real-time signals and other unnamed ones are left out.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            let number = self
                .0
                .async_io(Interest::READABLE, |fd| match fd.read_signal()? {
                    Some(info) => Ok(info.ssi_signo),
                    None => Err(io::ErrorKind::WouldBlock.into()),
                })
                .await?;
            if let Some(signal) = i32::try_from(number).ok().and_then(|n| Signal::try_from(n).ok()) {
                return Ok(signal);
            }
        }
    }
}
