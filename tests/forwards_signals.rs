//! Signals to the entrypoint reach the command.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod entrypoint;

use entrypoint::{as_pid_1, code, entrypoint as entrypoint_pid, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// Says that it is ready, then writes down each signal and ends at USR2.
const LISTENER: &str = r#"
for s in HUP INT QUIT TERM ALRM; do trap "echo $s >> $0" $s; done
trap "echo USR2 >> $0; exit 9" USR2
echo ready >> $0
while :; do sleep 0.02; done
"#;

#[test]
fn all_that_are_not_revenants_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("heard");
    let heard = |word: &str| {
        until(|| fs::read_to_string(&file).is_ok_and(|text| text.lines().any(|line| line == word)).then_some(()));
    };
    let mut unshare = as_pid_1(&[], LISTENER).arg(&file).spawn().unwrap();
    let entrypoint = Pid::from_raw(entrypoint_pid(&unshare));
    heard("ready");
    for (signal, word) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGALRM, "ALRM"),
        (Signal::SIGUSR2, "USR2"),
    ] {
        kill(entrypoint, signal).unwrap();
        heard(word);
    }
    assert_eq!(code(unshare.wait().unwrap()), 9);
}

#[test]
fn those_that_are_revenants_own_too_when_there_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("heard");
    let script = r#"trap 'echo bye > "$0"; exit 5' TERM; trap 'echo used > "$0"' USR1
        echo ready > "$0"; while :; do sleep 0.02; done"#;
    let mut unshare = as_pid_1(&[], script).arg(&file).spawn().unwrap();
    let entrypoint = Pid::from_raw(entrypoint_pid(&unshare));
    let says = |word: &str| until(|| fs::read_to_string(&file).is_ok_and(|text| text == word).then_some(()));
    says("ready\n");
    kill(entrypoint, Signal::SIGUSR1).unwrap();
    says("used\n");
    kill(entrypoint, Signal::SIGTERM).unwrap();
    assert_eq!(code(unshare.wait().unwrap()), 5, "a plain init: the workload's own code");
    assert_eq!(fs::read_to_string(&file).unwrap(), "bye\n");
}
