//! How much memory the workload may come to use.

use std::fs;
use std::path::Path;

/// Where containers see the limit of their own group: cgroup v2, then v1.
const LIMITS: [&str; 2] = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Of a machine's memory without a limit: a job of that size is likely to have the machine for itself.
const SHARE: u64 = 4;

/// In bytes: the container's limit, or without one a quarter of the machine's memory.
pub fn memory() -> u64 {
    memory_in(Path::new("/"))
}

fn memory_in(root: &Path) -> u64 {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total(&text)).unwrap_or(0);
    LIMITS
        .iter()
        .filter_map(|path| fs::read_to_string(root.join(path)).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        // Version 1 says "no limit" by a number beyond any machine.
        .find(|limit| *limit < machine)
        .unwrap_or(machine / SHARE)
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn memory_with(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        memory_in(root.path())
    }

    #[test]
    fn the_limit_counts_where_there_is_one() {
        let machine = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 5 kB\n");
        assert_eq!(memory_with(&[machine]), 4 * GIB);
        assert_eq!(memory_with(&[machine, (LIMITS[0], "max\n")]), 4 * GIB);
        assert_eq!(memory_with(&[machine, (LIMITS[0], "8589934592\n")]), 8 * GIB);
        assert_eq!(memory_with(&[machine, (LIMITS[1], "9223372036854771712\n")]), 4 * GIB);
        assert_eq!(memory_with(&[machine, (LIMITS[1], "1073741824\n")]), GIB);
        assert_eq!(memory_with(&[]), 0);
    }
}
