//! `--restore lazy`: the workload runs before its memory has arrived, and never notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Scratch, Signal, Store, Ticks};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const WORKLOAD: [&str; 6] = ["--mib", "48", "--threads", "2", "--children", "2"];
/// What is said when it has; that it is waited for is said otherwise.
const ARRIVED: &str = "all memory has arrived, after";

fn lazily(container: Container, store: &Store) -> Container {
    container.store(store).env("REVENANT_LEASE", "1s").env("REVENANT_RESTORE", "lazy")
}

fn counter(store: &Store) -> Container {
    lazily(Container::of("lazy"), store).workload("counter.py", &WORKLOAD)
}

fn ticks(running: &Running) -> Ticks {
    Ticks::of(&running.stdout_lines())
}

/// Runs until a save stops it.
fn saved(container: &Container) -> Running {
    let running = container.start();
    running.wait_for_line("tick 3 ");
    stop(&running);
    running
}

fn stop(running: &Running) {
    let asked = running.exec(&["revenant", "checkpoint", "--stop"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert_eq!(running.wait(), 200);
}

/// It runs, and memory is missing.
fn wait_for_fill(running: &Running) {
    running.wait_for_stderr_line("of its memory come while it runs");
}

fn is_filling(running: &Running) -> bool {
    !running.stderr().contains(ARRIVED)
}

#[test]
fn all_memory_of_all_processes_is_what_it_was() {
    let store = Store::local();
    let first = saved(&counter(&store));

    let second = counter(&store).start();
    wait_for_fill(&second);
    second.wait_for_line(&format!("tick {} ", ticks(&first).last() + 5));
    second.wait_for_stderr_line(ARRIVED);
    // No process keeps what CRIU was run with.
    let maps = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let of_workload: Vec<String> = second.processes().iter().map(maps).filter(|maps| maps.contains("python")).collect();
    assert!(of_workload.len() >= 3, "{of_workload:?}");
    assert!(of_workload.iter().all(|maps| !maps.contains("criu")), "{of_workload:?}");
    // And it can be saved again: nothing is left of what has brought its memory.
    stop(&second);

    let third = counter(&store).start();
    third.wait_for_line(&format!("tick {} ", ticks(&second).last() + 5));
    ticks(&first).then(ticks(&second)).then(ticks(&third)).assert_true(&WORKLOAD);
}

/// Whatever a process does to memory that has not arrived, it finds there what it would have found without us.
fn changes_its_memory(capabilities: &[&str]) {
    let (store, control) = (Store::local(), Scratch::new());
    let stress = lazily(Container::of("stress"), &store)
        .capabilities(capabilities)
        .env("REVENANT_CLOCK", "best-effort")
        .env("REVENANT_FILL_LIMIT", "1M")
        .mount(control.path(), "/control")
        .workload("stress.py", &["/control/go"]);
    let first = stress.start();
    first.wait_for_line("built");
    stop(&first);

    fs::write(control.path().join("go"), "").unwrap();
    let second = stress.start();
    wait_for_fill(&second);
    second.wait_for_line("changed");
    assert!(is_filling(&second), "all memory came before it was changed");
    assert_eq!(second.wait(), 0, "{}{}", second.stdout(), second.stderr());
    assert!(second.stdout().ends_with("sound\n"), "{}", second.stdout());
}

#[test]
fn a_workload_may_do_anything_to_memory_that_is_missing() {
    changes_its_memory(&["CHECKPOINT_RESTORE", "SETPCAP", "SYS_PTRACE", "SYS_ADMIN", "SYS_TIME"]);
}

#[test]
fn the_least_that_it_takes_is_ptrace_besides_the_minimum() {
    changes_its_memory(&["CHECKPOINT_RESTORE", "SETPCAP", "SYS_PTRACE"]);
}

/// Without SYS_PTRACE the kernel tells nobody of forks.
#[test]
fn all_memory_is_restored_first_where_its_changes_would_not_be_told() {
    let store = Store::local();
    let minimal = counter(&store).capabilities(&["CHECKPOINT_RESTORE", "SETPCAP"]).env("REVENANT_CLOCK", "best-effort");
    let first = saved(&minimal);
    let second = minimal.start();
    second.wait_for_line(&format!("tick {} ", ticks(&first).last() + 5));
    second.wait_for_stderr_line("all memory is restored before the workload runs");
    assert!(second.stderr().contains("SYS_PTRACE"), "{}", second.stderr());
    ticks(&first).then(ticks(&second)).assert_true(&WORKLOAD);
}

#[test]
fn a_save_waits_until_all_has_arrived() {
    let store = Store::local();
    let first = saved(&counter(&store));
    let second = counter(&store).env("REVENANT_FILL_LIMIT", "24M").start();
    wait_for_fill(&second);
    let asked = second.exec_in_background(&["revenant", "checkpoint", "--stop"]);
    second.wait_for_stderr_line("the save begins when all memory has arrived");
    assert!(is_filling(&second), "{}", second.stderr());
    let answer = asked.wait();
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert_eq!(second.wait(), 200);
    let third = counter(&store).start();
    third.wait_for_line(&format!("tick {} ", ticks(&second).last().max(ticks(&first).last()) + 3));
    ticks(&first).then(ticks(&second)).then(ticks(&third)).assert_true(&WORKLOAD);
}

/// Ten times, each at another moment of the fill: what was durable stays, and it is restored again.
#[test]
fn nothing_is_lost_by_a_sigterm_during_the_fill() {
    let store = Store::local();
    let first = saved(&counter(&store));
    let newest = ticks(&first).last();
    let hasty = counter(&store).env("REVENANT_FILL_LIMIT", "4M").env("REVENANT_GRACE", "1s");
    for round in 0..10u64 {
        let running = hasty.start();
        wait_for_fill(&running);
        // Up to a second later, differently in each run.
        let moment = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_millis()) * (round + 1) % 1000;
        std::thread::sleep(std::time::Duration::from_millis(moment));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 201, "round {round}, after {moment} ms: {}", running.stderr());
        assert!(is_filling(&running), "{}", running.stderr());
        assert!(running.stderr().contains("generation 1-1"), "{}", running.stderr());
        let went_on = ticks(&running);
        if went_on.last() > 0 {
            ticks(&first).assert_continues(&went_on, newest);
            went_on.assert_true(&WORKLOAD);
        }
    }
    let last = counter(&store).start();
    last.wait_for_stderr_line(ARRIVED);
    last.wait_for_line(&format!("tick {} ", newest + 5));
    ticks(&first).then(ticks(&last)).assert_true(&WORKLOAD);
    ticks(&first).then(ticks(&last)).assert_unbroken();
}

