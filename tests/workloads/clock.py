#!/usr/bin/env python3
"""Waits by the monotonic clock, and prints `tick N MONOTONIC BOOTTIME`, in milliseconds."""

import time

tick = 0
while True:
    tick += 1
    # Until a moment, not for a time: as most programs wait today.
    time.sleep(0.05)
    boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
    print(f"tick {tick} {int(time.monotonic() * 1000)} {int(boottime * 1000)}", flush=True)
