#!/usr/bin/env python3
"""Grows on demand: each line on standard input asks for one step, each step says so.

`memory N`  N MiB more of memory that holds noise
`file N`    N KiB more in /var/tmp/results
`touch N`   the first N MiB of that memory written anew
`fork`      a child that holds what its parent holds
"""

import os
import sys
import time

held = []


def noise(memory):
    """Straight into place: a copy on the way would be memory too."""
    with open("/dev/urandom", "rb", buffering=0) as source:
        while memory:
            memory = memory[source.readinto(memory) :]


for line in sys.stdin:
    verb, _, number = line.strip().partition(" ")
    number = int(number or 0)
    if verb == "memory":
        held.append(bytearray(number << 20))
        noise(memoryview(held[-1]))
    elif verb == "touch":
        noise(memoryview(held[0])[: number << 20])
    elif verb == "file":
        with open("/var/tmp/results", "ab") as results:
            results.write(b"x" * (number << 10))
    elif verb == "fork":
        if os.fork() == 0:
            while True:
                time.sleep(3600)
    print(f"done {verb} {number}", flush=True)
