//! Checkpoints of every format that revenant promises to read are sound, and restore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store};
use std::path::Path;
use std::process::Command;

/// The key of the encrypted samples (`criu-images/README.md`).
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What `criu-images/tick.rs` prints as its Nth line.
fn line(n: u64) -> String {
    let mut memory = vec![0u8; 256 * 1024];
    for tick in 1..=n {
        let at = (usize::try_from(tick).unwrap() * 4099) % memory.len();
        memory[at] = memory[at].wrapping_add((tick & 0xff) as u8);
    }
    let sum: u64 = memory.iter().map(|byte| u64::from(*byte)).sum();
    format!("tick {n} sum {sum}")
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-r", "--no-preserve=mode,ownership"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn every_sample_verifies_and_continues_with_its_memory() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("criu-images");
    let mut seen = 0;
    for sample in std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        seen += 1;
        let store = Store::local();
        let directory = store.directory().unwrap();
        copy_tree(&sample.join("golden"), &directory.join("golden"));
        let encrypted = sample.to_string_lossy().ends_with("-encrypted");

        let mut verify = Command::new(env!("CARGO_BIN_EXE_revenant"));
        verify.args(["verify", "--job", "golden", "--read-data", "--store"]);
        verify.arg(format!("file://{}", directory.display()));
        if encrypted {
            verify.env("REVENANT_KEY", KEY);
        }
        let verified = verify.output().unwrap();
        assert!(verified.status.success(), "{}: {verified:?}", sample.display());

        // The sample's machine may have been up for longer than this one.
        let container = Container::of("golden").store(&store).env("REVENANT_CLOCK", "best-effort");
        let mut container = container.command(&["/bin/false"]);
        if encrypted {
            container = container.env("REVENANT_KEY", KEY);
        }
        let running = container.start();
        running.wait_for_stderr_line("continued from generation 2-1");
        running.wait_for_line("tick ");
        let first = running.stdout_lines().first().cloned().unwrap();
        let number: u64 = first.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(number > 10, "the sample was saved after more than a second: {first}");
        running.wait_for_line(&format!("tick {} ", number + 5));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200);
        let lines = running.stdout_lines();
        for (n, found) in (number..).zip(&lines) {
            assert_eq!(*found, line(n), "{}", sample.display());
        }
    }
    assert!(seen >= 2, "the samples are missing");
}
