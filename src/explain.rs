//! A failure as it is told to a person: what failed, the likely cause, the next step.

use crate::exit::Exit;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a person reads when something fails. Fits on one screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What failed, as one sentence without a full stop.
    pub what: String,
    /// The likely cause.
    pub cause: String,
    /// What to do next.
    pub next: String,
    /// The exit code that goes with it.
    pub exit: u8,
    /// It may pass by itself (a network, a server that restarts): worth trying again.
    #[serde(default)]
    pub passing: bool,
}

impl Problem {
    /// A problem with all of its parts.
    pub fn new(exit: Exit, what: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), cause: cause.into(), next: next.into(), exit: exit.code(), passing: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        if !self.cause.is_empty() {
            writeln!(f, "  why:  {}", self.cause)?;
        }
        write!(f, "  next: {}", self.next)
    }
}

impl std::error::Error for Problem {}

/// Errors that people can see know how to explain themselves.
pub trait Explain {
    /// The error as a person should read it.
    fn explain(&self) -> Problem;
}

impl Explain for Problem {
    fn explain(&self) -> Problem {
        self.clone()
    }
}
