//! Not one byte that the workload wrote is lost or repeated where one container ends and the next begins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Reader, Running, Signal, Store};

const GENERATIONS: usize = 10;

/// Starts the container again and again; returns all that it has written to stdout and to stderr.
fn through_generations(container: &Container) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    for generation in 1..=GENERATIONS {
        let running = container.start();
        running.wait_for_line("out ");
        // Somewhere in the middle of its work, each time elsewhere.
        std::thread::sleep(std::time::Duration::from_millis(7 * generation as u64));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
        out += &running.stdout();
        err += &running.stderr();
    }
    let running = container.start();
    running.wait_for_line("out ");
    running.signal(Signal::SIGUSR2);
    assert_eq!(running.wait(), 0);
    (out + &running.stdout(), err + &running.stderr())
}

/// The lines must be `name 1`, `name 2`, … among nothing but revenant's own and those of `others`.
fn assert_complete(text: &str, name: &str, others: &[&str]) {
    let mut expected = 1_u64;
    for line in text.lines().filter(|line| !line.starts_with("revenant: ")) {
        if others.iter().any(|other| line.starts_with(other)) {
            continue;
        }
        assert_eq!(line, format!("{name} {expected}"), "a line is missing, broken or there twice");
        expected += 1;
    }
    assert!(expected > 100, "only {expected} lines");
}

fn writer(job: &str, store: &Store, mode: &str) -> Container {
    Container::of(job).store(store).workload("lines.py", &[mode])
}

#[test]
fn on_two_pipes() {
    let store = Store::local();
    let (out, err) = through_generations(&writer("two", &store, "small"));
    assert_complete(&out, "out", &["end"]);
    assert_complete(&err, "err", &[]);
    assert_eq!(out.lines().count() - 1, err.lines().filter(|line| line.starts_with("err ")).count());
}

#[test]
fn on_one_pipe() {
    let store = Store::local();
    let (all, _) = through_generations(&writer("one", &store, "small").one_output());
    assert_complete(&all, "out", &["err ", "end"]);
    assert_complete(&all, "err", &["out ", "end"]);
    // And in their order.
    let order: Vec<_> = all.lines().filter(|line| line.starts_with("out ") || line.starts_with("err ")).collect();
    for (index, line) in order.iter().enumerate() {
        assert_eq!(*line, format!("{} {}", ["out", "err"][index % 2], index / 2 + 1));
    }
}

#[test]
fn in_blocks_that_a_slow_reader_takes_in_pieces() {
    let store = Store::local();
    let (out, _) = through_generations(&writer("slow", &store, "large").reader(Reader::Slow));
    assert_complete(&out, "out", &["end"]);
}

#[test]
fn through_a_socket_to_a_slow_reader() {
    let store = Store::local();
    let (out, _) = through_generations(&writer("socket", &store, "large").socket_output().reader(Reader::Slow));
    assert_complete(&out, "out", &["end"]);
}

#[test]
fn while_nobody_reads_and_when_somebody_reads_again() {
    let store = Store::local();
    let container = writer("gone", &store, "patient");
    let unread = container.clone().reader(Reader::Gone);
    let mut out = String::new();
    let mut preempt = |running: &Running| {
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
        out += &running.stdout();
    };
    for _ in 0..3 {
        let read = container.start();
        read.wait_for_lines("out ", 50);
        preempt(&read);
        let unread = unread.start();
        // It lives, and can be saved, although neither it nor revenant can say a word.
        unread.wait_until("a workload that is running", || {
            unread.exec(&["revenant", "status", "--json"]).stdout.contains("\"running\"")
        });
        preempt(&unread);
    }
    assert_complete(&out, "out", &[]);
}

/// What a workload reads from its standard input, told by itself.
const READER: &str = "while read -r line; do echo \"got $line\"; done; echo end of input; \
                      n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done";

#[test]
fn standard_input_is_the_containers() {
    let store = Store::local();
    let container = Container::of("stdin").store(&store).command(&["bash", "-c", READER]).stdin();
    for word in ["one", "two", "three"] {
        let running = container.start();
        running.write_stdin(&format!("{word}\n"));
        running.wait_for_line(&format!("got {word}"));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
    }
    let running = container.start();
    running.close_stdin();
    running.wait_for_line("end of input");
    running.wait_for_line("tick 1");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);

    // A container whose stdin is /dev/null takes over where the pipe had ended.
    let nothing = Container::of("stdin").store(&store).command(&["bash", "-c", READER]).start();
    nothing.wait_for_line("tick ");
    nothing.signal(Signal::SIGTERM);
    assert_eq!(nothing.wait(), 200);
}

#[test]
fn standard_input_may_be_closed_or_null_and_the_next_containers_a_pipe() {
    let store = Store::local();
    let run = "exec revenant run -- bash -c 'read -r line || echo nothing to read; \
               n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done' <&-";
    let closed = Container::of("closed").store(&store).entrypoint(&["bash", "-c", run]);
    let open = Container::of("closed").store(&store).command(&["true"]).stdin();
    let first = closed.start();
    first.wait_for_line("nothing to read");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    for container in [&closed, &open, &closed] {
        let running = container.start();
        running.wait_for_line("tick ");
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
    }
}
