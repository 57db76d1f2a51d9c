#!/usr/bin/env python3
"""Has memory in huge pages, and looks at all of it again and again. Prints `tick N sound`, or `tick N WRONG`."""

import argparse
import hashlib
import mmap
import os
import time

HUGE = 2 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=64)
    options = parser.parse_args()
    size = options.mib << 20
    # One more, because a mapping need not begin where a huge page does.
    memory = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    for place in range(0, len(memory), HUGE):
        memory[place : place + HUGE] = os.urandom(HUGE)
    expected = hashlib.sha256(memory).digest()
    tick = 0
    while True:
        tick += 1
        print(f"tick {tick} {'sound' if hashlib.sha256(memory).digest() == expected else 'WRONG'}", flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
