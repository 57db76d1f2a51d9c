//! Notices of the three clouds, from servers that answer with the documented paths, headers and fields.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod announcers;
mod harness;

use announcers::{Announcer, clouds};
use harness::{Container, Running, Store, Ticks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

fn counter(store: &Store, cloud: &str, server: &Announcer) -> Running {
    Container::of("noticed")
        .store(store)
        .env("REVENANT_LEASE", "1s")
        .options(&["--cloud", cloud, "--cloud-endpoint", &server.url()])
        .workload("counter.py", &[])
        .start()
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

fn flag() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let flag = Arc::new(AtomicBool::new(false));
    (flag.clone(), flag)
}

/// A save at once, for the case that the machine goes early; and a last one shortly before it goes, so that nothing
/// is lost.
#[test]
fn an_interruption_of_a_spot_instance_loses_nothing() {
    let (announce, announced) = flag();
    let ends = SystemTime::now() + Duration::from_secs(40);
    let server = clouds::aws_spot(announced, ends);
    let store = Store::local();
    let first = counter(&store, "aws", &server);
    first.wait_for_line("tick 3 ");
    announce.store(true, Ordering::Relaxed);
    first.wait_for_stderr_line("saving (EC2 takes this spot instance away (terminate))");
    first.wait_for_stderr_line("saved generation 1-1");
    let at_first_save = ticks(&first).last();
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    assert!(SystemTime::now() < ends + Duration::from_secs(30), "far too late, even for a slow machine");
    assert!(first.stderr().contains("saved generation 1-2"), "{}", first.stderr());
    let next = counter(&store, "none", &server);
    next.wait_for_line(&format!("tick {} ", ticks(&first).last() + 2));
    assert!(ticks(&first).last() > at_first_save, "it ran on between the two saves");
    ticks(&first).then(ticks(&next)).assert_unbroken();
}

/// A notice is found although the server stumbles at first and has a part that cannot be read.
#[test]
fn an_interruption_is_heard_from_a_server_in_trouble() {
    let (announce, announced) = flag();
    let ends = SystemTime::now() + Duration::from_secs(600);
    let server = clouds::aws_spot_of_a_poor_server(announced, ends);
    let store = Store::local();
    let first = counter(&store, "aws", &server);
    first.wait_for_line("tick 3 ");
    first.wait_for_stderr_line("the cloud's metadata service does not answer as expected (status 503); trying on");
    announce.store(true, Ordering::Relaxed);
    first.wait_for_stderr_line("saving (EC2 takes this spot instance away (terminate))");
    first.wait_for_stderr_line("saved generation 1-1");
    assert_eq!(first.stderr().matches("trying on").count(), 1, "{}", first.stderr());
    first.kill9();
}

#[test]
fn a_preemption_by_google_is_answered() {
    let (announce, announced) = flag();
    let server = clouds::google_preemption(announced);
    let store = Store::local();
    let first = counter(&store, "gcp", &server);
    first.wait_for_line("tick 3 ");
    announce.store(true, Ordering::Relaxed);
    first.wait_for_stderr_line("saving (Google preempts this machine)");
    assert_eq!(first.wait(), 200, "{}", first.stderr());
}

#[test]
fn an_event_of_azure_for_this_machine_is_answered_and_one_for_another_is_not() {
    let (announce, announced) = flag();
    let server = clouds::azure_reboot(announced);
    let store = Store::local();
    let first = counter(&store, "azure", &server);
    first.wait_for_line("tick 3 ");
    // The other machine's event was seen by now.
    while server.asked().iter().filter(|asked| asked.path.starts_with("/metadata/scheduledevents")).count() < 2 {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!first.stderr().contains("saving"), "{}", first.stderr());
    announce.store(true, Ordering::Relaxed);
    first.wait_for_stderr_line("saving (Azure is going to restart this machine)");
    first.wait_for_stderr_line("saved generation 1-1");
    // Without a date it runs on.
    first.wait_for_line(&format!("tick {} ", ticks(&first).last() + 3));
}

#[test]
fn a_host_that_google_maintains_is_a_reason_to_save() {
    let (announce, announced) = flag();
    let server = clouds::google_maintenance(announced);
    let store = Store::local();
    let first = counter(&store, "gcp", &server);
    first.wait_for_line("tick 3 ");
    announce.store(true, Ordering::Relaxed);
    first.wait_for_stderr_line("saving (Google is going to stop this machine for maintenance)");
    first.wait_for_stderr_line("saved generation 1-1");
    // It may be an hour ahead: it runs on.
    first.wait_for_line(&format!("tick {} ", ticks(&first).last() + 3));
    first.kill9();
}

/// The moment is known, so the last save is made before it, with the workload stopped.
#[test]
fn an_event_of_azure_with_a_date_loses_nothing() {
    let (announce, announced) = flag();
    let server = clouds::azure_preemption(announced, SystemTime::now() + Duration::from_secs(40));
    let store = Store::local();
    let first = counter(&store, "azure", &server);
    first.wait_for_line("tick 3 ");
    announce.store(true, Ordering::Relaxed);
    first.wait_for_stderr_line("Azure takes this spot machine away: the end is announced for");
    first.wait_for_stderr_line("saved generation 1-1");
    assert_eq!(first.wait(), 200, "{}", first.stderr());
    let next = counter(&store, "none", &server);
    next.wait_for_line(&format!("tick {} ", ticks(&first).last() + 2));
    ticks(&first).then(ticks(&next)).assert_unbroken();
}
