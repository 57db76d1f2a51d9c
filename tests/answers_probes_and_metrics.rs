//! Probes, metrics and status over HTTP, of a workload under real CRIU in a real container.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, PATIENCE, Running, Signal, Store};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const TOKEN: &str = "a token that nobody guesses";

/// A port of loopback on which nothing listens.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn job(store: &Store, port: u16) -> Container {
    Container::of("seen")
        .store(store)
        .env("REVENANT_LEASE", "1s")
        .env("REVENANT_HTTP", &format!("127.0.0.1:{port}"))
        .env("REVENANT_HTTP_TOKEN", TOKEN)
}

/// Status code and body; none when nobody listens.
fn ask(port: u16, method: &str, path: &str, headers: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: here\r\n{headers}Connection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let code = text.split(' ').nth(1)?.parse().ok()?;
    Some((code, text.split_once("\r\n\r\n")?.1.to_owned()))
}

fn get(port: u16, path: &str) -> (u16, String) {
    ask(port, "GET", path, "").unwrap_or_else(|| panic!("nobody answers {path}"))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The value of a metric whose line starts so.
fn metric(port: u16, start: &str) -> Option<f64> {
    let text = get(port, "/metrics").1;
    text.lines().find(|line| line.starts_with(start))?.rsplit_once(' ')?.1.parse().ok()
}

fn probe(running: &Running, which: &str) -> i32 {
    running.exec(&["revenant", "status", "--probe", which]).code
}

#[test]
fn a_save_and_a_restore_are_seen_in_metrics() {
    let store = Store::local();
    let port = free_port();
    let first = job(&store, port).workload("counter.py", &[]).start();
    first.wait_for_line("tick 2 ");
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(get(port, path).0, 200, "{path}");
    }
    for which in ["live", "ready", "startup"] {
        assert_eq!(probe(&first, which), 0, "{which}");
    }
    assert_eq!(metric(port, "revenant_begins_total{revenant_job=\"seen\",outcome=\"fresh\"}"), Some(1.0));
    assert_eq!(metric(port, "revenant_last_durable_save_timestamp_seconds"), None, "nothing was saved yet");
    assert!(metric(port, "revenant_unsaved_work_seconds").unwrap() > 0.0);

    assert_eq!(ask(port, "POST", "/checkpoint", "").unwrap().0, 401);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let (code, answer) = ask(port, "POST", "/checkpoint", &token).unwrap();
    assert!(code == 200 || code == 202, "{code} {answer}");
    let saves = "revenant_saves_total{revenant_job=\"seen\",result=\"durable\",source=\"request\"}";
    until("the save", || metric(port, saves).filter(|count| *count >= 1.0));
    let saved_at = metric(port, "revenant_last_durable_save_timestamp_seconds").unwrap();
    assert!(saved_at > 1.6e9, "{saved_at}");
    for phase in ["prepare", "dump", "store", "total"] {
        let count = format!("revenant_save_duration_seconds_count{{revenant_job=\"seen\",phase=\"{phase}\"}}");
        assert_eq!(metric(port, &count), Some(1.0), "{phase}");
    }
    assert!(metric(port, "revenant_save_frozen_seconds_sum").unwrap() > 0.0);
    assert!(metric(port, "revenant_save_image_bytes_total").unwrap() > 1e6);
    let status: serde_json::Value = serde_json::from_str(&get(port, "/status").1).unwrap();
    assert_eq!((&status["generation"], &status["phase"]), (&"1-1".into(), &"running".into()));
    first.kill9();

    let next = job(&store, port).workload("counter.py", &[]).start();
    until("the restore", || (ask(port, "GET", "/readyz", "")?.0 == 200).then_some(()));
    assert_eq!(metric(port, "revenant_begins_total{revenant_job=\"seen\",outcome=\"restored\"}"), Some(1.0));
    for phase in ["prepare", "restore", "total"] {
        let count = format!("revenant_restore_duration_seconds_count{{revenant_job=\"seen\",phase=\"{phase}\"}}");
        assert_eq!(metric(port, &count), Some(1.0), "{phase}");
    }
    assert!(metric(port, "revenant_restore_bytes_total").unwrap() > 1e6);
    assert_eq!(metric(port, "revenant_generation_epoch"), Some(1.0));
    // The manifest is written a moment before the save is told to be durable.
    let known = metric(port, "revenant_last_durable_save_timestamp_seconds").unwrap();
    assert!((saved_at - 60.0..=saved_at + 1.0).contains(&known), "{known} against {saved_at}");
    // What was lost by the SIGKILL is told once the store was asked, soon after the start.
    until("the loss", || {
        let status: serde_json::Value = serde_json::from_str(&get(port, "/status").1).unwrap();
        status["lost_work_ms"].as_u64()
    });
    drop(next);
}

