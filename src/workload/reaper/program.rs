//! The reaper: the root of every process tree that revenant saves.
//!
//! A freestanding program (no standard library, no libc) of a few KiB, compiled by `build.rs` and
//! embedded in the revenant binary. It is the subreaper of the job, so that daemons stay inside the
//! tree, and it reaps them. It must not hold anything that a checkpoint would have to carry: no
//! descriptor, no directory, no signal handler, no memory of what happened. Its whole state is
//! "waits for any child", and the command's PID in a register.
//!
//! `reaper ABSOLUTE_PATH_OF_COMMAND ARGV0 ARG…`

#![no_std]
#![no_main]
// Without libc there is no strlen or memcpy that the compiler could call instead of a loop.
#![no_builtins]

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod kernel;

use core::ptr::{null, null_mut};
use kernel::{number, syscall};

const SIGCHLD: usize = 17;
const LAST_SIGNAL: usize = 64;
/// Size of the kernel's `sigset_t`, in bytes.
const SET_BYTES: usize = 8;
const SIG_SETMASK: usize = 2;
const PR_SET_NAME: usize = 15;
const PR_SET_CHILD_SUBREAPER: usize = 36;
const TCGETS: usize = 0x5401;
const TIOCSCTTY: usize = 0x540e;
const RLIMIT_CORE: usize = 4;
const ENOENT: isize = -2;
const EINTR: isize = -4;
const ECHILD: isize = -10;
const ENOTDIR: isize = -20;

/// The kernel's `struct sigaction`, long enough for every architecture; all zero is `SIG_DFL`.
static DEFAULT_ACTION: [usize; 4] = [0; 4];

/// Where `_start` hands over: `stack` points at argc, argv, null, environ, null, as the kernel left them.
///
/// # Safety
/// Called once, by `_start`, with the initial stack pointer.
#[unsafe(no_mangle)]
unsafe extern "C" fn reaper(stack: *const usize) -> ! {
    unsafe {
        let argc = *stack;
        let argv = stack.add(1).cast::<*const u8>();
        let environ = argv.add(argc + 1);
        if argc < 3 {
            say(b"revenant-reaper: this program is started by revenant only\n");
            exit(126);
        }
        // CRIU wants the root of a tree to lead a session; this one has no terminal.
        syscall(number::SETSID, [0; 4]);
        syscall(number::PRCTL, [PR_SET_CHILD_SUBREAPER, 1, 0, 0]);
        syscall(number::PRCTL, [PR_SET_NAME, c"revenant-reaper".as_ptr() as usize, 0, 0]);
        for signal in 1..=LAST_SIGNAL {
            default_action(signal);
        }
        // Nothing but SIGKILL may end the reaper before its tree.
        mask(!0);
        let command = fork();
        if command == 0 {
            run(*argv.add(1), argv.add(2), environ);
        }
        if command < 0 {
            say(b"revenant-reaper: the kernel refused a new process (limit on PIDs or memory)\n");
            exit(126);
        }
        // Hold nothing: no pipe of the workload's, and no volume's directory.
        syscall(number::CLOSE_RANGE, [0, u32::MAX as usize, 0, 0]);
        syscall(number::CHDIR, [c"/".as_ptr() as usize, 0, 0, 0]);
        end_as(wait_for(command))
    }
}

/// The child: a session of its own, the terminal if there is one, then the command.
unsafe fn run(path: *const u8, argv: *const *const u8, environ: *const *const u8) -> ! {
    unsafe {
        syscall(number::SETSID, [0; 4]);
        let mut terminal = [0_u64; 16];
        if syscall(number::IOCTL, [0, TCGETS, terminal.as_mut_ptr() as usize, 0]) == 0 {
            // The session leader's process group becomes the foreground group with it.
            syscall(number::IOCTL, [0, TIOCSCTTY, 0, 0]);
        }
        mask(0);
        let error = syscall(number::EXECVE, [path as usize, argv as usize, environ as usize, 0]);
        say(b"revenant: cannot execute ");
        say_text(path);
        let reason: &[u8] = match error {
            ENOENT | ENOTDIR => b": not found (or its interpreter is missing)\n",
            -7 => b": its arguments and environment are too long\n",
            -8 => b": not a program of this architecture (or a script without #!)\n",
            -12 => b": out of memory\n",
            -13 => b": permission denied\n",
            _ => b": the kernel refused it\n",
        };
        say(reason);
        exit(if matches!(error, ENOENT | ENOTDIR) { 127 } else { 126 })
    }
}

/// Reaps every child until the command has ended; returns its wait status.
unsafe fn wait_for(command: isize) -> u32 {
    let mut status = 0_u32;
    loop {
        let pid = unsafe { syscall(number::WAIT4, [usize::MAX, (&raw mut status) as usize, 0, 0]) };
        match pid {
            EINTR => {}
            ECHILD => exit(125),
            pid if pid == command => return status,
            _ => {}
        }
    }
}

/// Ends exactly as the command did, so that revenant sees its code or its signal.
unsafe fn end_as(status: u32) -> ! {
    let signal = (status & 0x7f) as usize;
    if signal != 0 {
        let no_core = [0_u64; 2];
        unsafe {
            syscall(number::PRLIMIT64, [0, RLIMIT_CORE, no_core.as_ptr() as usize, 0]);
            let me = syscall(number::GETPID, [0; 4]);
            syscall(number::KILL, [me.cast_unsigned(), signal, 0, 0]);
            mask(0);
        }
        exit(128 + signal);
    }
    exit(((status >> 8) & 0xff) as usize)
}

unsafe fn fork() -> isize {
    unsafe { syscall(number::CLONE, [SIGCHLD, 0, 0, 0]) }
}

unsafe fn default_action(signal: usize) {
    unsafe {
        syscall(number::RT_SIGACTION, [signal, DEFAULT_ACTION.as_ptr() as usize, null_mut::<u8>() as usize, SET_BYTES])
    };
}

unsafe fn mask(set: u64) {
    unsafe { syscall(number::RT_SIGPROCMASK, [SIG_SETMASK, (&raw const set) as usize, null::<u8>() as usize, SET_BYTES]) };
}

fn say(text: &[u8]) {
    unsafe { syscall(number::WRITE, [2, text.as_ptr() as usize, text.len(), 0]) };
}

unsafe fn say_text(text: *const u8) {
    let mut length = 0;
    unsafe {
        while *text.add(length) != 0 {
            length += 1;
        }
        syscall(number::WRITE, [2, text as usize, length, 0]);
    }
}

fn exit(code: usize) -> ! {
    loop {
        unsafe { syscall(number::EXIT_GROUP, [code, 0, 0, 0]) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}
