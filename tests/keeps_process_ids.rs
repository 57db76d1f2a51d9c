//! Process IDs are part of the state: a restore gets them back, whoever else lives in the container.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Signal, Store, Ticks};

fn numbers(running: &Running) -> Vec<u64> {
    running
        .stdout_lines()
        .iter()
        .filter_map(|line| line.strip_prefix("tick ")?.split(' ').next()?.parse().ok())
        .collect()
}

fn preempt_after(running: &Running, ticks: usize) -> Vec<u64> {
    running.wait_until("ticks", || numbers(running).len() >= ticks);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(), 200, "{}", running.report());
    numbers(running)
}

#[test]
fn of_processes_and_threads_that_come_and_go_all_the_time() {
    let store = Store::local();
    let container = Container::of("spawner").store(&store).workload("spawner.py", &[]);
    let mut all = Vec::new();
    for _ in 0..10 {
        let running = container.start();
        let ticks = preempt_after(&running, 4);
        let expected: Vec<u64> = (all.len() as u64 + 1..).take(ticks.len()).collect();
        assert_eq!(ticks, expected, "{}", running.report());
        all.extend(ticks);
    }
}

/// Before revenant, processes come and go until IDs up to `$1` are spent; what comes next gets those that the job needs.
const SPENDS_IDS: &str = "\
while read last < /proc/sys/kernel/ns_last_pid; [ $last -lt $1 ]; do /bin/true; done
exec revenant run -- python3 /workloads/counter.py";

/// The same, and one takes the next ID for a while.
const TAKES_AN_ID: &str = "\
while read last < /proc/sys/kernel/ns_last_pid; [ $last -lt $1 ]; do /bin/true; done
sleep $2 & echo side process $!
exec revenant run -- python3 /workloads/counter.py";

fn id_taken_for(store: &Store, seconds: &str) -> Container {
    // The command is the second process above 300.
    Container::of("taken").store(store).entrypoint(&["/bin/bash", "-c", TAKES_AN_ID, "bash", "301", seconds])
}

#[test]
fn an_id_that_is_taken_for_a_while_is_waited_for() {
    let store = Store::local();
    let job = Container::of("taken").store(&store).workload("counter.py", &[]);
    let first = job.start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);

    let second = id_taken_for(&store, "4").start();
    second.wait_for_line("side process 30");
    second.wait_for_stderr_line("waiting for sleep to release PID 30");
    second.wait_for_line("tick ");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait(), 200);
    Ticks::of(&first.stdout_lines()).then(Ticks::of(&second.stdout_lines())).assert_unbroken();

    // For good: it is named, nothing is lost, and nobody is killed for it.
    let third = id_taken_for(&store, "1000").start();
    third.wait_for_stderr_line("waiting for sleep to release PID 30");
    third.wait_for_process("sleep 1000");
    assert_eq!(third.wait_for(std::time::Duration::from_secs(120)), 202);
    assert!(third.stderr().contains("but sleep of this container holds it"), "{}", third.stderr());
    let fourth = job.start();
    fourth.wait_for_line("tick ");
}

