//! A CRIU that hangs in the middle of a restore is ended; the generation is named, and the one before it continues.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks};

/// Stops itself in the middle of its first restore: when its log says that it makes processes.
const CRIU: &str = r#"#!/bin/bash
criu=/opt/revenant/criu
case "$*" in
*restore*)
    if mkdir /marks/hung 2>/dev/null; then
        me=$$
        (while ! grep -q Forking /run/revenant/criu-restore/restore.log 2>/dev/null; do :; done
            kill -STOP $me; touch /marks/hung/stopped) >/dev/null 2>&1 &
    fi ;;
esac
exec $criu/ld-linux-x86-64.so.2 --library-path $criu $criu/criu "$@"
"#;

#[test]
fn and_the_one_before_it_continues() {
    let store = Store::local();
    let job =
        || Container::of("hangs").store(&store).env("REVENANT_LEASE", "1s").workload("counter.py", &["--mib", "64"]);
    let first = job().start();
    first.wait_for_line("tick 3 ");
    let saved = first.exec(&["revenant", "checkpoint"]);
    assert_eq!(saved.code, 0, "{}", saved.stderr);
    let before = Ticks::of(&first.stdout_lines()).last();
    first.wait_for_line(&format!("tick {} ", before + 3));
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.report());

    let (folder, marks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let criu = folder.path().join("criu");
    std::fs::write(&criu, CRIU).unwrap();
    std::fs::set_permissions(&criu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let second = job()
        .mount_read_only(&criu, "/opt/hangs")
        .mount(marks.path(), "/marks")
        .env("REVENANT_CRIU", "/opt/hangs")
        .env("REVENANT_RESTORE_STALL", "3s")
        .start();
    second.wait_for_stderr_line("generation 1-2 was not restored: CRIU stood still");
    second.wait_for_line("tick ");
    let (earlier, later) = (Ticks::of(&first.stdout_lines()), Ticks::of(&second.stdout_lines()));
    assert!(later.first() <= earlier.last(), "the older generation continues: {}", second.report());
    // Nothing of the first attempt is left.
    let stopped =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.contains("restore"));
    assert!(!second.processes().iter().any(stopped), "{}", second.report());
    second.kill9();
}
