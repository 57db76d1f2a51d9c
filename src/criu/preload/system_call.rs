//! System calls, and how C is told of their failure.

use core::arch::asm;

const ERRORS: core::ops::RangeInclusive<isize> = -4095..=-1;

#[cfg(target_arch = "x86_64")]
pub mod number {
    pub const READ: usize = 0;
    pub const CLOSE: usize = 3;
    pub const IOCTL: usize = 16;
    pub const OPENAT: usize = 257;
    pub const PRLIMIT64: usize = 302;
}
#[cfg(target_arch = "aarch64")]
pub mod number {
    pub const IOCTL: usize = 29;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const READ: usize = 63;
    pub const PRLIMIT64: usize = 261;
}

unsafe extern "C" {
    safe fn __errno_location() -> *mut i32;
}

/// A result as C functions return it: -1 for a failure, and its number in `errno`.
pub unsafe fn for_c(result: isize) -> isize {
    if ERRORS.contains(&result) {
        unsafe { *__errno_location() = -(result as i32) };
        return -1;
    }
    result
}

/// One system call; the result is `-errno` on failure.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// One system call; the result is `-errno` on failure.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
             in("x5") f, options(nostack));
    }
    result
}
