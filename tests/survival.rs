//! `make survival`: every cause of death and every warning, by its real mechanism where this machine has it; what
//! revenant did, and how much work was lost. Writes docs/survival.md. Not part of `make test`: each cause has a test of
//! its own there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod announcers;
#[path = "survival/causes.rs"]
mod causes;
mod harness;
#[path = "survival/making.rs"]
mod making;
#[path = "survival/table.rs"]
mod table;

use causes::CAUSES;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;
use table::{Kind, Row};

/// Containers at a time. They mostly wait.
const AT_ONCE: usize = 4;

/// What may be lost without an announcement: the interval with its jitter, and the save that was under way.
const MOST_UNANNOUNCED: f64 = making::INTERVAL_SECONDS * 1.1 + 10.0;

#[test]
#[ignore = "takes minutes, and writes docs/survival.md: make survival"]
fn survival() {
    let begun = Instant::now();
    let only = std::env::var("SURVIVAL_ONLY").unwrap_or_default();
    let chosen = CAUSES.iter().enumerate().filter(|(_, cause)| cause.name.contains(&only));
    let waiting: Mutex<VecDeque<_>> = Mutex::new(chosen.collect());
    let rows: Mutex<Vec<(usize, Row)>> = Mutex::new(Vec::new());
    let try_next = || {
        let next = waiting.lock().unwrap().pop_front();
        if let Some((place, cause)) = next {
            let seen = std::panic::catch_unwind(cause.run).ok();
            println!("{}: {}", cause.name, seen.as_ref().map_or("FAILED".to_owned(), ToString::to_string));
            rows.lock().unwrap().push((place, Row { cause, seen }));
        }
        next.is_some()
    };
    // Stalls are only seen where nothing else wants the processors.
    try_next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| while try_next() {});
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|(place, _)| *place);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    println!("\n{}", table::markdown(&rows));
    println!("{} causes in {} s", rows.len(), begun.elapsed().as_secs());
    if only.is_empty() {
        table::write(&rows);
    }
    for Row { cause, seen } in &rows {
        let seen = seen.as_ref().unwrap_or_else(|| panic!("{} failed; its report is above", cause.name));
        match cause.kind {
            Kind::Announced => assert_eq!(seen.ticks_lost, 0, "{} lost work: {seen}", cause.name),
            Kind::Warning => {}
            Kind::Unannounced => assert!(seen.seconds_lost <= MOST_UNANNOUNCED, "{} lost too much: {seen}", cause.name),
        }
    }
}
