//! What the user has done around saves and restores: a program that is run, or a signal to the command.
//!
//! A hook can help (flush, pause, notify) and never harm: its failure or silence does not cost the save.

pub mod facts;
pub mod process;
pub mod reaction;

use crate::workload::command::Command;
use nix::sys::signal::Signal;
use std::fmt;
use std::time::Duration;

/// When a hook has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// Before a save begins; the workload runs.
    BeforeSave,
    /// After a save is durable or has failed.
    AfterSave,
    /// After the workload runs again from a checkpoint.
    AfterRestore,
}

impl Moment {
    /// As the option and the metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeSave => "before-save",
            Self::AfterSave => "after-save",
            Self::AfterRestore => "after-restore",
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// This program runs, beside the workload's tree.
    Program(Command),
    /// The command gets this signal, if it handles it.
    Signal {
        /// Which.
        signal: Signal,
        /// How long the save waits for what the command does about it.
        pause: Duration,
    },
}

/// All that the user has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    /// See [`Moment::BeforeSave`].
    pub before_save: Option<Hook>,
    /// See [`Moment::AfterSave`].
    pub after_save: Option<Hook>,
    /// See [`Moment::AfterRestore`].
    pub after_restore: Option<Hook>,
    /// The longest that one may take.
    pub timeout: Duration,
}

impl Hooks {
    /// What is to be done at this moment.
    pub fn at(&self, moment: Moment) -> Option<&Hook> {
        match moment {
            Moment::BeforeSave => self.before_save.as_ref(),
            Moment::AfterSave => self.after_save.as_ref(),
            Moment::AfterRestore => self.after_restore.as_ref(),
        }
    }
}

/// How long the hook before a save may take, when the save itself is likely to take `expected` of the `left` time.
/// None when there is no time for a hook.
pub fn time_before_save(timeout: Duration, left: Option<Duration>, expected: Duration) -> Option<Duration> {
    let limit = left.map_or(timeout, |left| timeout.min(left.saturating_sub(expected) / 2));
    (limit >= SHORTEST).then_some(limit)
}

/// With less time than this a program would be killed before it has begun.
const SHORTEST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_never_takes_the_time_that_the_save_needs() {
        let seconds = Duration::from_secs;
        let time = |left: Option<u64>, expected| time_before_save(seconds(10), left.map(seconds), seconds(expected));
        assert_eq!(time(None, 3600), Some(seconds(10)));
        assert_eq!(time(Some(27), 1), Some(seconds(10)));
        assert_eq!(time(Some(27), 21), Some(seconds(3)));
        assert_eq!(time(Some(27), 27), None);
        assert_eq!(time(Some(0), 1), None);
    }
}
