//! The lines of `tests/workloads/counter.py`, and whether they are what they must be.

use super::{Container, cache};
use std::collections::BTreeMap;
use std::process::Command;

/// A series of ticks: what a counter printed, in one container or in several after each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ticks(Vec<(u64, String)>);

impl Ticks {
    /// The ticks among these lines.
    pub fn of(lines: &[String]) -> Self {
        let parse = |line: &String| {
            let mut words = line.split(' ');
            let (Some("tick"), Some(number), Some("hash"), Some(hash), None) =
                (words.next(), words.next(), words.next(), words.next(), words.next())
            else {
                return None;
            };
            Some((number.parse().ok()?, hash.to_owned()))
        };
        Self(lines.iter().filter_map(parse).collect())
    }

    /// The ticks of a counter whose entrypoint is not PID 1 but a process among others in this pod's containers:
    /// preempted after at least three ticks, so many times.
    pub fn beside(pod: &Container, arguments: &[&str], times: usize) -> Self {
        let counter = arguments.join(" ");
        let script = format!("echo $$ > /entrypoint; exec revenant run -- python3 /workloads/counter.py {counter}");
        let mut ticks = Self::default();
        for _ in 0..times {
            let pod = pod.start();
            let container = pod.exec_in_background(&["sh", "-c", &script]);
            container.wait_for_line(&format!("tick {} ", ticks.last() + 3));
            assert_eq!(pod.exec(&["sh", "-c", "kill -TERM $(cat /entrypoint)"]).code, 0);
            let ended = container.wait();
            assert_eq!(ended.code, 200, "{}", ended.stderr);
            let lines: Vec<_> = ended.stdout.lines().map(ToOwned::to_owned).collect();
            ticks = ticks.then(Self::of(&lines));
        }
        ticks
    }

    /// The number of the last tick, 0 if there is none.
    pub fn last(&self) -> u64 {
        self.0.last().map_or(0, |(number, _)| *number)
    }

    /// The number of the first tick, 0 if there is none.
    pub fn first(&self) -> u64 {
        self.0.first().map_or(0, |(number, _)| *number)
    }

    /// These ticks and then those of the next container.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    /// The numbers must be 1, 2, 3 … with nothing skipped and nothing twice: the counter was only
    /// ever stopped at its last save.
    pub fn assert_unbroken(&self) {
        for (index, (number, _)) in self.0.iter().enumerate() {
            assert_eq!(*number, index as u64 + 1, "the counter skipped or went back: {:?}", self.numbers());
        }
    }

    /// The numbers must be consecutive within each container; between two containers the counter
    /// may go back to the last save, but never further than `at_least`, and never skips.
    pub fn assert_continues(&self, next: &Self, at_least: u64) {
        assert!(
            next.first() > at_least && next.first() <= self.last() + 1,
            "after {} came {}; the save was made at {at_least} or later",
            self.last(),
            next.first()
        );
        for pair in next.0.windows(2) {
            assert_eq!(pair[1].0, pair[0].0 + 1, "the counter skipped or went back: {:?}", next.numbers());
        }
    }

    /// Every hash must be the one that an uninterrupted run of the same workload prints.
    pub fn assert_true(&self, arguments: &[&str]) {
        let highest = self.0.iter().map(|(number, _)| *number).max().unwrap_or(0);
        if highest == 0 {
            // A counter that has not counted has not gone wrong; and its reference would count without end.
            return;
        }
        let reference = reference(highest, arguments);
        for (number, hash) in &self.0 {
            assert_eq!(Some(hash), reference.get(number), "memory differs from an uninterrupted run at tick {number}");
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.0.iter().map(|(number, _)| *number).collect()
    }
}

/// What the same workload prints when nobody disturbs it: run here, without pauses.
fn reference(ticks: u64, arguments: &[&str]) -> BTreeMap<u64, String> {
    let output = Command::new("python3")
        .arg(cache::workloads().join("counter.py"))
        .args(arguments)
        .args(["--interval", "0", "--ticks", &ticks.to_string(), "--file", ""])
        .output()
        .expect("python3 cannot be run");
    assert!(output.status.success(), "the reference run failed: {}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect();
    Ticks::of(&lines).0.into_iter().collect()
}
