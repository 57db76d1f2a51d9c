//! System calls and the entry point on x86-64 (numbers: `arch/x86/entry/syscalls/syscall_64.tbl`).

use core::arch::{asm, global_asm};

pub mod number {
    pub const WRITE: usize = 1;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const CHDIR: usize = 80;
    pub const SETSID: usize = 112;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
    pub const PRLIMIT64: usize = 302;
    pub const CLOSE_RANGE: usize = 436;
}

global_asm!(
    ".globl _start",
    ".type _start,@function",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {reaper}",
    "ud2",
    reaper = sym super::reaper,
);

/// One system call with up to four arguments (the fifth is zero); the result is `-errno` on failure.
///
/// # Safety
/// The arguments must be what the kernel expects of this call.
pub unsafe fn syscall(number: usize, [a, b, c, d]: [usize; 4]) -> isize {
    let result;
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") 0,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}
