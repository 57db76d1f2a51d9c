//! A status as one screen of text.

use crate::checkpoint::protocol::Progress;
use crate::supervisor::control::Status;
use crate::supervisor::words;
use crate::trigger::board::Snapshot;
use crate::trigger::{Noticed, Reading, Unit};
use crate::workload::resources::Effect;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// The page.
pub fn page(status: &Status) -> String {
    let mut page = Page(String::new());
    page.line("job", &status.job.to_string());
    page.line("store", status.store.as_deref().unwrap_or("none: this workload is not saved"));
    page.line("state", &format!("{}{}", status.state, if status.frozen { ", frozen for a save" } else { "" }));
    if let Some(progress) = &status.progress {
        page.line("under way", &under_way(progress));
    }
    page.line("running for", &ms(status.uptime_ms));
    if let Some(pid) = status.command_pid {
        page.line("command", &format!("process {pid}"));
    }
    if let Some(generation) = status.restored_from {
        page.line("continued", &format!("from generation {generation}{}", lost(status.lost_work_ms)));
    }
    saves(&mut page, status);
    not_carried(&mut page, status);
    triggers(&mut page, &status.triggers);
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name:<12} {value}");
    }
}

fn saves(page: &mut Page, status: &Status) {
    page.line(
        "last save",
        &match (status.generation, status.saved_at) {
            (Some(generation), Some(at)) => format!("generation {generation}, {} ago", words::age(at)),
            _ => "none yet".to_owned(),
        },
    );
    if let Some(saved) = &status.last_save {
        let cost = format!(
            "{}, {} new, in {}, frozen {}",
            words::bytes(saved.image_bytes),
            words::bytes(saved.stored_bytes),
            ms(saved.total_ms),
            ms(saved.frozen_ms)
        );
        page.line("  it cost", &cost);
    }
    let counts = format!(
        "{} durable, {} failed, frozen {} in all, {} stored",
        status.saves,
        status.failed_saves,
        ms(status.frozen_ms),
        words::bytes(status.stored_bytes)
    );
    page.line("saves here", &counts);
    if let Some(unsaved) = &status.unsaved {
        page.line("NOT SAVED", &format!("{} ago: {}", words::age(unsaved.at), unsaved.problem.what));
        page.line("  why", &unsaved.problem.cause);
        page.line("  next", &unsaved.problem.next);
    }
}

/// What the workload holds that no checkpoint can carry.
fn not_carried(page: &mut Page, status: &Status) {
    for finding in &status.not_carried {
        let name = match finding.effect {
            Effect::Prevents | Effect::Spoils => "unsaveable",
            Effect::Loses => "not carried",
        };
        page.line(name, &finding.to_string());
        page.line("", &finding.remedy);
    }
}

fn triggers(page: &mut Page, triggers: &Snapshot) {
    if let Some(notice) = &triggers.notice {
        page.line("announced", &format!("{}, {}", notice.reason, until(notice.deadline)));
    }
    if let Some(at) = triggers.next_scheduled {
        page.line("next save", &until(at));
    }
    for reading in &triggers.readings {
        page.line("watching", &watched(reading));
    }
    let fired: Vec<_> = triggers.fired.iter().map(|(source, count)| format!("{source} {count}")).collect();
    if !fired.is_empty() {
        page.line("saves asked", &fired.join(", "));
    }
    let held: Vec<_> = triggers.held_back.iter().map(|(source, count)| format!("{source} {count}")).collect();
    if !held.is_empty() {
        page.line("held back", &held.join(", "));
    }
    if let Some(killed) = &triggers.last_oom {
        page.line("OUT OF MEMORY", &format!("{} ago: {}", words::age(killed.at), killed.words()));
    }
    if triggers.restored_after_oom > 0 {
        page.line("  restored", &format!("here {} times", triggers.restored_after_oom));
    }
}

fn under_way(progress: &Progress) -> String {
    let stored = match progress.store_bytes {
        0 => String::new(),
        bytes => format!(", {} to the store", words::bytes(bytes)),
    };
    match progress.total_bytes.filter(|total| *total > 0) {
        Some(total) => format!(
            "{} {} %, {} of {}{stored}",
            progress.phase,
            progress.done_bytes.saturating_mul(100) / total,
            words::bytes(progress.done_bytes),
            words::bytes(total)
        ),
        None => format!("{} {}{stored}", progress.phase, words::bytes(progress.done_bytes)),
    }
}

