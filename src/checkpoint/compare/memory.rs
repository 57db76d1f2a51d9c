//! Memory before and after, mapping by mapping. Pure.

use super::tree::{Process, Tree};
use serde::Serialize;
use std::collections::BTreeSet;

/// One mapping that has memory in either generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MappingChange {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// The mapped file's path, `heap`, `stack`, `anonymous`, `shared memory N`.
    pub what: String,
    /// Bytes of memory at these addresses in the older generation.
    pub before: u64,
    /// Bytes in the newer one.
    pub after: u64,
    /// Bytes of these that the older one has nowhere.
    pub new: u64,
    /// Whether the newer generation does not map these addresses.
    pub gone: bool,
}

/// A process of either generation. A restore keeps PIDs, so the same PID is the same process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessChange {
    /// Its PID.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Whether the older generation has it.
    pub was: bool,
    /// Whether the newer generation has it.
    pub is: bool,
    /// Bytes of memory in the older generation.
    pub before: u64,
    /// Bytes in the newer one.
    pub after: u64,
    /// Bytes of these that the older one has nowhere.
    pub new: u64,
    /// Its mappings by address, but for those with no memory in either.
    pub mappings: Vec<MappingChange>,
}

/// Memory that processes share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedChange {
    /// CRIU's number for it, as in `shared memory N`.
    pub number: u64,
    /// Bytes in the older generation.
    pub before: u64,
    /// Bytes in the newer one.
    pub after: u64,
    /// Bytes of these that the older one has nowhere.
    pub new: u64,
}

pub(super) fn processes(before: &Tree, after: &Tree) -> Vec<ProcessChange> {
    let pids: BTreeSet<u32> = before.processes.keys().chain(after.processes.keys()).copied().collect();
    let nothing = Process::default();
    let change = |pid| {
        let (old, new) = (before.processes.get(&pid), after.processes.get(&pid));
        let (was, is) = (old.is_some(), new.is_some());
        let named = new.or(old).map_or_else(String::new, |process| process.name.clone());
        let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        ProcessChange {
            pid,
            name: named,
            was,
            is,
            before: old.present.total(),
            after: new.present.total(),
            new: new.new.total(),
            mappings: mappings(old, new),
        }
    };
    pids.into_iter().map(change).collect()
}

fn mappings(old: &Process, new: &Process) -> Vec<MappingChange> {
    let mut changes: Vec<MappingChange> = Vec::new();
    for mapping in &new.mappings {
        changes.push(MappingChange {
            start: mapping.range.start,
            end: mapping.range.end,
            what: mapping.what.clone(),
            before: old.present.covered(&mapping.range),
            after: new.present.covered(&mapping.range),
            new: new.new.covered(&mapping.range),
            gone: false,
        });
    }
    // What the older one had at addresses that nothing is mapped at any more.
    for mapping in &old.mappings {
        let still = new.mappings.iter().map(|now| {
            let both = mapping.range.start.max(now.range.start)..mapping.range.end.min(now.range.end);
            if both.is_empty() { 0 } else { old.present.covered(&both) }
        });
        let lost = old.present.covered(&mapping.range) - still.sum::<u64>();
        if lost > 0 {
            changes.push(MappingChange {
                start: mapping.range.start,
                end: mapping.range.end,
                what: mapping.what.clone(),
                before: lost,
                after: 0,
                new: 0,
                gone: true,
            });
        }
    }
    changes.retain(|change| change.before > 0 || change.after > 0);
    changes.sort_by_key(|change| (change.start, change.gone));
    changes
}

pub(super) fn shared(before: &Tree, after: &Tree) -> Vec<SharedChange> {
    let numbers: BTreeSet<u64> = before.shared.keys().chain(after.shared.keys()).copied().collect();
    let change = |number| SharedChange {
        number,
        before: before.shared.get(&number).map_or(0, |shared| shared.present.total()),
        after: after.shared.get(&number).map_or(0, |shared| shared.present.total()),
        new: after.shared.get(&number).map_or(0, |shared| shared.new.total()),
    };
    numbers.into_iter().map(change).collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // One range, as a slice.
mod tests {
    use super::super::extent::Extents;
    use super::super::tree::Mapping;
    use super::*;
    use std::ops::Range;

    fn extents(ranges: &[Range<u64>]) -> Extents {
        let mut extents = Extents::default();
        for range in ranges {
            extents.push(range.clone());
        }
        extents
    }

    fn process(mappings: &[(Range<u64>, &str)], present: &[Range<u64>], new: &[Range<u64>]) -> Process {
        let mapping = |(range, what): &(Range<u64>, &str)| Mapping { range: range.clone(), what: (*what).to_owned() };
        Process {
            name: "worker".to_owned(),
            mappings: mappings.iter().map(mapping).collect(),
            present: extents(present),
            new: extents(new),
        }
    }

    fn row(change: &MappingChange) -> (u64, u64, &str, u64, u64, u64, bool) {
        let MappingChange { start, end, what, before, after, new, gone } = change;
        (*start, *end, what, *before, *after, *new, *gone)
    }

    #[test]
    fn a_heap_grows_and_a_buffer_goes() {
        let old = process(
            &[(0..100, "heap"), (500..600, "anonymous"), (900..950, "stack")],
            &[0..80, 500..560, 900..910],
            &[],
        );
        let new = process(
            &[(0..200, "heap"), (550..580, "anonymous"), (900..950, "stack")],
            &[0..180, 550..560, 900..910],
            &[60..180],
        );
        let changes = mappings(&old, &new);
        let rows: Vec<_> = changes.iter().map(row).collect();
        assert_eq!(
            rows,
            [
                (0, 200, "heap", 80, 180, 120, false),
                (500, 600, "anonymous", 50, 0, 0, true),
                (550, 580, "anonymous", 10, 10, 0, false),
                (900, 950, "stack", 10, 10, 0, false),
            ]
        );
    }

    #[test]
    fn processes_come_and_go() {
        let one = process(&[(0..10, "heap")], &[0..10], &[0..10]);
        let before = Tree { processes: [(7, one.clone())].into(), ..Tree::default() };
        let after = Tree { processes: [(9, one)].into(), ..Tree::default() };
        let changes = processes(&before, &after);
        assert_eq!(
            (changes[0].pid, changes[0].was, changes[0].is, changes[0].before, changes[0].after),
            (7, true, false, 10, 0)
        );
        assert_eq!(
            (changes[1].pid, changes[1].was, changes[1].is, changes[1].before, changes[1].new),
            (9, false, true, 0, 10)
        );
    }
}
