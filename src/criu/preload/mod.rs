//! What CRIU's C library is made to answer otherwise: a library loaded before that one (`ld.so(8)`, `LD_PRELOAD`).
//!
//! CRIU's own calls go through its C library. The library here takes two of them, and hands each on to the kernel as it
//! is, but for one question each:
//!
//! | | is answered | for |
//! |---|---|---|
//! | `limits.rs` | `prlimit64` about another user's process, from `/proc` | a dump of several users without `CAP_SYS_RESOURCE` |
//! | `userfaultfd.rs` | `UFFDIO_API`, with the events of a memory that changes | a lazy restore with `--unprivileged` |
//!
//! CRIU is run with it where it needs it only. No restored process keeps it: CRIU replaces all memory of one.

use crate::workload::reaper::{self, ReaperError};
use std::path::{Path, PathBuf};

/// The library, compiled from `library.rs` by `build.rs`.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/criu-preload.so"));

/// Its name beside the reaper: where programs may run from.
const NAME: &str = "criu-preload.so";

/// Writes the library beside the reaper, unless it is there.
pub fn install(reaper: &Path) -> Result<PathBuf, ReaperError> {
    let path = reaper.with_file_name(NAME);
    reaper::install(&path, LIBRARY).map(|()| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What a Python program prints, as root or as nobody, with the library and without.
    fn without_and_with(program: &str, uid: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let library = install(&folder.path().join("reaper")).unwrap();
        // The library lies where another user may read it.
        let open = tempfile::Builder::new().suffix(".so").tempfile().unwrap();
        std::fs::copy(&library, open.path()).unwrap();
        let run = |preload: &str| {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={uid}"), "--clear-groups", "/usr/bin/python3", "-c", program]);
            let output = command.env("LD_PRELOAD", preload).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        (run(""), run(&open.path().to_string_lossy()))
    }

    #[test]
    fn a_program_that_asks_for_another_user_s_limits_is_told_those_of_proc() {
        // Nobody's may not be asked for those of process 1, as root without SYS_RESOURCE not for those of other users.
        let ask = "import ctypes\n\
            libc = ctypes.CDLL(None, use_errno=True)\n\
            limits = (ctypes.c_uint64 * 2)()\n\
            number = {'x86_64': 302, 'aarch64': 261}[__import__('os').uname().machine]\n\
            got = libc.syscall(ctypes.c_long(number), ctypes.c_long(1), ctypes.c_long(7), None, limits)\n\
            print(got, limits[0], limits[1])\n\
            print(libc.syscall(ctypes.c_long(0xffff)), ctypes.get_errno())";
        let (without, with) = without_and_with(ask, "65534");
        let line = std::fs::read_to_string("/proc/1/limits").unwrap();
        let line = line.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        let limits: Vec<&str> = line[26..].split_whitespace().take(2).collect();
        assert_eq!(without, "-1 0 0\n-1 38\n");
        assert_eq!(with, format!("0 {} {}\n-1 38\n", limits[0], limits[1]));
    }

    /// Opens a userfaultfd that any user may have, asks for no feature, and prints what the kernel knows of it. The
    /// features are `EVENT_FORK`, `_REMAP`, `_REMOVE` and `_UNMAP`; the highest bit is the kernel's own.
    const OPEN: &str = "import ctypes, re\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        number = {'x86_64': 323, 'aarch64': 282}[__import__('os').uname().machine]\n\
        fd = libc.syscall(ctypes.c_long(number), ctypes.c_long(1))\n\
        api = (ctypes.c_uint64 * 3)(0xaa, 0, 0)\n\
        got = libc.ioctl(ctypes.c_int(fd), ctypes.c_ulong(0xc018aa3f), ctypes.byref(api))\n\
        print(got, api[2] != 0, re.search('API:.*?:(.*?):', open(f'/proc/self/fdinfo/{fd}').read())[1])\n\
        print(libc.ioctl(ctypes.c_int(1000), ctypes.c_ulong(0x5401), api), ctypes.get_errno())";

    #[test]
    fn a_userfaultfd_tells_of_every_change_where_it_may() {
        let (without, with) = without_and_with(OPEN, "0");
        assert_eq!(without, "0 True 80000000\n-1 9\n");
        assert_eq!(with, "0 True 8000004e\n-1 9\n", "this test needs root with SYS_PTRACE");
        // Without SYS_PTRACE the kernel refuses the event of fork; then all is as it was asked for.
        let (without, with) = without_and_with(OPEN, "65534");
        assert_eq!(without, "0 True 80000000\n-1 9\n");
        assert_eq!(with, without);
    }
}
