//! Reading from a store that may be out of reach for a while.

use super::Service;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::read::ReadError;
use std::time::{Duration, Instant};

/// Between attempts at a store that is out of reach.
const AGAIN: Duration = Duration::from_millis(500);

impl Service {
    /// Reads a part of an image, however long the store takes for it. None when all is over.
    pub(super) fn load(&self, image: &str, offset: u64, length: u64, buffer: &mut Vec<u8>, on: bool) -> Option<()> {
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

fn fatal(problem: Problem) -> Problem {
    Problem {
        what: format!("the rest of the workload's memory could not be brought: {}", problem.what),
        exit: Exit::FillFailed.code(),
        ..problem
    }
}
