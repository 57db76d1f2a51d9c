//! What is known about CRIU's errors: one entry each, with its log line.

mod both;
mod dump;
mod restore;

use super::Operation;
use crate::exit::Exit;

/// One known error.
#[derive(Debug)]
pub struct Explanation {
    /// Stable name.
    pub id: &'static str,
    /// The operation in which it occurs; none: both.
    pub operation: Option<Operation>,
    /// What its log line contains; `{name}` captures.
    pub pattern: &'static str,
    /// What failed, as the continuation of "the workload could not be …:". May use captures.
    pub what: &'static str,
    /// Why.
    pub cause: &'static str,
    /// What to do.
    pub next: &'static str,
    /// The exit code, where it is not the operation's usual one.
    pub exit: Option<Exit>,
    /// A line of a log that a real failure has left (4.2.1 unless the entry is about an older one).
    pub example: &'static str,
}

/// All entries, the most specific and causal first.
pub(super) fn entries() -> impl Iterator<Item = &'static Explanation> {
    both::ENTRIES.iter().chain(dump::ENTRIES).chain(restore::ENTRIES)
}
