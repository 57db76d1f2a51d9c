//! The test harness itself: containers, signals, exec, stores. Nothing here goes through revenant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Signal, Store, Ticks};

#[test]
fn a_program_runs_and_its_streams_and_exit_code_are_seen() {
    let echo = Container::of("smoke").entrypoint(&["/bin/echo", "hello"]).start();
    assert_eq!(echo.wait(), 0);
    assert_eq!(echo.stdout(), "hello\n");
    assert_eq!(echo.stderr(), "");

    let failing = Container::of("smoke").entrypoint(&["/bin/sh", "-c", "echo bad >&2; exit 7"]).start();
    assert_eq!(failing.wait(), 7);
    assert_eq!(failing.stderr(), "bad\n");
}

#[test]
fn signals_arrive_and_a_killed_container_ends_with_137() {
    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let container = Container::of("smoke").entrypoint(&["/bin/bash", "-c", script]);

    let told = container.start();
    told.wait_for_line("ready");
    told.signal(Signal::SIGTERM);
    assert_eq!(told.wait(), 3);
    assert_eq!(told.stdout_lines(), ["ready", "told"]);

    let killed = container.start();
    killed.wait_for_line("ready");
    assert!(!killed.processes().is_empty());
    killed.kill9();
}

#[test]
fn commands_run_beside_pid_1_and_see_what_it_sees() {
    let container =
        Container::of("smoke").env("COLOUR", "green").hostname("pod-0").entrypoint(&["sleep", "1000"]).start();
    let output = container.exec(&["sh", "-c", "echo $COLOUR $(hostname) $REVENANT_JOB; echo oops >&2; exit 5"]);
    assert_eq!(output.code, 5);
    assert_eq!(output.stdout, "green pod-0 smoke\n");
    assert_eq!(output.stderr, "oops\n");
    let pid_1 = container.exec(&["cat", "/proc/1/comm"]);
    assert_eq!(pid_1.stdout, "sleep\n");
}

#[test]
fn each_container_has_a_fresh_root_file_system_and_mounts_are_shared() {
    let store = Store::local();
    let container = Container::of("smoke").store(&store).entrypoint(&[
        "/bin/sh",
        "-c",
        "ls /own 2>/dev/null; ls /checkpoints; echo $REVENANT_STORE; touch /own /checkpoints/kept",
    ]);
    let first = container.start();
    assert_eq!(first.wait(), 0);
    assert_eq!(first.stdout_lines(), ["file:///checkpoints"]);
    assert!(first.root().join("own").exists());
    let second = container.start();
    assert_eq!(second.wait(), 0);
    assert_eq!(second.stdout_lines(), ["kept", "file:///checkpoints"]);
    assert_eq!(store.files().len(), 1);
}

#[test]
fn the_container_has_the_documented_capabilities_and_no_seccomp_filter_unless_asked() {
    let status = ["grep", "-E", "^(CapEff|Seccomp|NoNewPrivs):", "/proc/self/status"];
    let container = Container::of("smoke").entrypoint(&status);
    // Docker's default set, with SYS_PTRACE (19) and CHECKPOINT_RESTORE (40).
    assert_eq!(lines(&container), ["CapEff:\t00000100a80c25fb", "NoNewPrivs:\t0", "Seccomp:\t0"]);
    let restricted = container.clone().seccomp_filter().no_new_privileges().drop_capability("SYS_PTRACE");
    assert_eq!(lines(&restricted), ["CapEff:\t00000100a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2"]);
    let ordinary = container.user(1000, 1000);
    assert_eq!(lines(&ordinary)[0], "CapEff:\t0000000000000000");
}

#[test]
fn a_terminal_is_a_terminal_and_a_pipe_is_a_pipe() {
    let script = "tty; read -r line; echo got $line; exit 4";
    let container = Container::of("smoke").entrypoint(&["/bin/sh", "-c", script]);
    let terminal = container.clone().tty().start();
    terminal.wait_for_line("/dev/pts/0");
    terminal.write_stdin("words\n");
    assert_eq!(terminal.wait(), 4);
    assert!(terminal.stdout_lines().contains(&"got words".to_owned()));

    let piped = container.stdin().start();
    piped.wait_for_line("not a tty");
    piped.write_stdin("more\n");
    piped.close_stdin();
    assert_eq!(piped.wait(), 4);
    assert_eq!(piped.stdout_lines()[1], "got more");
}

#[test]
fn limits_networks_and_read_only_roots_are_what_was_asked_for() {
    let limited = Container::of("smoke")
        .memory_limit(64 << 20)
        .entrypoint(&["python3", "-c", "x = bytearray(256 << 20); print(len(x))"])
        .start();
    assert_eq!(limited.wait(), 137, "the OOM killer ends what exceeds its limit");

    let script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1; touch /x 2>/dev/null || echo read-only; touch /tmp/x && echo tmp";
    let alone =
        Container::of("smoke").own_network().read_only_root().tmpfs("/tmp").entrypoint(&["/bin/sh", "-c", script]);
    let seen: Vec<_> = lines(&alone).iter().map(|line| line.trim().to_owned()).collect();
    assert_eq!(seen, ["lo", "read-only", "tmp"]);
}

#[test]
fn the_counter_is_the_same_in_a_container_as_in_its_reference() {
    let options = ["--threads", "2", "--children", "2", "--pipeline"];
    let limit = ["--ticks", "20", "--interval", "0.01", "--exit", "6"];
    let command = [&["python3", "/workloads/counter.py"], &options[..], &limit[..]].concat();
    let counter = Container::of("smoke").entrypoint(&command).start();
    assert_eq!(counter.wait(), 6);
    let ticks = Ticks::of(&counter.stdout_lines());
    assert_eq!(ticks.last(), 20);
    ticks.assert_unbroken();
    ticks.assert_true(&options);
}

#[test]
fn an_s3_server_is_reached_from_a_container_and_can_go_away_and_come_back() {
    let store = Store::seaweed();
    let script = "import os, urllib.request, urllib.error\n\
        try: urllib.request.urlopen(os.environ['AWS_ENDPOINT_URL'] + '/checkpoints/', timeout=10)\n\
        except urllib.error.HTTPError as error: print('status', error.code)\n\
        except urllib.error.URLError as error: print('unreachable')";
    let container = Container::of("smoke").store(&store).entrypoint(&["python3", "-c", script]);
    // Nobody gets in without credentials.
    assert_eq!(lines(&container), ["status 403"]);
    store.server().stop();
    assert_eq!(lines(&container), ["unreachable"]);
    store.server().resume();
    assert_eq!(lines(&container), ["status 403"]);
}

fn lines(container: &Container) -> Vec<String> {
    let running = container.start();
    assert_eq!(running.wait(), 0);
    running.stdout_lines()
}
