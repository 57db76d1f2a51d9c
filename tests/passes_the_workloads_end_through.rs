//! The container ends exactly as the workload did.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod entrypoint;

use entrypoint::{as_pid_1, not_as_pid_1, outcome};

#[test]
fn an_exit_code() {
    let quiet = ["--log-level", "warn"];
    assert_eq!(outcome(as_pid_1(&quiet, "echo out; echo err >&2; exit 7")), (7, "out\n".into(), "err\n".into()));
    assert_eq!(outcome(as_pid_1(&quiet, "exit 0")), (0, String::new(), String::new()));
}

#[test]
fn death_by_a_signal() {
    let (code, _, said) = outcome(as_pid_1(&[], "kill -SEGV $$"));
    assert_eq!(code, 139);
    assert!(said.contains("SIGSEGV"), "{said}");
    assert_eq!(outcome(as_pid_1(&[], "kill -KILL $$")).0, 137);
}

#[test]
fn the_same_when_revenant_is_not_pid_1() {
    assert_eq!(outcome(not_as_pid_1(&[], "exit 7")).0, 7);
    assert_eq!(outcome(not_as_pid_1(&[], "kill -SEGV $$")).0, 139);
}

#[test]
fn a_missing_interpreter_and_a_wrong_format_as_shells_do() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [("#!/no/such/interpreter\n", 127), ("neither script nor program\n", 126)] {
        let path = folder.path().join("tool");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_revenant"));
        command
            .args(["run", "--store", "none", "--"])
            .arg(&path)
            .env("REVENANT_RUNTIME_DIR", folder.path().join("run"));
        let (code, _, said) = outcome(command);
        assert_eq!(code, expected, "{said}");
        assert!(said.contains("cannot execute"), "{said}");
    }
}