#[test]
fn a_store_that_pauses_makes_the_workload_wait() {
    let store = Store::seaweed();
    let first = saved(&counter(&store));
    let second = counter(&store).env("REVENANT_FILL_LIMIT", "16M").start();
    wait_for_fill(&second);
    store.server().stop();
    second.wait_for_stderr_line("the workload waits for memory that has not arrived");
    assert!(is_filling(&second), "{}", second.stderr());
    store.server().resume();
    second.wait_for_stderr_line("the store answers again");
    second.wait_for_stderr_line(ARRIVED);
    second.wait_for_line(&format!("tick {} ", ticks(&first).last() + 5));
    ticks(&first).then(ticks(&second)).assert_true(&WORKLOAD);
}

#[test]
fn a_store_that_is_gone_ends_the_container_and_the_next_one_tries_again() {
    let store = Store::seaweed();
    let first = saved(&counter(&store));
    let patient = counter(&store).env("REVENANT_FILL_LIMIT", "8M").env("REVENANT_STORE_PATIENCE", "2s");
    let second = patient.start();
    wait_for_fill(&second);
    store.server().stop();
    assert_eq!(second.wait(), 214, "{}", second.stderr());
    ticks(&second).assert_true(&WORKLOAD);
    store.server().resume();
    let third = counter(&store).start();
    third.wait_for_stderr_line("continued from generation 1-1");
    third.wait_for_stderr_line(ARRIVED);
    third.wait_for_line(&format!("tick {} ", ticks(&first).last() + 5));
    ticks(&first).then(ticks(&third)).assert_true(&WORKLOAD);
}

