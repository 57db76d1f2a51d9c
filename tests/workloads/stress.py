#!/usr/bin/env python3
"""Changes its memory in every way that a process can, and checks every page of it.

Builds regions whose pages follow from the region's name and the page's number, prints `built`, and waits for the file
that it is given. Then, in several threads and under a storm of signals: fork, exec, exit, mremap, munmap, madvise,
mprotect, new threads, shared memory, huge pages. Prints `changed`, reads all that it has not touched yet in random order
from many threads and processes, and prints `sound`, or `broken …` and ends with 99.
"""

import argparse
import ctypes
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback

PAGE = 4096
MIB = 1 << 20

READ, WRITE = 1, 2
SHARED, PRIVATE, FIXED, ANONYMOUS = 0x01, 0x02, 0x10, 0x20
DONTNEED, FREE, REMOVE, HUGEPAGE = 4, 8, 9, 14
MAYMOVE, TO_FIXED, DONTUNMAP = 1, 2, 4

libc = ctypes.CDLL(None, use_errno=True)
POINTER, SIZE, INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
libc.mmap.restype, libc.mmap.argtypes = POINTER, [POINTER, SIZE, INT, INT, INT, ctypes.c_long]
libc.mremap.restype, libc.mremap.argtypes = POINTER, [POINTER, SIZE, SIZE, INT, POINTER]
libc.munmap.argtypes = [POINTER, SIZE]
libc.madvise.argtypes = [POINTER, SIZE, INT]
libc.mprotect.argtypes = [POINTER, SIZE, INT]

ZERO = hashlib.sha256(bytes(PAGE)).digest()


def broken(message):
    os.write(1, f"broken {message}\n".encode())
    os._exit(99)


