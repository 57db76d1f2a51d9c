#!/usr/bin/env python3
"""Rewrites the middle of a file in place, and checks that it is as this program left it.

`rewriter.py FILE BYTES`. Prints `step N`, or `broken …` and ends with 99.
"""

import os
import sys
import time

path, size = sys.argv[1], int(sys.argv[2])
file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(file, bytes(size))
step = 0
while True:
    found = int.from_bytes(os.pread(file, 8, size // 2), "big")
    if found != step:
        print(f"broken step {step}: the file says {found}", flush=True)
        os._exit(99)
    step += 1
    os.pwrite(file, step.to_bytes(8, "big"), size // 2)
    print(f"step {step}", flush=True)
    time.sleep(0.05)
