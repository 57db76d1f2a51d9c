//! The `revenant` binary: everything happens in the library.

fn main() -> std::process::ExitCode {
    // CRIU runs this same program as its action script.
    revenant::criu::hook::run_as_script().unwrap_or_else(revenant::cli::main)
}