fn lost(ms: Option<u64>) -> String {
    match ms {
        None => String::new(),
        Some(0) => ", no work was lost".to_owned(),
        Some(lost) => format!(", {} of work were lost", self::ms(lost)),
    }
}

fn watched(reading: &Reading) -> String {
    let of = if reading.of.is_empty() { String::new() } else { format!(" of {}", reading.of) };
    let relation = if reading.low { "saves below" } else { "saves above" };
    let [value, threshold] = [reading.value, reading.threshold].map(|value| amount(value, reading.unit));
    format!("{}{of}: {value}, {relation} {threshold}{}", reading.source, noticed(&reading.noticed))
}

fn noticed(how: &Noticed) -> String {
    match how {
        Noticed::Looking => String::new(),
        Noticed::Told => ", the kernel rings".to_owned(),
        Noticed::Looked { why } => format!(", looked at every few seconds ({why})"),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates, and it is for reading.
fn amount(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => words::bytes(value as u64),
        Unit::Ratio => format!("{:.0} %", value * 100.0),
    }
}

/// When something will be, as people say it.
fn until(moment: SystemTime) -> String {
    match moment.duration_since(SystemTime::now()) {
        Ok(left) => format!("in {}", words::duration(left)),
        Err(_) => "now".to_owned(),
    }
}

fn ms(count: u64) -> String {
    words::duration(Duration::from_millis(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::explain::Problem;
    use crate::observe::observed::Unsaved;

    #[test]
    fn fits_on_one_screen_and_says_what_matters() {
        let mut status = Status::example();
        // A quarter of a second more than what is expected: it is only now that the clock is read.
        let in_a = |seconds: u64| Some(SystemTime::now() + Duration::from_millis(seconds * 1000 + 250));
        status.triggers.next_scheduled = in_a(1500);
        status.triggers.notice.as_mut().unwrap().deadline = in_a(100).unwrap();
        let shown = page(&status);
        assert!(shown.lines().count() <= 24, "{shown}");
        insta::assert_snapshot!(shown, @r"
        job          assembly
        store        file:///checkpoints
        state        running
        under way    upload 50 %, 5.00 MiB of 10.0 MiB, 1.00 MiB to the store
        running for  2 h 5 min
        command      process 302
        continued    from generation 1-3, no work was lost
        last save    generation 2-1, 3 min 20 s ago
          it cost    12.4 GiB, 310 MiB new, in 4.1 s, frozen 1.2 s
        saves here   2 durable, 0 failed, frozen 2.4 s in all, 405 MiB stored
        announced    the spot instance is taken away, in 1 min 40 s
        next save    in 25 min
        watching     memory: 71 %, saves above 90 %
        watching     disk: 37.3 GiB, saves below 954 MiB
        saves asked  schedule 2
        held back    memory 1
        ");
    }

    #[test]
    fn what_no_checkpoint_can_carry_is_told_with_its_remedy() {
        let finding = crate::workload::resources::Finding {
            effect: Effect::Prevents,
            pid: Some(302),
            program: "node".into(),
            descriptor: Some(9),
            what: "a kernel object of the kind io_uring".into(),
            reason: "CRIU cannot save this kind".into(),
            remedy: "tell the program to use plain I/O".into(),
        };
        let shown = page(&Status { not_carried: vec![finding], ..Status::example() });
        assert!(shown.contains("unsaveable   "), "{shown}");
        assert!(
            shown.contains("io_uring") && shown.contains("             tell the program to use plain I/O\n"),
            "{shown}"
        );
    }

    #[test]
    fn what_could_not_be_saved_is_told_with_the_next_step() {
        let problem = Problem::new(Exit::StoreUnavailable, "the store does not answer", "its network is down", "wait");
        let unsaved = Some(Unsaved { at: SystemTime::now() - Duration::from_secs(60), problem });
        let shown = page(&Status { unsaved, ..Status::example() });
        assert!(shown.contains("NOT SAVED    1 min ago: the store does not answer\n"), "{shown}");
        assert!(shown.contains("  next       wait\n"), "{shown}");
    }
}
