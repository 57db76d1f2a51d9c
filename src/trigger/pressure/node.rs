//! The node's memory, as `/proc/meminfo` shows it to every container.

use crate::trigger::hysteresis::Band;
use std::fs;
use std::path::PathBuf;

/// At least this part of the node's memory is "near": the last of a large machine goes fast.
const PART: u64 = 100;

/// Where it is read.
#[derive(Debug)]
pub struct Memory(PathBuf);

impl Default for Memory {
    fn default() -> Self {
        Self("/proc/meminfo".into())
    }
}

impl Memory {
    /// What a new process could get without swapping, in bytes (`MemAvailable`). The kubelet computes
    /// `memory.available` from the root cgroup, and comes to nearly the same.
    pub fn available(&self) -> Option<u64> {
        kib(&fs::read_to_string(&self.0).ok()?, "MemAvailable:")
    }

    /// Where to fire, for a kubelet that evicts below `eviction` bytes: at twice that, or a hundredth of the node.
    #[allow(clippy::cast_precision_loss)]
    pub fn band(&self, eviction: u64) -> Option<Band> {
        let total = kib(&fs::read_to_string(&self.0).ok()?, "MemTotal:")?;
        let fire = (eviction * 2).max(total / PART);
        // Halfway to the whole at the most, so that it can be calm again.
        let rearm = (fire + fire / 2).min(fire.midpoint(total));
        (fire < total).then_some(Band { fire: fire as f64, rearm: rearm as f64 })
    }
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_near_well_before_the_kubelet_evicts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("meminfo");
        let node = |total: u64| {
            fs::write(&file, format!("MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable:     2048 kB\n")).unwrap();
            Memory(file.clone())
        };
        assert_eq!(node(1 << 20).available(), Some(2 << 20));
        let fires = |total| node(total).band(100 << 20).map(|band| band.fire);
        assert_eq!(fires(8 << 20), Some(f64::from(200 << 20)));
        assert_eq!(fires(256 << 20), Some((f64::from(256 << 20) * 1024.0 / 100.0).floor()));
        assert_eq!(fires(150 << 10), None, "it could never be above the threshold");
        let small = node(300 << 10).band(100 << 20).unwrap();
        assert_eq!((small.fire, small.rearm), (f64::from(200 << 20), f64::from(250 << 20)), "and it can be calm again");
    }
}