/// The restore waits for a store that is away, for as long as the test wants.
#[test]
fn a_long_beginning_is_alive_and_started_but_not_ready() {
    let store = Store::seaweed();
    let port = free_port();
    let first = job(&store, port).workload("counter.py", &[]).start();
    first.wait_for_line("tick 2 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    store.server().stop();

    let next = job(&store, port).workload("counter.py", &[]).start();
    next.wait_for_stderr_line("trying again");
    assert_eq!(get(port, "/livez").0, 200);
    assert_eq!(get(port, "/startupz").0, 200, "a probe must not kill a container that restores");
    assert_eq!(get(port, "/readyz").0, 503);
    assert_eq!((probe(&next, "startup"), probe(&next, "ready")), (0, 1));
    store.server().resume();
    until("the restore", || (get(port, "/readyz").0 == 200).then_some(()));
    assert_eq!(probe(&next, "ready"), 0);
    let retried = until("the count", || metric(port, "revenant_store_errors_total").filter(|count| *count > 0.0));
    assert!(retried >= 1.0);
}

/// PID 1 stays well and small whatever comes in.
#[test]
fn strangers_cannot_wear_it_down() {
    let port = free_port();
    let store = Store::local();
    let running = job(&store, port).workload("counter.py", &[]).start();
    running.wait_for_line("tick 2 ");
    let before = metric(port, "revenant_resident_memory_bytes").unwrap();
    // As many as there are places, and more, none of which ever says anything.
    let idle: Vec<_> = (0..40).filter_map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()).collect();
    for nonsense in ["\r\n\r\n", "GET\r\n\r\n", "\u{0}\u{1}\u{2}"] {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
    }
    let long = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    let _ = ask(port, "GET", "/status", &long);
    // The silent ones are cut off, and somebody who asks properly gets an answer.
    until("an answer", || (ask(port, "GET", "/livez", "")?.0 == 200).then_some(()));
    drop(idle);
    let memory = metric(port, "revenant_resident_memory_bytes").unwrap();
    // How large it is altogether depends on the build; `make bench` has a bound for that.
    assert!(memory - before < 6e6, "{memory} bytes, {before} before");
    let tick = harness::Ticks::of(&running.stdout_lines()).last();
    running.wait_for_line(&format!("tick {} ", tick + 3));
}

#[test]
fn a_live_view_follows_on_a_terminal_and_lines_follow_elsewhere() {
    let store = Store::local();
    let running = Container::of("watched").store(&store).workload("counter.py", &[]).start();
    running.wait_for_line("tick 2 ");
    let command = "import pty; pty.spawn(['revenant', 'status', '--watch', '1'])";
    let terminal = running.exec_in_background(&["python3", "-c", command]);
    // It clears the screen before each page.
    assert!(terminal.wait_for_line("\u{1b}[2J\u{1b}[Hjob").contains("watched"));
    let plain = running.exec_in_background(&["revenant", "status", "--watch", "1"]);
    plain.wait_for_line("watched");
    assert_eq!(running.exec(&["revenant", "checkpoint"]).code, 0);
    terminal.wait_for_line("generation 1-1");
    let page = plain.wait_for_line("generation 1-1");
    assert!(!page.contains('\u{1b}'), "{page:?}");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
}
