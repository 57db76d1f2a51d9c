//! What the processes of the workload hold: open files, mapped files, current directories, as
//! `/proc` shows them. Files without a name any more are CRIU's affair (ghost files).

use super::path::RelPath;
use crate::workload::tree::Process;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How a file is held, by any process of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hold {
    /// Open for writing, or mapped shared and writable.
    pub write: bool,
    /// Every descriptor that can write appends.
    pub append_only: bool,
    /// Mapped into memory.
    pub mapped: bool,
    /// The first process that holds it.
    pub pid: i32,
}

/// Everything held.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Regular files.
    pub files: BTreeMap<RelPath, Hold>,
    /// Current directories.
    pub directories: BTreeMap<RelPath, i32>,
    /// Processes that could not be looked into.
    pub closed: Vec<i32>,
}

impl Held {
    /// Looks into every process.
    pub fn by(tree: &[Process]) -> Self {
        let mut held = Self::default();
        for process in tree.iter().filter(|process| !matches!(process.state, 'Z' | 'X')) {
            let pid = process.pid;
            let readable = held.take_descriptors(pid) && held.take_maps(pid);
            if !readable && Process::read(pid).is_ok() {
                held.closed.push(pid);
            }
            if let Some(directory) = fs::read_link(format!("/proc/{pid}/cwd")).ok().and_then(|path| living(&path)) {
                held.directories.entry(directory).or_insert(pid);
            }
        }
        held
    }

    fn take_descriptors(&mut self, pid: i32) -> bool {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        for entry in entries.flatten() {
            let link = entry.path();
            let Some(path) = fs::read_link(&link).ok().and_then(|path| living(&path)) else { continue };
            let Ok(status) = fs::metadata(&link) else { continue };
            if !status.is_file() || status.nlink() == 0 {
                continue;
            }
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()));
            let flags = info.ok().as_deref().and_then(flags_of).unwrap_or(0);
            let write = matches!(flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR);
            self.add(path, Hold { write, append_only: write && flags & libc::O_APPEND != 0, mapped: false, pid });
        }
        true
    }

    fn take_maps(&mut self, pid: i32) -> bool {
        let Ok(text) = fs::read(format!("/proc/{pid}/maps")) else { return false };
        for (path, write) in text.split(|byte| *byte == b'\n').filter_map(mapping) {
            self.add(path, Hold { write, append_only: false, mapped: true, pid });
        }
        true
    }

    fn add(&mut self, path: RelPath, hold: Hold) {
        let known = self.files.entry(path).or_insert(Hold { append_only: true, pid: hold.pid, ..Hold::default() });
        known.append_only &= hold.append_only || !hold.write;
        known.write |= hold.write;
        known.mapped |= hold.mapped;
    }
}

/// A link of `/proc` that names a path which still exists.
fn living(link: &Path) -> Option<RelPath> {
    let text = std::os::unix::ffi::OsStrExt::as_bytes(link.as_os_str());
    (!text.ends_with(b" (deleted)")).then(|| RelPath::from_absolute(link).ok()).flatten()
}

/// The octal `flags:` line of fdinfo (see `proc_pid_fdinfo(5)`).
fn flags_of(info: &str) -> Option<i32> {
    let text = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(text.trim(), 8).ok()
}

/// A line of maps (see `proc_pid_maps(5)`): the file, and whether it can be written through it.
fn mapping(line: &[u8]) -> Option<(RelPath, bool)> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let permissions = fields.nth(1)?;
    let device = fields.nth(1)?;
    let path = fields.nth(1)?.trim_ascii_start();
    if device == b"00:00"
        || path.ends_with(b" (deleted)")
        || [&b"/memfd:"[..], b"/SYSV", b"/dev/zero", b"anon_inode:"].iter().any(|p| path.starts_with(p))
    {
        return None;
    }
    let path = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
    let write = permissions.get(1) == Some(&b'w') && permissions.get(3) == Some(&b's');
    RelPath::from_absolute(path).ok().map(|path| (path, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Vec<Process> {
        vec![Process::read(i32::try_from(std::process::id()).unwrap()).unwrap()]
    }

    #[test]
    fn reads_lines_of_maps() {
        let path = |text: &str| RelPath::from_bytes(text.as_bytes()).unwrap();
        let line = b"7f00-7f01 r-xp 00000000 fe:00 123                        /usr/lib/my lib.so";
        assert_eq!(mapping(line), Some((path("usr/lib/my lib.so"), false)));
        assert_eq!(mapping(b"7f00-7f01 rw-s 00000000 fe:00 9 /data/db"), Some((path("data/db"), true)));
        for none in [
            &b"7f00-7f01 rw-p 00000000 00:00 0"[..],
            b"7f00-7f01 rw-p 00000000 00:00 0   [heap]",
            b"7f00-7f01 rw-s 00000000 00:01 4 /memfd:x (deleted)",
            b"7f00-7f01 r--p 00000000 fe:00 4 /a (deleted)",
            b"",
        ] {
            assert_eq!(mapping(none), None);
        }
        assert_eq!(flags_of("pos:\t0\nflags:\t0102001\nmnt_id:\t29\n"), Some(0o102_001));
    }

    #[test]
    fn sees_its_own_files_and_how_they_are_open() {
        let temp = tempfile::tempdir().unwrap();
        let temp_path = temp.path().canonicalize().unwrap();
        let path = |name: &str| RelPath::from_absolute(&temp_path.join(name)).unwrap();
        let open = fs::OpenOptions::new().append(true).create(true).clone();
        let _log = open.open(temp_path.join("log")).unwrap();
        let _both = (
            open.open(temp_path.join("both")).unwrap(),
            fs::OpenOptions::new().write(true).open(temp_path.join("both")).unwrap(),
        );
        let _gone = fs::File::create(temp_path.join("gone")).unwrap();
        fs::remove_file(temp_path.join("gone")).unwrap();
        fs::write(temp_path.join("input"), "i").unwrap();
        let _input = fs::File::open(temp_path.join("input")).unwrap();
        let held = Held::by(&me());
        let seen = |name: &str| held.files.get(&path(name)).map(|hold| (hold.write, hold.append_only));
        assert_eq!(seen("log"), Some((true, true)));
        assert_eq!(seen("both"), Some((true, false)));
        assert_eq!(seen("input").map(|hold| hold.0), Some(false));
        assert_eq!(seen("gone"), None);
        assert!(held.files.values().any(|hold| hold.mapped && !hold.write), "the test program itself is mapped");
        assert!(held.closed.is_empty() && !held.directories.is_empty());
    }
}
