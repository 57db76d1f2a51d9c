//! A workload with a terminal keeps it, with size, modes and jobs, whatever the containers have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store};

/// What the workload says of its terminal, without its ticks.
fn look(running: &Running) -> String {
    let before = running.stdout_lines().iter().filter(|line| line.starts_with("look ")).count();
    running.write_stdin("look\n");
    running.wait_for_lines("look ", before + 1);
    last_look(running)
}

fn last_look(running: &Running) -> String {
    let lines = running.stdout_lines();
    let line = lines.iter().rfind(|line| line.starts_with("look ")).expect("no look").clone();
    line.split(" ticks ").next().unwrap().to_owned()
}

fn ticks(running: &Running) -> Vec<u64> {
    running.stdout_lines().iter().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

/// Ends the container with a save; the counter must have gone on from `last`. Returns its last number.
fn preempt(running: &Running, last: u64) -> u64 {
    running.wait_for_line(&format!("tick {}", last + 3));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200);
    let ticks = ticks(running);
    for (expected, tick) in (last + 1..).zip(&ticks) {
        assert_eq!(expected, *tick, "the output through the terminal has a gap: {ticks:?}");
    }
    *ticks.last().unwrap()
}

#[test]
fn from_a_terminal_to_none_and_back_again_and_again() {
    let store = Store::local();
    let pipes = Container::of("tty").store(&store).workload("terminal.py", &[]).stdin();
    let terminal = pipes.clone().tty();

    let first = terminal.start();
    first.wait_for_line("tick 1");
    first.resize(33, 101);
    first.wait_for_line("size 33 101");
    assert_eq!(look(&first), "look ttys 3 size 33 101 echo 1 lines 1 controlling yes foreground yes");
    let mut last = preempt(&first, 0);

    for round in 0..2_u16 {
        let without = pipes.start();
        without.wait_for_line("tick ");
        assert_eq!(
            look(&without),
            format!("look ttys 3 size {} 101 echo 1 lines 1 controlling yes foreground yes", 33 + round),
            "the terminal stays as it was where there is nobody to look at it"
        );
        // The way in is the container's stdin, a pipe; Ctrl-C is a byte like any other for it, and an
        // interrupt for the terminal.
        without.write_stdin("\x03");
        without.wait_for_line("interrupted");
        last = preempt(&without, last);

        let with = terminal.start();
        with.wait_for_line("tick ");
        with.resize(34 + round, 101);
        with.wait_for_line(&format!("size {} 101", 34 + round));
        assert_eq!(
            look(&with),
            format!("look ttys 3 size {} 101 echo 1 lines 1 controlling yes foreground yes", 34 + round)
        );
        with.write_stdin("\x03");
        with.wait_for_line("interrupted");
        assert!(!with.stdout().contains("hung up"));
        last = preempt(&with, last);
    }
}

#[test]
fn raw_mode_is_kept() {
    let store = Store::local();
    let container = Container::of("raw").store(&store).workload("terminal.py", &[]).tty();
    let first = container.start();
    first.wait_for_line("tick 1");
    first.write_stdin("raw\n");
    first.wait_for_line("echo 0 lines 0");
    // An interrupt is a key now.
    first.write_stdin("\x03");
    first.wait_for_line("key 3");
    let last = preempt(&first, 0);

    let second = container.start();
    second.wait_for_line("tick ");
    second.write_stdin("a\x03");
    second.wait_for_line("key 97");
    second.wait_for_line("key 3");
    assert!(!second.stdout().contains("interrupted"));
    let last = preempt(&second, last);

    let third = container.start();
    third.wait_for_line("tick ");
    third.write_stdin("q");
    third.wait_for_line("echo 1 lines 1");
    third.write_stdin("\x03");
    third.wait_for_line("interrupted");
    preempt(&third, last);
}

#[test]
fn job_control_goes_on() {
    let store = Store::local();
    let container = Container::of("jobs").store(&store).command(&["bash", "--norc", "-i"]).tty();
    let first = container.start();
    first.write_stdin("PS1=; sleep 9991 & sleep 9992\n");
    // Ctrl-Z only reaches a job that is in the foreground.
    first.wait_for_process("sleep 9992");
    first.write_stdin("\x1a");
    first.wait_for_line("Stopped");
    first.write_stdin("echo stopped it: $?\n");
    first.wait_for_line("stopped it: 148");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);

    let second = container.start();
    second.wait_for_process("sleep 9992");
    second.write_stdin("jobs\n");
    let (running, stopped) = (second.wait_for_line("sleep 9991"), second.wait_for_line("sleep 9992"));
    assert!(running.contains("Running"), "{running}");
    assert!(stopped.contains("Stopped"), "{stopped}");
    second.write_stdin("fg %2\n");
    second.wait_for_process_state("sleep 9992", 'S');
    // A save while a job of the shell has the terminal.
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait(), 200);

    let third = container.start();
    // Sooner it would be revenant itself that is interrupted.
    third.wait_for_line("continued from");
    third.write_stdin("\x03");
    third.write_stdin("echo ended it: $?; kill %1; wait %1; exit 7\n");
    third.wait_for_line("ended it: 130");
    assert_eq!(third.wait(), 7);
}

#[test]
fn a_workload_without_a_terminal_keeps_its_pipes_in_a_container_with_one() {
    let store = Store::local();
    let script = "trap 'echo interrupted' INT; n=0; while :; do n=$((n+1)); test -t 1 && echo tty; echo tick $n; \
                  echo err $n >&2; sleep 0.05; done";
    let pipes = Container::of("pipes").store(&store).command(&["bash", "-c", script]);
    let terminal = pipes.clone().tty();
    let mut last = 0;
    for (container, errors_among_lines) in [(&pipes, false), (&terminal, true), (&pipes, false), (&terminal, true)] {
        let running = container.start();
        running.wait_for_line("tick ");
        last = preempt(&running, last);
        assert!(!running.stdout().contains("tty"), "{}", running.stdout());
        assert_eq!(running.stdout().contains("err "), errors_among_lines, "{}", running.report());
        assert_eq!(running.stderr().contains("err "), !errors_among_lines, "{}", running.report());
    }
}

#[test]
fn always_and_never_mean_what_they_say() {
    let store = Store::local();
    let script = "test -t 0 && echo in; test -t 1 && echo out; sleep 0.2; echo end";
    let said = |container: Container| {
        let running = container.start();
        assert_eq!(running.wait(), 0, "{}", running.stderr());
        running.stdout_lines().into_iter().filter(|line| !line.starts_with("revenant:")).collect::<Vec<_>>()
    };
    let container = |job: &str, mode: &str| {
        Container::of(job).store(&store).options(&["--tty", mode]).command(&["sh", "-c", script])
    };
    assert_eq!(said(container("always", "always")), ["in", "out", "end"]);
    assert_eq!(said(container("never", "never").tty()), ["end"]);
    assert_eq!(said(container("auto", "auto")), ["end"]);
    assert_eq!(said(container("auto-tty", "auto").tty()), ["in", "out", "end"]);
}
