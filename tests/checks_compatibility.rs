//! What does not fit is named before a restore changes anything; and a restore can be rehearsed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store};
use std::path::Path;

fn holder(store: &Store, kind: &str) -> Container {
    Container::of("fit")
        .store(store)
        .env("REVENANT_LEASE", "1s")
        .env("REVENANT_GRACE", "60s")
        .workload("kinds.py", &[kind])
}

/// Runs a container until it is saved and stopped.
fn save(container: &Container) {
    let running = container.start();
    running.wait_for_line("step 2");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200, "{}", running.report());
}

#[test]
fn a_capability_that_the_workload_had_is_named() {
    let store = Store::local();
    let container = holder(&store, "private-memory");
    save(&container);
    let without = container.clone().drop_capability("NET_RAW").start();
    assert_eq!(without.wait(), 202, "{}", without.report());
    let said = without.stderr();
    assert!(said.contains("had capabilities that this container lacks: NET_RAW"), "{said}");
    assert!(said.contains("securityContext.capabilities.add: [NET_RAW]"), "{said}");
    container.start().wait_for_line("step 4");
}

#[test]
fn a_volume_that_is_not_mounted_is_named_and_nothing_is_changed() {
    let store = Store::local();
    let volume = tempfile::tempdir().unwrap();
    let without = holder(&store, "file-on-a-volume");
    let container = without.clone().mount(volume.path(), "/volume");
    save(&container);
    let saved = std::fs::read(volume.path().join("appended")).unwrap();
    let refused = without.start();
    assert_eq!(refused.wait(), 202, "{}", refused.report());
    assert!(refused.stderr().contains("nothing is mounted at /volume in this container"), "{}", refused.stderr());
    assert!(refused.stderr().contains("/volume/appended"), "{}", refused.stderr());
    assert_eq!(std::fs::read(volume.path().join("appended")).unwrap(), saved);
    container.start().wait_for_line("step 4");
}

#[test]
fn too_little_memory_is_refused_before_it_is_filled() {
    let store = Store::local();
    let large = |container: Container| container.workload("counter.py", &["--mib", "160", "--interval", "0.2"]);
    let container = large(Container::of("fit").store(&store).env("REVENANT_LEASE", "1s"));
    let running = container.start();
    running.wait_for_line("tick 2 ");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200, "{}", running.report());
    let small = container.memory_limit(96 << 20).start();
    assert_eq!(small.wait(), 202, "{}", small.report());
    assert!(small.stderr().contains("this container may use 96.0 MiB"), "{}", small.stderr());
}

/// As when an image was built anew: what the process has mapped is named before CRIU stops at it.
#[test]
fn a_program_that_is_not_the_same_is_named() {
    let (store, folder) = (Store::local(), tempfile::tempdir().unwrap());
    let tool = folder.path().join("tool");
    std::fs::write(&tool, [b"one".repeat(2000), b"tail".to_vec()].concat()).unwrap();
    let script = "import mmap, time\nfile = open('/opt/tool')\npages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\nstep = 0
while True:\n  step += 1\n  print('step', step, pages[0:3], flush=True)\n  time.sleep(0.05)";
    let container = Container::of("fit").store(&store).env("REVENANT_LEASE", "1s").env("REVENANT_GRACE", "60s");
    let container = container.mount_read_only(&tool, "/opt/tool").command(&["python3", "-c", script]);
    save(&container);
    std::fs::write(&tool, [b"two".repeat(2000), b"tail".to_vec()].concat()).unwrap();
    let refused = container.start();
    assert_eq!(refused.wait(), 202, "{}", refused.report());
    let said = refused.stderr();
    assert!(said.contains("not what the processes have in memory (image changed)"), "{said}");
    assert!(said.contains("/opt/tool"), "{said}");
    assert!(!said.contains("CRIU"), "it was found before: {said}");
}

/// Runs a subcommand in a container that has nothing of the job yet.
fn rehearse(container: &Container, arguments: &[&str]) -> harness::Output {
    let running = container.clone().entrypoint(&["sleep", "1000"]).start();
    running.exec(&[&["revenant"], arguments].concat())
}

fn appended(volume: &Path) -> Vec<u8> {
    std::fs::read(volume.join("appended")).unwrap()
}

#[test]
fn a_rehearsal_tells_what_would_become_of_files_and_touches_none() {
    let store = Store::local();
    let volume = tempfile::tempdir().unwrap();
    let container = holder(&store, "file-on-a-volume").mount(volume.path(), "/volume");
    save(&container);
    let saved = appended(volume.path());
    let mut longer = saved.clone();
    longer.extend(b"written after the save");
    std::fs::write(volume.path().join("appended"), &longer).unwrap();

    let plan = rehearse(&container, &["restore-plan"]);
    assert_eq!(plan.code, 0, "{}{}", plan.stdout, plan.stderr);
    let cut = format!("/volume/appended: cut from {} back to {} bytes", longer.len(), saved.len());
    assert!(plan.stdout.contains(&cut), "{}", plan.stdout);
    assert!(plan.stdout.contains("a restore would be tried"), "{}", plan.stdout);
    assert_eq!(appended(volume.path()), longer);

    let files = rehearse(&container, &["inspect", "--files"]);
    assert_eq!(files.code, 0, "{}", files.stderr);
    assert!(files.stdout.contains("/volume/appended"), "{}", files.stdout);

    let elsewhere = holder(&store, "file-on-a-volume");
    let refused = rehearse(&elsewhere, &["restore-plan", "--json"]);
    assert_eq!(refused.code, 202, "{}{}", refused.stdout, refused.stderr);
    let json: serde_json::Value = serde_json::from_str(refused.stdout.trim()).unwrap();
    assert_eq!(json["restorable"], false);
    assert!(json["refusals"][0]["what"].as_str().unwrap().contains("/volume"), "{json}");

    // And the restore itself does what was said.
    let next = container.start();
    next.wait_for_line("step 4");
    assert!(appended(volume.path()).starts_with(&saved));
    assert!(!appended(volume.path()).windows(7).any(|word| word == b"written"));
}
