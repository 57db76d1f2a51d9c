#!/usr/bin/env python3
"""Writes numbered lines as fast as they are taken, and counts by itself what was taken.

`lines.py small`: `out N` on standard output and `err N` on standard error, each in one write.
`lines.py large`: lines `out N` in blocks far larger than a pipe holds.
`lines.py patient`: as small, but a stream that nobody reads is not written to for a while; what was
not taken is written again.
"""

import os
import signal
import sys
import time

mode = sys.argv[1]
# After SIGUSR2 what was begun is written to its end, and then nothing more.
ending = []
signal.signal(signal.SIGUSR2, lambda *_: ending.append(1))
signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def write(fd, data):
    while data:
        data = data[os.write(fd, data) :]


number = 0
while not ending:
    if mode == "large":
        block = b"".join(b"out %d\n" % n for n in range(number + 1, number + 20001))
        write(1, block)
        number += 20000
        continue
    number += 1
    for fd, name in (1, b"out"), (2, b"err"):
        line = b"%s %d\n" % (name, number)
        while True:
            try:
                write(fd, line)
                break
            except BrokenPipeError:
                if mode != "patient":
                    raise
                time.sleep(0.01)
    if mode == "patient":
        time.sleep(0.002)
write(1, b"end\n")
