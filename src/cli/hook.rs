//! `revenant hook`, started by PID 1: becomes the program of a hook.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The program and its argv.
#[derive(Debug, Clone, clap::Args)]
pub struct HookOptions {
    /// Path of the program, then argv[0] and the arguments
    #[arg(last = true, required = true)]
    words: Vec<OsString>,
}

/// Comes back only when it fails.
pub fn run(options: &HookOptions) -> ExitCode {
    let [program, name, arguments @ ..] = options.words.as_slice() else { return ExitCode::from(127) };
    let error = Command::new(program).arg0(name).args(arguments).exec();
    tracing::warn!(%error, "{}: {error}", program.display());
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}
