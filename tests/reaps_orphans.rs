//! Daemons and orphans belong to the job: they stay below the reaper, are reaped, and end with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod entrypoint;

use entrypoint::{as_pid_1, not_as_pid_1, outcome};

/// 200 grandchildren lose their parent, wait at a FIFO until all are there, end, and must not stay as zombies.
const TWO_HUNDRED: &str = r#"
mkfifo "$0" || exit 1
for i in $(seq 200); do (cat "$0" > /dev/null &) ; done
count() { cat /proc/$PPID/task/$PPID/children | wc -w; }
for try in $(seq 400); do orphans=$(count); [ "$orphans" -ge 201 ] && break; sleep 0.05; done
: > "$0"
for try in $(seq 400); do left=$(count); [ "$left" -le 1 ] && break; sleep 0.05; done
echo "$orphans $left $(grep -lsE '^State:[[:space:]]Z' /proc/[0-9]*/status | wc -l)"
"#;

#[test]
fn two_hundred_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = as_pid_1(&[], TWO_HUNDRED);
    command.arg(folder.path().join("fifo"));
    let (code, out, said) = outcome(command);
    assert_eq!(code, 0, "{said}");
    // The command itself is a child of the reaper too. `cat` and `wc` are the command's.
    assert_eq!(out, "201 1 0\n", "the reaper's children before and after, and zombies");
}

const DAEMON: &str = r#"
setsid sh -c 'sleep 100 & echo $! ' > "$0.pid" < /dev/null 2> /dev/null &
wait
parent=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$(cat "$0.pid")/status)
cat /proc/$parent/comm
"#;

#[test]
fn a_daemon_stays_below_the_reaper_and_ends_with_the_job() {
    for start in [as_pid_1, not_as_pid_1] {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("daemon");
        let mut command = start(&[], DAEMON);
        command.arg(&name);
        let (code, out, said) = outcome(command);
        assert_eq!((code, out.as_str()), (0, "revenant-reaper\n"), "{said}");
        let pid = std::fs::read_to_string(name.with_extension("pid")).unwrap();
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        assert_ne!(cmdline, b"sleep\x00100\x00", "the daemon has outlived the entrypoint");
    }
}

#[test]
fn processes_of_the_job_have_high_ids_and_no_strange_descriptors() {
    let script =
        "ls /proc/self/fd | tr '\\n' ' '; echo; echo $$ $PPID; ls /proc/$PPID/fd | wc -l; readlink /proc/$PPID/cwd";
    let (code, out, said) = outcome(as_pid_1(&[], script));
    assert_eq!(code, 0, "{said}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0].trim(), "0 1 2 3", "the last is the folder that ls reads");
    assert!(lines[1].split(' ').all(|pid| pid.parse::<u32>().unwrap() > 300), "{out}");
    assert_eq!(lines[2..], ["0", "/"], "the reaper holds nothing");
}
