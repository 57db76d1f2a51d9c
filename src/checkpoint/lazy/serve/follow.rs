//! What the kernel tells: faults are put into the queue, changes of memory are followed.

use super::{Service, system};
use crate::checkpoint::lazy::space::Space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::sync::Arc;

impl Service {
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
}