/// Two generations; of the second one, which is much larger, memory in its middle is damaged.
#[test]
fn damage_that_is_found_late_is_never_served() {
    let (store, control) = (Store::local(), Scratch::new());
    let grower = lazily(Container::of("late"), &store)
        .mount(control.path(), "/control")
        .workload("grower.py", &["--grow-at", "/control/grow", "--most", "96", "--touch-at", "/control/touch"]);
    let first = saved(&grower);
    let before = store.files();
    fs::write(control.path().join("grow"), "").unwrap();
    let second = grower.start();
    second.wait_for_line("held 96 MiB");
    second.wait_for_stderr_line(ARRIVED);
    stop(&second);

    let is_new_pack = |file: &&PathBuf| file.to_string_lossy().contains("/packs/") && !before.contains(file);
    let files = store.files();
    let largest = files.iter().filter(is_new_pack).max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let middle = fs::metadata(largest).unwrap().len() / 2;
    let pack = fs::OpenOptions::new().read(true).write(true).open(largest).unwrap();
    let mut byte = [0];
    pack.read_exact_at(&mut byte, middle).unwrap();
    pack.write_all_at(&[byte[0] ^ 1], middle).unwrap();

    // Hardly anything comes by itself: the workload is what finds the damage.
    let third = grower.clone().env("REVENANT_FILL_LIMIT", "1K").start();
    wait_for_fill(&third);
    fs::write(control.path().join("touch"), "").unwrap();
    assert_eq!(third.wait(), 214, "{}", third.stderr());
    assert!(third.stderr().contains("could not be brought"), "{}", third.stderr());
    assert!(!third.stdout().contains("touched"), "{}", third.stdout());
    // The next one looks at everything first.
    let fourth = grower.start();
    fourth.wait_for_stderr_line("continued from generation 1-1");
    assert!(fourth.stderr().contains("generation 2-1 was not restored"), "{}", fourth.stderr());
    fourth.wait_for_line(&format!("tick {} held 0 MiB", first.stdout_lines().len() + 3));
}

