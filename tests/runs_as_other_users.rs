//! The workload need not be root: `--user`, a container that is an ordinary user's, and what cannot be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};
use std::path::Path;

const PROGRAM: &str = "/opt/revenant/bin/revenant";

fn job(name: &str, store: &Store) -> Container {
    Container::of(name).store(store).env("REVENANT_LEASE", "1s").env("REVENANT_GRACE", "60s").workload("user.py", &[])
}

fn steps(running: &Running) -> Vec<(u64, String)> {
    let parse = |line: &String| {
        let (number, rest) = line.strip_prefix("step ")?.split_once(' ')?;
        Some((number.parse().ok()?, rest.to_owned()))
    };
    running.stdout_lines().iter().filter_map(parse).collect()
}

/// Three containers, each stopped after some steps; returns who the workload was, which must be the same always.
fn lives_on(container: &Container) -> String {
    let (mut next, mut who) = (1, None);
    for _ in 0..3 {
        let running = container.start();
        running.wait_until("steps", || steps(&running).len() >= 3 || running.exit().is_some());
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
        for (number, rest) in steps(&running) {
            assert_eq!(number, next, "{}", running.report());
            assert_eq!(*who.get_or_insert_with(|| rest.clone()), rest);
            next += 1;
        }
    }
    who.unwrap()
}

/// The program with capabilities of its own, as `setcap CAPABILITIES+p` gives them.
fn with_file_capabilities(container: Container, folder: &Path) -> Container {
    let program = folder.join("revenant");
    std::fs::copy(env!("CARGO_BIN_EXE_revenant"), &program).unwrap();
    // SETPCAP, SYS_PTRACE, SYS_ADMIN, SYS_TIME, CHECKPOINT_RESTORE in `struct vfs_cap_data` of linux/capability.h:
    // version 2, then permitted and inheritable, the lower 32 bits first.
    let permitted: u64 = 1 << 8 | 1 << 19 | 1 << 21 | 1 << 25 | 1 << 40;
    let words = [0x0200_0000, permitted as u32, 0, (permitted >> 32) as u32, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(&program, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
    container.mount_read_only(&program, PROGRAM)
}

/// A store that this user may write to.
fn open_to_all(store: &Store) {
    use std::os::unix::fs::PermissionsExt;
    let folder = store.directory().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn the_command_runs_as_a_user_of_the_image() {
    let store = Store::local();
    let who = lives_on(&job("named", &store).options(&["--user", "daemon"]));
    assert_eq!(who, "1 1 [] 0 /usr/sbin");
}

#[test]
fn a_checkpoints_processes_stay_whose_they_are_whatever_is_asked() {
    let store = Store::local();
    let (mut next, mut who) = (1, None);
    for user in ["1000:1000", "daemon", "1000:1000"] {
        let running = job("another", &store).options(&["--user", user]).start();
        running.wait_until("steps", || steps(&running).len() >= 3 || running.exit().is_some());
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
        for (number, rest) in steps(&running) {
            assert_eq!(number, next, "{}", running.report());
            assert_eq!(*who.get_or_insert_with(|| rest.clone()), rest);
            next += 1;
        }
    }
    assert!(who.unwrap().starts_with("1000 1000 "));
}

#[test]
fn the_command_runs_as_a_number_and_its_clock_goes_on() {
    let store = Store::local();
    let container = job("numbered", &store).env("REVENANT_USER", "1000:1000");
    let who = lives_on(&container.add_capability("SYS_ADMIN").add_capability("SYS_TIME"));
    assert_eq!(who, "1000 1000 [] 0 /root");
}

#[test]
fn a_container_of_an_ordinary_user_takes_its_capabilities_from_the_program_file() {
    let store = Store::local();
    open_to_all(&store);
    let folder = tempfile::tempdir().unwrap();
    let container = with_file_capabilities(job("ordinary", &store).user(1000, 1000), folder.path());
    assert_eq!(lives_on(&container), "1000 1000 [] 0 /root");
    // With fewer capabilities in the container the file gives fewer.
    let store = Store::local();
    open_to_all(&store);
    let least = ["CHECKPOINT_RESTORE", "SETPCAP"];
    let container = with_file_capabilities(job("least", &store).user(1000, 1000), folder.path());
    assert_eq!(lives_on(&container.capabilities(&least)), "1000 1000 [] 0 /root");
}

#[test]
fn a_container_of_an_ordinary_user_may_be_given_ambient_capabilities() {
    let store = Store::local();
    open_to_all(&store);
    let container = job("ambient", &store).user(1000, 1000).capabilities(&["CHECKPOINT_RESTORE", "SETPCAP"]).ambient();
    let who = lives_on(&container);
    assert!(who.starts_with("1000 1000 [] 10000000100 "), "{who}");
}

#[test]
fn a_container_of_an_ordinary_user_without_capabilities_learns_how_to_get_them() {
    let store = Store::local();
    open_to_all(&store);
    let ordinary = job("without", &store).user(1000, 1000);
    let running = ordinary.start();
    assert_eq!(running.wait(), 207, "{}", running.report());
    assert!(running.stderr().contains("setcap"), "{}", running.report());

    let folder = tempfile::tempdir().unwrap();
    let running = with_file_capabilities(ordinary.no_new_privileges(), folder.path()).start();
    assert_eq!(running.wait(), 207, "{}", running.report());
    assert!(running.stderr().contains("allowPrivilegeEscalation"), "{}", running.report());
}

#[test]
fn a_user_that_is_not_there_or_may_not_be_taken_on_is_refused() {
    let store = Store::local();
    let running = job("unknown", &store).options(&["--user", "nobody-here"]).start();
    assert_eq!(running.wait(), 210, "{}", running.report());
    assert!(running.stderr().contains("there is no user nobody-here"), "{}", running.report());
    let running = job("unable", &store).options(&["--user", "1000"]).drop_capability("SYS_PTRACE").start();
    assert_eq!(running.wait(), 207, "{}", running.report());
    assert!(running.stderr().contains("SYS_PTRACE"), "{}", running.report());
}

#[test]
fn a_checkpoint_of_one_user_is_refused_to_another() {
    let store = Store::local();
    open_to_all(&store);
    let folder = tempfile::tempdir().unwrap();
    let of = |uid| with_file_capabilities(job("moved", &store).user(uid, uid), folder.path());
    let first = of(1000).start();
    first.wait_for_line("step 2 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200, "{}", first.report());
    // What the first one wrote into the store is its own; the next one may read it.
    for entry in walk(store.directory().unwrap()) {
        std::os::unix::fs::chown(&entry, Some(1001), Some(1001)).unwrap();
    }
    let second = of(1001).start();
    assert_eq!(second.wait(), 202, "{}", second.report());
    assert!(second.stderr().contains("runAsUser: 1000"), "{}", second.report());
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        if path.is_dir() {
            found.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        next += 1;
    }
    found
}
