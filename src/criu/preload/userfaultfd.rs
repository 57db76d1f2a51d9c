//! `UFFDIO_API`, which says what a new userfaultfd is to tell, asks for the events of fork, mremap, munmap and madvise too.
//!
//! CRIU 4.2.1 asks for none with `--unprivileged`. Without them whoever brings memory later does not learn that the
//! workload has given a page back or moved it, and would bring it all the same.

/// `_IOWR(0xAA, 0x3F, struct uffdio_api)`
pub const UFFDIO_API: usize = 0xC018_AA3F;

/// `UFFD_FEATURE_EVENT_FORK`, `_REMAP`, `_REMOVE` and `_UNMAP`.
const EVENTS: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;

/// `struct uffdio_api`: the kernel writes into it too, zeros where it refuses.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// The call with more features; where the kernel refuses them (a fork's event takes `CAP_SYS_PTRACE`), as it was made.
pub unsafe fn with_events(asked: *mut Api, call: impl Fn() -> isize) -> isize {
    let before = unsafe { *asked };
    unsafe { (*asked).features |= EVENTS };
    let result = call();
    if result >= 0 {
        return result;
    }
    unsafe { *asked = before };
    call()
}
