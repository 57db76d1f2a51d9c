//! `revenant engine`: one request of PID 1, then the end.

use std::process::ExitCode;

/// Serves the request on stdin.
pub fn run() -> ExitCode {
    crate::checkpoint::engine::run()
}
