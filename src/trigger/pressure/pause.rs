//! A pause that wakes the process up once.
//!
//! The runtime's own timers lie in a wheel of several levels, and one of some seconds wakes the process up at every
//! level that it comes down. That is nothing for most programs, and most of what PID 1 does while all is well.
#![allow(unsafe_code)] // Watching a descriptor by its number.

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One of the kernel's timers; the runtime's where there is none.
#[derive(Debug)]
pub struct Pause(Option<AsyncFd<OwnedFd>>);

impl Pause {
    /// To be called inside the runtime.
    pub fn of_the_kernel() -> Self {
        Self(Self::timer().ok())
    }

    fn timer() -> io::Result<AsyncFd<OwnedFd>> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: the timer owns its descriptor and keeps it open until it is dropped with the AsyncFd.
        unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }.map_err(Into::into)
    }

    /// Returns after this long.
    pub async fn of(&mut self, long: Duration) {
        if let Some(timer) = &self.0
            && begin(timer, long).is_ok()
            && over(timer).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(long).await;
    }
}

/// Also ends what an earlier, abandoned pause has left to be read.
fn begin(timer: &AsyncFd<OwnedFd>, long: Duration) -> Result<(), Errno> {
    let seconds = i64::try_from(long.as_secs()).unwrap_or(i64::MAX);
    // All zeros would mean never.
    let nanoseconds = i64::from(long.subsec_nanos()).max(1);
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).map(drop)
}

async fn over(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = timer.readable().await?;
        // Nothing to read: what made it readable was the pause before.
        let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0_u8; 8])?));
        if let Ok(read) = read {
            return read.map(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn lasts_as_long_as_asked_also_after_one_that_was_abandoned() {
        let mut pause = Pause::of_the_kernel();
        assert!(pause.0.is_some());
        let abandoned = tokio::time::timeout(Duration::from_millis(1), pause.of(Duration::from_secs(3600))).await;
        assert!(abandoned.is_err());
        pause.of(Duration::ZERO).await;
        let begun = Instant::now();
        let waiting = pause.of(Duration::from_millis(30));
        drop(tokio::time::timeout(Duration::from_millis(1), waiting).await);
        std::thread::sleep(Duration::from_millis(60));
        // The one before is over by now, unread.
        pause.of(Duration::from_millis(50)).await;
        assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    }
}
