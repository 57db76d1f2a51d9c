//! `revenant watch`, started by PID 1.

use std::process::ExitCode;

/// Listens until its stdin ends.
pub fn run() -> ExitCode {
    match crate::trigger::outside::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::warn!(%error, "cloud and cluster are not watched: {error}");
            ExitCode::FAILURE
        }
    }
}
