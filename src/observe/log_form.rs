//! How this process logs, so that the processes that it starts log in the same way.

use std::sync::OnceLock;

static FORM: OnceLock<(&str, &str)> = OnceLock::new();

/// This process logs in this format, from this level on.
pub fn remember(format: &'static str, level: &'static str) {
    let _ = FORM.set((format, level));
}

/// The variables that make another revenant log so.
pub fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    FORM.get()
        .into_iter()
        .flat_map(|(format, level)| [("REVENANT_LOG_FORMAT", *format), ("REVENANT_LOG_LEVEL", *level)])
}
