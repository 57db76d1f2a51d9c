#!/usr/bin/env python3
"""Uses its terminal, and says each time what it found.

Prints `tick N` all the time, `size ROWS COLUMNS` when that changes, `interrupted` at Ctrl-C. Takes
one-word commands from standard input: `look` (what it knows of its terminal), `raw` (from now on
every key is a `key NN`), `cooked`; anything else is a `line …`.
"""

import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
import tty


def say(*words):
    os.write(1, (" ".join(str(word) for word in words) + "\r\n").encode())


def size():
    return struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))[:2]


def look():
    flags = termios.tcgetattr(0)[3]
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        controlling = "yes"
    except OSError as error:
        controlling = error.strerror
    foreground = "yes" if os.tcgetpgrp(0) == os.getpgrp() else "no"
    say(
        "look",
        "ttys", sum(os.isatty(number) for number in range(3)),
        "size", *size(),
        "echo", int(bool(flags & termios.ECHO)),
        "lines", int(bool(flags & termios.ICANON)),
        "controlling", controlling,
        "foreground", foreground,
        "ticks", ticks,
    )


signal.signal(signal.SIGWINCH, lambda *_: say("size", *size()))
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
signal.signal(signal.SIGHUP, lambda *_: say("hung up"))

ticks, raw, buffer, before = 0, False, b"", termios.tcgetattr(0)
look()
while True:
    ticks += 1
    say("tick", ticks)
    end = time.monotonic() + 0.05
    while (left := end - time.monotonic()) > 0:
        if not select.select([0], [], [], left)[0]:
            continue
        data = os.read(0, 4096)
        if not data:
            say("end of input")
            sys.exit(3)
        if raw:
            for byte in data:
                say("key", byte)
                if byte == ord("q"):
                    termios.tcsetattr(0, termios.TCSANOW, before)
                    raw = False
                    look()
            continue
        buffer += data
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            word = line.decode().strip()
            if word == "look":
                look()
            elif word == "raw":
                tty.setraw(0, termios.TCSANOW)
                raw = True
                look()
            else:
                say("line", word)
