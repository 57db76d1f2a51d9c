//! `revenant diff` says which process, which mapping and which file grew between two saves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;

use harness::{Container, Running, Store};
use serde_json::Value;
use std::process::{Command, Output};

const MIB: u64 = 1 << 20;

fn ask(running: &Running, line: &str) {
    running.write_stdin(&format!("{line}\n"));
    running.wait_for_line(&format!("done {line}"));
}

fn save(running: &Running) {
    let asked = running.exec(&["revenant", "checkpoint"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
}

fn diff(store: &Store, arguments: &[&str]) -> Output {
    let mut diff = Command::new(env!("CARGO_BIN_EXE_revenant"));
    diff.args(["diff", "--job", "grower", "--store"]);
    let output = diff.arg(format!("file://{}", store.directory().unwrap().display())).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn json(store: &Store, arguments: &[&str]) -> Value {
    serde_json::from_slice(&diff(store, &[&["--json"], arguments].concat()).stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The process named python3 with the most memory.
fn python(report: &Value) -> &Value {
    let all =
        report["processes"].as_array().unwrap().iter().filter(|p| p["name"].as_str().unwrap().starts_with("python"));
    all.max_by_key(|process| number(&process["after"])).unwrap()
}

#[test]
fn by_process_by_mapping_and_by_file() {
    let store = Store::local();
    let running = Container::of("grower")
        .store(&store)
        .stdin()
        .options(&["--keep-last", "9"])
        .workload("grows_on_request.py", &[])
        .start();
    ask(&running, "memory 8");
    ask(&running, "file 4");
    save(&running);
    ask(&running, "memory 16");
    ask(&running, "file 100");
    save(&running);

    let grown = json(&store, &[]);
    assert_eq!((grown["older"].as_str(), grown["newer"].as_str()), (Some("1-1"), Some("1-2")));
    let process = python(&grown);
    let by = number(&process["after"]) - number(&process["before"]);
    assert!((16 * MIB..18 * MIB).contains(&by), "{process}");
    assert!((16 * MIB..20 * MIB).contains(&number(&process["new"])), "{process}");
    // One mapping holds what is new; its neighbours do not.
    let mappings = process["mappings"].as_array().unwrap();
    let large: Vec<&Value> = mappings.iter().filter(|mapping| number(&mapping["new"]) > 8 * MIB).collect();
    assert_eq!(large.len(), 1, "{process}");
    for what in ["heap", "stack"] {
        assert!(mappings.iter().any(|mapping| mapping["what"] == what), "no {what}: {process}");
    }
    let sum = |field: &str| mappings.iter().map(|mapping| number(&mapping[field])).sum::<u64>();
    assert_eq!((sum("after"), sum("new")), (number(&process["after"]), number(&process["new"])), "nothing is lost");
    let file = &grown["files"].as_array().unwrap().iter().find(|file| file["path"] == "/var/tmp/results").unwrap();
    assert_eq!((&file["before"], &file["after"]), (&Value::from(4096), &Value::from(104 * 1024)));

    // Memory that changes in place does not grow, but it is new.
    ask(&running, "touch 4");
    save(&running);
    let touched = json(&store, &["1-2", "1-3"]);
    let process = python(&touched);
    assert!(number(&process["after"]).abs_diff(number(&process["before"])) < MIB, "{process}");
    assert!((4 * MIB..7 * MIB).contains(&number(&process["new"])), "{process}");

    // A child has all that its parent has, and nothing of it is new.
    ask(&running, "fork 0");
    save(&running);
    let forked = json(&store, &[]);
    let child = forked["processes"].as_array().unwrap().iter().find(|process| process["was"] == false).unwrap();
    assert!(number(&child["after"]) > 24 * MIB, "{child}");
    assert!(number(&child["new"]) < 2 * MIB, "{child}");
    assert!(number(&forked["memory_new"]) < 4 * MIB);

    let text = String::from_utf8(diff(&store, &["1-1", "1-2"]).stdout).unwrap();
    assert!(text.starts_with("memory from 1-1 to 1-2: "), "{text}");
    assert!(text.contains("file /var/tmp/results: 4.00 KiB → 104 KiB"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("process ") && line.contains("python3: ")), "{text}");
    // Backwards, what came has gone.
    let back = json(&store, &["1-4", "1-3"]);
    assert_eq!(back["processes"].as_array().unwrap().iter().filter(|process| process["is"] == false).count(), 1);
    println!("{text}");
}
