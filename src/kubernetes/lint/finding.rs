//! What a rule has found.

use serde::Serialize;

/// How bad it is, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Danger {
    /// Worth knowing.
    Advice,
    /// Costs hours, or makes an end likelier.
    Costly,
    /// The job's work will be lost, or cannot be saved at all.
    Fatal,
}

impl Danger {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Advice => "advice",
            Self::Costly => "costly",
            Self::Fatal => "fatal",
        }
    }
}

/// One thing to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's stable name.
    pub rule: &'static str,
    /// How bad it is.
    pub danger: Danger,
    /// The file.
    pub file: String,
    /// The line on which the document begins.
    pub line: usize,
    /// Kind and name of the workload, for example `Job/assembly`.
    pub workload: String,
    /// The field, as a path in the document.
    pub field: String,
    /// What is there, in a sentence.
    pub what: String,
    /// What it leads to.
    pub why: String,
    /// What to write instead.
    pub fix: String,
}