#[test]
fn a_killed_engine_takes_the_half_filled_workload_with_it() {
    let store = Store::local();
    let first = saved(&counter(&store));
    let second = counter(&store).env("REVENANT_FILL_LIMIT", "4M").start();
    wait_for_fill(&second);
    // Not its keeper, which has its command line.
    let comm = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let command = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_engine = |pid: &i32| command(pid).starts_with("revenant\0engine") && comm(pid) != "revenant-keeper\n";
    let engine = second.processes().into_iter().find(is_engine).unwrap();
    kill(Pid::from_raw(engine), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(second.wait(), 214, "{}", second.stderr());
    ticks(&second).assert_true(&WORKLOAD);
    let third = counter(&store).start();
    third.wait_for_stderr_line("continued from generation 1-1");
    third.wait_for_line(&format!("tick {} ", ticks(&first).last() + 5));
    ticks(&first).then(ticks(&third)).assert_true(&WORKLOAD);
}

#[test]
fn what_was_waited_for_is_kept_with_the_next_generation() {
    let store = Store::local();
    let first = saved(&counter(&store).env("REVENANT_FILL_LIMIT", "64M"));
    let second = counter(&store).env("REVENANT_FILL_LIMIT", "64M").start();
    second.wait_for_stderr_line(ARRIVED);
    stop(&second);
    let third = counter(&store).start();
    third.wait_for_stderr_line(ARRIVED);
    let inspected = |generation: &str| third.exec(&["revenant", "inspect", generation]).stdout;
    assert!(!inspected("1-1").contains("revenant-hot.json"), "{}", inspected("1-1"));
    assert!(inspected("2-1").contains("revenant-hot.json"), "{}", inspected("2-1"));
    third.wait_for_line(&format!("tick {} ", ticks(&first).last().max(ticks(&second).last()) + 3));
    ticks(&first).then(ticks(&second)).then(ticks(&third)).assert_true(&WORKLOAD);
}

fn with_huge_pages(store: &Store) -> Container {
    lazily(Container::of("large"), store).workload("huge.py", &["--mib", "64"])
}

/// Of the workload, in MiB.
fn huge_pages(running: &Running) -> u64 {
    let workload = running.wait_for_process("python3 /workloads/huge.py --mib 64");
    let text = fs::read_to_string(format!("/proc/{workload}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() / 1024
}

/// All memory has arrived, and the engine has nothing left to do.
fn wait_for_end_of_engine(running: &Running) {
    running.wait_for_stderr_line(ARRIVED);
    let command = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    running.wait_until("the engine has ended", || {
        !running.processes().iter().any(|pid| command(pid).starts_with("revenant\0engine"))
    });
}

/// The next ticks find all memory as it was.
fn assert_sound(running: &Running) {
    let seen = running.stdout_lines().len();
    running.wait_until("it ticks", || running.stdout_lines().len() >= seen + 2);
    let lines = running.stdout_lines();
    assert!(lines.iter().all(|line| line.ends_with("sound")), "{lines:?}");
}

#[test]
fn huge_pages_are_huge_again_where_the_container_may_ask_for_them() {
    let store = Store::local();
    let container = with_huge_pages(&store).add_capability("SYS_NICE");
    let first = container.start();
    first.wait_for_line("tick 2 ");
    let before = huge_pages(&first);
    let given = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or("[never]".into());
    assert!(before >= 56 || given.contains("[never]"), "{before} MiB, {given}");
    stop(&first);

    let second = container.start();
    wait_for_end_of_engine(&second);
    let after = huge_pages(&second);
    assert!(after * 10 >= before * 9, "{after} MiB in huge pages, {before} MiB before");
    assert_sound(&second);
    // And it can be saved again.
    stop(&second);
    let third = container.start();
    third.wait_for_stderr_line(ARRIVED);
    assert_sound(&third);
}

#[test]
fn memory_that_had_huge_pages_is_restored_where_the_container_may_not_ask_for_them() {
    let store = Store::local();
    let container = with_huge_pages(&store);
    let first = container.start();
    first.wait_for_line("tick 2 ");
    stop(&first);
    let second = container.start();
    wait_for_end_of_engine(&second);
    assert_sound(&second);
    // No word of it: nothing is wrong.
    assert!(!second.stderr().contains("huge page"), "{}", second.stderr());
    stop(&second);
}

/// A save does not wait for huge pages: it begins while they are made.
#[test]
fn a_save_at_any_moment_ends_the_making_of_huge_pages() {
    let store = Store::local();
    let container = with_huge_pages(&store).add_capability("SYS_NICE");
    let first = container.start();
    first.wait_for_line("tick 2 ");
    stop(&first);
    for _ in 0..5 {
        let next = container.start();
        next.wait_for_stderr_line(ARRIVED);
        stop(&next);
    }
    let last = container.start();
    last.wait_for_stderr_line(ARRIVED);
    assert_sound(&last);
}

/// A cache on the node is filled, and what is damaged in it comes from the store.
#[test]
fn a_cache_is_used_and_never_trusted() {
    let (store, node) = (Store::seaweed(), Scratch::new());
    let cached = counter(&store).mount(node.path(), "/node").env("REVENANT_CACHE_DIR", "/node/cache");
    let first = saved(&cached);
    let files = || -> Vec<PathBuf> {
        let entries = fs::read_dir(node.path().join("cache")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    for damaged in [false, true] {
        if damaged {
            for file in files() {
                let mut bytes = fs::read(&file).unwrap();
                bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 0x55);
                fs::write(&file, bytes).unwrap();
            }
        }
        let running = cached.start();
        wait_for_fill(&running);
        running.wait_for_stderr_line(ARRIVED);
        running.wait_for_line(&format!("tick {} ", ticks(&first).last() + 3));
        running.kill9();
        ticks(&first).then(ticks(&running)).assert_true(&WORKLOAD);
        assert!(!files().is_empty());
    }
}
