//! System calls and the entry point on 64-bit Arm (numbers: `include/uapi/asm-generic/unistd.h`).

use core::arch::{asm, global_asm};

pub mod number {
    pub const IOCTL: usize = 29;
    pub const CHDIR: usize = 49;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const SETSID: usize = 157;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
    pub const PRLIMIT64: usize = 261;
    pub const CLOSE_RANGE: usize = 436;
}

global_asm!(
    ".globl _start",
    ".type _start,%function",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "bl {reaper}",
    "brk #1",
    reaper = sym super::reaper,
);

/// One system call with up to four arguments (the fifth is zero); the result is `-errno` on failure.
///
/// # Safety
/// The arguments must be what the kernel expects of this call.
pub unsafe fn syscall(number: usize, [a, b, c, d]: [usize; 4]) -> isize {
    let result;
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") 0,
             options(nostack));
    }
    result
}
