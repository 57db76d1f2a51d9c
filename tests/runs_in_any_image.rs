//! One directory and one line turn any image into one that survives: C libraries older and newer than revenant's
//! and CRIU's own, another C library, and nothing at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks, rootfs};
use std::process::Command;

/// Is preempted twice, and counts on as if it had not been.
fn survives(image: &'static str, command: &[&str]) -> Ticks {
    let store = Store::local();
    let container = Container::of(image).store(&store).rootfs(image).command(command);
    let mut ticks = Ticks::default();
    for _ in 0..3 {
        let running = container.start();
        running.wait_for_line(&format!("tick {} ", ticks.last() + 3));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{image}: {}", running.report());
        ticks = ticks.then(Ticks::of(&running.stdout_lines()));
    }
    ticks.assert_unbroken();
    ticks
}

/// Pure bash: it sums up what it has counted.
const BASH: &str = "n=0; s=0; while :; do n=$((n + 1)); s=$((s + n)); echo tick $n hash $s; sleep 0.05; done";

fn survives_with_bash(image: &'static str) {
    let ticks = survives(image, &["bash", "-c", BASH]);
    let sums = (1..=ticks.last()).map(|n| format!("tick {n} hash {}", n * (n + 1) / 2)).collect::<Vec<_>>();
    assert_eq!(ticks, Ticks::of(&sums));
}

#[test]
fn debian_11() {
    survives_with_bash("debian-11");
}

#[test]
fn debian_12() {
    survives_with_bash("base");
}

#[test]
fn debian_13() {
    survives_with_bash("debian-13");
}

#[test]
fn debian_testing() {
    survives_with_bash("debian-testing");
}

/// What an undisturbed run of the static program prints; the others are the same program.
fn undisturbed(ticks: u64) -> Ticks {
    let output = Command::new(rootfs("scratch").join("steps")).arg(ticks.to_string()).output().unwrap();
    Ticks::of(&String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<_>>())
}

#[test]
fn musl_without_glibc() {
    let ticks = survives("musl", &["/bin/steps"]);
    assert_eq!(ticks, undisturbed(ticks.last()));
}

#[test]
fn busybox_as_a_shell() {
    let ticks = survives("musl", &["sh", "-c", BASH]);
    assert!(ticks.last() >= 9);
}

#[test]
fn one_static_program_and_nothing_else() {
    let ticks = survives("scratch", &["/steps"]);
    assert_eq!(ticks, undisturbed(ticks.last()));
}
