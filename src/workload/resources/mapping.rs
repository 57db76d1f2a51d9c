//! Mappings that are more than memory or a file, from `/proc/PID/maps`.

use std::collections::BTreeSet;
use std::fs;

/// What a process has mapped, each kind once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Special {
    /// System V shared memory.
    pub system_v: bool,
    /// Devices, by path.
    pub devices: BTreeSet<String>,
    /// Kernel objects, for example `io_uring`.
    pub anonymous: BTreeSet<String>,
}

/// Reads the maps of a process; nothing if it may not be looked into.
pub fn of(pid: i32) -> Special {
    fs::read(format!("/proc/{pid}/maps")).map(|text| parse(&String::from_utf8_lossy(&text))).unwrap_or_default()
}

fn parse(text: &str) -> Special {
    let mut special = Special::default();
    for path in text.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(str::trim_start) {
        if path.starts_with("/SYSV") {
            special.system_v = true;
        } else if let Some(name) = path.strip_prefix("anon_inode:") {
            special.anonymous.insert(name.trim_matches(['[', ']']).to_owned());
        } else if let Some(device) = path.strip_prefix("/dev/")
            && !device.starts_with("shm/")
            && !["zero", "null", "mem"].contains(&device.trim_end_matches(" (deleted)"))
        {
            special.devices.insert(path.to_owned());
        }
    }
    special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_neither_memory_nor_file() {
        let special = parse(
            "7f00-7f01 rw-s 00000000 00:01 5                          /SYSV00000000 (deleted)\n\
             7f02-7f03 rw-s 00000000 00:0e 6                          anon_inode:[io_uring]\n\
             7f04-7f05 rw-s 00000000 00:05 7                          /dev/nvidia0\n\
             7f06-7f07 rw-s 00000000 00:19 8                          /dev/shm/x\n\
             7f08-7f09 rw-s 00000000 00:01 9                          /dev/zero (deleted)\n\
             7f0a-7f0b rw-p 00000000 00:00 0                          [heap]\n\
             7f0c-7f0d r-xp 00000000 fe:00 3                          /usr/bin/with space\n",
        );
        assert!(special.system_v);
        assert_eq!(special.devices, BTreeSet::from(["/dev/nvidia0".to_owned()]));
        assert_eq!(special.anonymous, BTreeSet::from(["io_uring".to_owned()]));
    }
}
