//! A freestanding library in front of CRIU's C library: what it defines, CRIU calls in place of libc's. Each call goes to
//! the kernel as it is, but for the few that another file here is about. See `mod.rs`.

#![no_std]
#![no_builtins]

mod limits;
mod system_call;
mod userfaultfd;

use system_call::{call, for_c, number};

/// What a variadic C function is called with: as many arguments as any system call takes.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let arguments = [a, b, c, d, e, f];
    let mut result = unsafe { call(number, arguments) };
    if number == number::PRLIMIT64 {
        result = unsafe { limits::answer(arguments, result) };
    }
    unsafe { for_c(result) }
}

/// `int ioctl(int, unsigned long, ...)`: one argument, whatever it is.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: i32, request: usize, argument: usize) -> i32 {
    let forward = || unsafe { call(number::IOCTL, [fd as usize, request, argument, 0, 0, 0]) };
    let result = if request == userfaultfd::UFFDIO_API && argument != 0 {
        unsafe { userfaultfd::with_events(argument as *mut userfaultfd::Api, forward) }
    } else {
        forward()
    };
    unsafe { for_c(result) as i32 }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