/// Its engine, that engine's threads and its watcher all start before anybody knows which IDs the checkpoint needs.
#[test]
fn revenants_own_processes_make_room() {
    let store = Store::local();
    let job = Container::of("spent").store(&store).workload("counter.py", &[]);
    let first = job.start();
    first.wait_for_line("tick 3 ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(), 200);
    let mut ticks = Ticks::of(&first.stdout_lines());
    // The reaper is 302 and the command 303.
    for spent in ["290", "300", "301", "302", "303"] {
        let next = Container::of("spent")
            .store(&store)
            .env("REVENANT_CLOUD", "aws")
            .env("REVENANT_CLOUD_ENDPOINT", "http://127.0.0.1:9")
            .entrypoint(&["/bin/bash", "-c", SPENDS_IDS, "bash", spent])
            .start();
        next.wait_for_line("tick ");
        assert!(!next.stderr().contains("to release PID"), "{}", next.report());
        next.signal(Signal::SIGTERM);
        assert_eq!(next.wait(), 200, "{}", next.report());
        ticks = ticks.then(Ticks::of(&next.stdout_lines()));
    }
    ticks.assert_unbroken();
}

/// As in a pod with a shared process namespace: a side-car starts processes all the time, and may be
/// given any ID at any moment.
#[test]
fn beside_a_restless_side_car() {
    let store = Store::local();
    let restless = "while :; do /bin/true; done";
    let pod = Container::of("pod").store(&store).entrypoint(&["/bin/bash", "-c", restless]);
    let ticks = Ticks::beside(&pod, &["--children", "2", "--threads", "2"], 4);
    ticks.assert_unbroken();
    ticks.assert_true(&["--children", "2", "--threads", "2"]);
}

#[test]
fn exec_sessions_take_no_id_that_is_needed() {
    let store = Store::local();
    let container = Container::of("exec").store(&store).workload("counter.py", &["--children", "1"]);
    let mut ticks = Ticks::default();
    for _ in 0..3 {
        let running = container.start();
        // From the first moment on, and for as long as the container lives.
        let sessions: Vec<_> = (0..5).map(|_| running.exec_in_background(&["sleep", "1000"])).collect();
        running.wait_for_line(&format!("tick {} ", ticks.last() + 3));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 200, "{}", running.report());
        ticks = ticks.then(Ticks::of(&running.stdout_lines()));
        drop(sessions);
    }
    ticks.assert_unbroken();
}

/// Forks twice, leads a session of its own, lets go of everything; says each time that it lives.
const DAEMON: &str = r#"
import os, time
def daemon(name):
    if os.fork(): return os.wait()
    os.setsid()
    if os.fork(): os._exit(0)
    while os.getppid() == os.getsid(0): time.sleep(0.005)
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3): os.dup2(null, fd)
    count = 0
    while True:
        count += 1
        with open(name + ".new", "w") as file:
            file.write(f"{count} {os.getpid()} {os.getsid(0)} {os.getppid()}")
        os.rename(name + ".new", name)
        time.sleep(0.02)
daemon("/tmp/first")
n = 0
while True:
    n += 1
    if n == 20: daemon("/tmp/second")
    def read(name):
        try: return open(name).read()
        except FileNotFoundError: return "-"
    print("tick", n, read("/tmp/first"), "|", read("/tmp/second"), flush=True)
    time.sleep(0.05)
"#;

#[test]
fn daemons_stay_in_the_tree_with_their_sessions() {
    let store = Store::local();
    let container = Container::of("daemon").store(&store).command(&["python3", "-c", DAEMON]);
    let mut seen: Vec<(u64, Vec<String>)> = Vec::new();
    let mut from = 0;
    for _ in 0..3 {
        let running = container.start();
        preempt_after(&running, 14);
        for line in running.stdout_lines().iter().filter(|line| line.starts_with("tick ")) {
            let first = line.split(" | ").next().unwrap();
            let mut words = first.split(' ').skip(2).map(ToOwned::to_owned);
            if let Some(count) = words.next().and_then(|count| count.parse().ok()) {
                seen.push((count, words.collect()));
            }
        }
        assert!(seen.last().unwrap().0 > from + 5, "the daemon is gone: {}", running.report());
        from = seen.last().unwrap().0;
        let last = running.stdout_lines().pop().unwrap();
        if !last.ends_with("| -") {
            // The one that was born after a restore is a child of the reaper, too.
            let words: Vec<_> = last.split(" | ").nth(1).unwrap().split(' ').collect();
            assert_eq!(words[3], seen[0].1[2], "{last}");
        }
    }
    assert!(seen.len() > 30);
    for pair in seen.windows(2) {
        assert!(pair[0].0 <= pair[1].0, "the daemon went back: {pair:?}");
        assert_eq!(pair[0].1, pair[1].1, "its ID, session or parent changed");
    }
}
