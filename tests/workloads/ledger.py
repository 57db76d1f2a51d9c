#!/usr/bin/env python3
"""Writes files in every way that long jobs do, and ends after a number of steps.

In the directory that it is given, and in /tmp: logs that are appended to (opened for appending, and kept
open at their end), an index that is rewritten in place, results that are made once and must not be there
before (`open(…, "x")`), replaced by rename, or removed again. Nothing depends on time, so two undisturbed
runs leave the same files. Prints `step N` after each step; at the end the digest of its file in /tmp.
"""

import argparse
import hashlib
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("directory")
parser.add_argument("--steps", type=int, default=120)
parser.add_argument("--pause", type=float, default=0.02)
options = parser.parse_args()

os.chdir(options.directory)
appended = open("appended.log", "a", buffering=1)
at_its_end = open("kept-open.log", "w", buffering=1)
private = open("/tmp/private.log", "w", buffering=1)
with open("index.bin", "wb") as made:
    made.write(bytes(64 << 10))
index = open("index.bin", "r+b", buffering=0)
state = b"the beginning"

for step in range(1, options.steps + 1):
    state = hashlib.sha256(state).digest()
    for log in (appended, at_its_end, private):
        log.write(f"{step} {state.hex()}\n")
    index.seek(int.from_bytes(state[:4], "little") % (60 << 10))
    index.write(state)
    if step % 10 == 0:
        with open(f"result-{step:04}.txt", "x") as result:
            result.write(state.hex() * step)
    if step % 30 == 0:
        os.remove(f"result-{step - 20:04}.txt")
    if step % 7 == 0:
        with open("latest.new", "w") as latest:
            latest.write(f"{step}\n")
        os.rename("latest.new", "latest")
    print(f"step {step}", flush=True)
    time.sleep(options.pause)

private.close()
with open("/tmp/private.log", "rb") as private:
    print("private", hashlib.sha256(private.read()).hexdigest(), flush=True)
