//! The memory of the container's group: what it uses, what it may use, and who was killed for it.
//!
//! Names of files and keys: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.

use super::{Group, keyed, number};
use std::fs;

/// Version 1 says "no limit" by a number beyond any machine.
const NO_LIMIT: u64 = 1 << 60;

/// One look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// What the kernel cannot take back by forgetting what it has read from files, in bytes.
    pub held: u64,
    /// The lowest limit that applies, in bytes. None when there is none.
    pub limit: Option<u64>,
}

impl Use {
    /// The part of the limit that is held.
    #[allow(clippy::cast_precision_loss)] // A ratio for a threshold.
    pub fn ratio(&self) -> Option<f64> {
        self.limit.filter(|limit| *limit > 0).map(|limit| self.held as f64 / limit as f64)
    }

    /// How much more may be taken. None when there is no limit.
    pub fn headroom(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.held))
    }
}

/// The memory group of this process.
#[derive(Debug, Clone)]
pub struct Memory(Group);

impl Memory {
    /// None where the container does not show it.
    pub fn here() -> Option<Self> {
        super::of("memory").map(Self)
    }

    /// Of a group somewhere.
    pub fn of(group: Group) -> Self {
        Self(group)
    }

    /// Where its files are.
    pub fn group(&self) -> &Group {
        &self.0
    }

    /// What is used now. None when the files are gone.
    pub fn look(&self) -> Option<Use> {
        let stat = self.text("memory.stat")?;
        let (used, limit, prefix) = if self.0.unified {
            (self.number("memory.current")?, self.number("memory.max"), "")
        } else {
            let limits = [self.number("memory.limit_in_bytes"), keyed(&stat, "hierarchical_memory_limit")];
            let limit = limits.into_iter().flatten().min().filter(|limit| *limit < NO_LIMIT);
            (self.number("memory.usage_in_bytes")?, limit, "total_")
        };
        let cached = ["inactive_file", "active_file"].map(|key| keyed(&stat, &format!("{prefix}{key}")).unwrap_or(0));
        Some(Use { held: used.saturating_sub(cached.iter().sum()), limit })
    }

    /// How many processes the kernel has killed here because the limit was reached.
    pub fn kills(&self) -> Option<u64> {
        keyed(&self.text(if self.0.unified { "memory.events" } else { "memory.oom_control" })?, "oom_kill")
    }

    /// The most that was ever used, in bytes.
    pub fn peak(&self) -> Option<u64> {
        self.number(if self.0.unified { "memory.peak" } else { "memory.max_usage_in_bytes" })
    }

    /// The same with swap. Version 2 counts them apart, and the sum is the most that it can have been.
    pub fn peak_with_swap(&self) -> Option<u64> {
        if self.0.unified {
            self.number("memory.swap.peak").and_then(|swapped| Some(self.peak()?.saturating_add(swapped)))
        } else {
            self.number("memory.memsw.max_usage_in_bytes")
        }
    }

    fn number(&self, file: &str) -> Option<u64> {
        number(&self.0.folder.join(file))
    }

    fn text(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.0.folder.join(file)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(unified: bool, files: &[(&str, &str)]) -> (tempfile::TempDir, Memory) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let memory = Memory::of(Group { folder: folder.path().to_owned(), unified });
        (folder, memory)
    }

    #[test]
    fn what_is_read_from_files_does_not_count() {
        let stat = "anon 600\ninactive_file 200\nactive_file 100\n";
        let files = [
            ("memory.current", "900\n"),
            ("memory.max", "1000\n"),
            ("memory.stat", stat),
            ("memory.events", "oom_kill 2\n"),
        ];
        let (_folder, memory) = group(true, &files);
        let seen = memory.look().unwrap();
        assert_eq!((seen.held, seen.limit, seen.headroom(), memory.kills()), (600, Some(1000), Some(400), Some(2)));
        assert!((seen.ratio().unwrap() - 0.6).abs() < 1e-9);
    }

    #[test]
    fn version_1_takes_the_lowest_limit_of_the_hierarchy() {
        let stat = "inactive_file 1\nhierarchical_memory_limit 500\ntotal_inactive_file 20\ntotal_active_file 30\n";
        let files = [
            ("memory.usage_in_bytes", "450\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", stat),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        ];
        let (_folder, memory) = group(false, &files);
        assert_eq!(memory.look(), Some(Use { held: 400, limit: Some(500) }));
        assert_eq!(memory.kills(), Some(1));
    }

    #[test]
    fn no_limit_is_none() {
        let (_folder, memory) = group(true, &[("memory.current", "5\n"), ("memory.max", "max\n"), ("memory.stat", "")]);
        assert_eq!(memory.look().unwrap().ratio(), None);
    }
}