def done(result, what):
    if result in (-1, ctypes.c_void_p(-1).value):
        broken(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def mapped(size, flags=PRIVATE, address=None):
    return done(libc.mmap(address, size, READ | WRITE, flags | ANONYMOUS, -1, 0), "mmap")


def advise(address, size, advice):
    done(libc.madvise(address, size, advice), f"madvise {advice}")


def content(name, number):
    return hashlib.shake_128(f"{name} {number}".encode()).digest(PAGE)


def expected(name, number):
    return hashlib.sha256(content(name, number)).digest()


def at(address, size=PAGE):
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


def digest(address):
    # A digest of so much is computed without the interpreter's lock: threads wait for pages side by side.
    return hashlib.sha256(at(address)).digest()


def check(address, allowed, what):
    found = digest(address)
    if found not in allowed:
        broken(f"{what}: {'zeros' if found == ZERO else 'other bytes'} at {address:#x}")


class Region:
    """Pages of known content."""

    def __init__(self, name, size, flags=PRIVATE, huge=False):
        self.name, self.pages = name, size // PAGE
        if huge:
            # Huge pages lie on their boundaries only.
            start = mapped(size + 2 * MIB, flags)
            self.address = -(-start // (2 * MIB)) * 2 * MIB
            advise(self.address, size, HUGEPAGE)
        else:
            self.address = mapped(size, flags)
        for number in range(self.pages):
            self.write(number)

    def page(self, number):
        return self.address + number * PAGE

    def write(self, number, name=None):
        at(self.page(number))[:] = content(name or self.name, number)

    def check(self, numbers, address=None):
        """That these pages are what they were, here or where they have moved to."""
        base = self.address if address is None else address
        for number in numbers:
            check(base + number * PAGE, [expected(self.name, number)], f"page {number} of {self.name}")

    def check_zero(self, numbers):
        for number in numbers:
            check(self.page(number), [ZERO], f"page {number} of {self.name}, which was given back")

    def check_all(self, threads=1):
        numbers = list(range(self.pages))
        random.shuffle(numbers)
        in_threads([lambda part=part: self.check(numbers[part::threads]) for part in range(threads)])


def in_threads(works):
    def guarded(work):
        try:
            work()
        except BaseException:
            traceback.print_exc()
            broken("a thread failed")

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def child(work):
    """A forked process that does this, and whose success is waited for by what is returned."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(98)

    def ended():
        _, status = os.waitpid(pid, 0)
        if status != 0:
            broken(f"a child ended with status {status:#x}")

    return ended


def moves(region):
    """Grown elsewhere; moved over pages that are expected; moved away with nothing left behind."""
    half = region.pages // 2
    bytes_of_half = half * PAGE
    new = done(libc.mremap(region.address, bytes_of_half // 2, bytes_of_half, MAYMOVE, None), "mremap")
    region.check(range(half // 2), new)
    for number in range(half // 2, half):
        check(new + number * PAGE, [ZERO], "grown memory")
    # The last quarter over the second.
    quarter = half // 2
    source, target = region.page(3 * quarter), region.page(quarter)
    done(libc.mremap(source, quarter * PAGE, quarter * PAGE, MAYMOVE | TO_FIXED, target), "mremap fixed")
    region.check(range(3 * quarter, 4 * quarter), target - 3 * quarter * PAGE)
    # The third one leaves an empty one behind.
    left = region.page(2 * quarter)
    new = done(libc.mremap(left, quarter * PAGE, quarter * PAGE, MAYMOVE | DONTUNMAP, None), "mremap dontunmap")
    region.check_zero(range(2 * quarter, 3 * quarter))
    region.check(range(2 * quarter, 3 * quarter), new - 2 * quarter * PAGE)


def unmaps(region):
    for first in range(0, region.pages, 64):
        done(libc.munmap(region.page(first + 16), 32 * PAGE), "munmap")
        if first % 128 == 0:
            mapped(32 * PAGE, PRIVATE | FIXED, region.page(first + 16))
            region.check_zero(range(first + 16, first + 48))
            region.write(first + 20)
            region.check([first + 20])
        region.check(range(first + 48, first + 64))
        region.check(range(first, first + 16))


def drops(region):
    for first in range(0, region.pages, 32):
        advise(region.page(first + 8), 16 * PAGE, DONTNEED)
        region.check_zero(range(first + 8, first + 16))
        region.write(first + 16)
        region.check([first + 16])
        region.check_zero(range(first + 17, first + 24))
        region.check(range(first, first + 8))
        region.check(range(first + 24, first + 32))


def frees(region):
    """What is freed and not written again is what it was, or zero; never anything else."""
    for first in range(0, region.pages, 32):
        if first % 64 == 0:
            region.check(range(first, first + 32))
        advise(region.page(first), 16 * PAGE, FREE)
        region.write(first + 3, "freed and written")
        for number in range(first, first + 16):
            allowed = [expected("freed and written", number)] if number == first + 3 else [expected(region.name, number), ZERO]
            check(region.page(number), allowed, "freed memory")
        region.check(range(first + 16, first + 32))


def protects(region):
    for first in range(0, region.pages, 16):
        done(libc.mprotect(region.page(first + 4), 4 * PAGE, READ), "mprotect")
        region.check(range(first, first + 16))


def shares(region):
    """What one process gives back or writes, the others see."""

    def first():
        region.check(range(0, region.pages // 2))
        advise(region.page(0), 64 * PAGE, REMOVE)
        region.write(64, "written by a child")

    child(first)()
    region.check_zero(range(64))
    check(region.page(64), [expected("written by a child", 64)], "shared memory")
    region.check(range(65, region.pages))


def forks(region):
    """Children see the moment of their birth, whatever their parent does then; so does their parent."""
    waits = []
    for generation in range(8):
        fresh = range(generation * 8, generation * 8 + 8)

        def look(fresh=fresh):
            region.check(fresh)
            advise(region.page(region.pages // 2), PAGE * 64, DONTNEED)
            region.check_zero(range(region.pages // 2, region.pages // 2 + 64))
            # And a grandchild.
            child(lambda: region.check(range(region.pages - 64, region.pages)))()
            region.check(random.sample(range(64, region.pages // 2), 64))

        waits.append(child(look))
        for number in fresh:
            region.write(number, "written after the fork")
    for number in range(64):
        check(region.page(number), [expected("written after the fork", number)], "memory written after a fork")
    # One that ends at once, one that becomes another program, one that does so without a copy of the memory.
    child(lambda: None)()
    child(lambda: os.execv("/bin/true", ["true"]))()
    subprocess.run(["true"], check=True)
    for wait in waits:
        wait()
    region.check(range(64, region.pages))


def starts_threads(region):
    for first in range(0, region.pages, 64):
        in_threads([lambda number=number: region.check([number]) for number in range(first, first + 64, 8)])
    region.check_all()


class Storm:
    """Signals, a thousand a second, to whatever thread."""

    def __init__(self):
        self.over, self.count = False, 0
        signal.signal(signal.SIGALRM, self.hit)
        signal.signal(signal.SIGUSR2, self.hit)

    def hit(self, *_):
        self.count += 1

    def run(self):
        while not self.over:
            for thread in threading.enumerate():
                try:
                    signal.pthread_kill(thread.ident, signal.SIGUSR2)
                except (ProcessLookupError, TypeError):
                    pass
            time.sleep(0.001)

    def __enter__(self):
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def __exit__(self, *_):
        self.over = True
        self.thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.count < 10:
            broken(f"only {self.count} signals arrived")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("go", help="begin when this file exists")
    parser.add_argument("--mib", type=int, default=64, help="memory that is only read")
    options = parser.parse_args()

    size = 8 * MIB
    names = ["moved", "unmapped", "dropped", "freed", "protected", "forked", "threaded"]
    regions = {name: Region(name, size) for name in names}
    shared = Region("shared", 2 * MIB, SHARED)
    huge = Region("huge", 4 * MIB, huge=True)
    large = Region("large", options.mib * MIB)
    # A process from before, with most of that memory in common.
    asked, ask = os.pipe()
    twin = child(lambda: (os.read(asked, 1), [region.check_all(2) for region in [*regions.values(), large]]))
    print("built", flush=True)
    while not os.path.exists(options.go):
        time.sleep(0.01)

    with Storm():
        # Forks from this thread, while the others change what is theirs.
        works = [
            (moves, "moved"), (unmaps, "unmapped"), (drops, "dropped"), (frees, "freed"),
            (protects, "protected"), (starts_threads, "threaded"),
        ]  # fmt: skip
        others = threading.Thread(target=lambda: in_threads([lambda w=work, n=name: w(regions[n]) for work, name in works]))
        others.start()
        forks(regions["forked"])
        shares(shared)
        advise(huge.page(16), 64 * PAGE, DONTNEED)
        huge.check_zero(range(16, 80))
        huge.check(range(16))
        others.join()
        print("changed", flush=True)
        os.write(ask, b"!")
        large.check_all(8)
        huge.check(range(80, huge.pages))
        twin()
    print("sound", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
