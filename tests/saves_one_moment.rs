//! A save after which the workload runs on is of one moment: nothing that the workload writes after it was let go may
//! come into the checkpoint. CRIU hands over the workload's own pages, and they are read while it waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Store};

#[test]
fn memory_that_changes_all_the_time() {
    for pre_copy in ["true", "false"] {
        let store = Store::local();
        let container = Container::of("moment")
            .store(&store)
            .env("REVENANT_LEASE", "1s")
            .env("REVENANT_PRE_COPY", pre_copy)
            .workload("kinds.py", &["memory-that-changes-all-the-time"]);
        let mut running = container.start();
        for _ in 0..3 {
            running.wait_for_line("step ");
            let asked = running.exec(&["revenant", "checkpoint"]);
            assert_eq!(asked.code, 0, "{}", asked.stderr);
            running.kill9();
            running = container.start();
            running.wait_for_line("step ");
            // Another whole round over all pages.
            let lines = running.stdout_lines();
            let step: usize = lines.iter().rev().find_map(|line| line.strip_prefix("step ")?.parse().ok()).unwrap();
            running.wait_for_line(&format!("step {}", step + 2));
        }
    }
}
