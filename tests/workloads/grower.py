#!/usr/bin/env python3
"""Counts, and takes memory when told to: by a file, which it removes as it begins.

Prints `tick N held M MiB`, one line each, flushed.
"""

import argparse
import mmap
import os
import subprocess
import sys
import threading
import time


def squeeze(path, size):
    """Walks through a mapped file that does not fit beside what is held: all is in use, so nothing can be freed."""
    if not os.path.exists(path):
        with open(path, "wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    while True:
        for place in range(0, size, 4096):
            pages[place]
        time.sleep(0.001)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between ticks")
    parser.add_argument("--grow-at", required=True, help="take memory once this file is there")
    parser.add_argument("--step", type=int, default=16, help="MiB in each tick")
    parser.add_argument("--most", type=int, default=1 << 20, help="MiB in all")
    parser.add_argument("--again-at", default="", help="take memory without end once this file is there")
    parser.add_argument("--by-child", action="store_true", help="a child takes it, and this process fails with it")
    parser.add_argument("--threads", type=int, default=0, help="once the file is there, begin so many threads instead")
    parser.add_argument("--inodes", default="", help="once the file is there, make empty files in this folder instead")
    parser.add_argument("--squeeze", default="", help="besides, walk through this file of 400 MiB, mapped")
    parser.add_argument("--reserve", type=int, default=0, help="at the start, ask for so many MiB and use none of it")
    parser.add_argument("--touch-at", default="", help="read all that is held once this file is there")
    parser.add_argument("--full", default="", help="once the file is there, fill this file instead")
    options = parser.parse_args()

    held, tick, growing, made = [], 0, False, 0
    reserved = mmap.mmap(-1, options.reserve << 20, flags=mmap.MAP_PRIVATE) if options.reserve else None
    while True:
        tick += 1
        if not growing and os.path.exists(options.grow_at):
            growing = True
            os.unlink(options.grow_at)
            if options.squeeze:
                threading.Thread(target=squeeze, args=(options.squeeze, 400 << 20), daemon=True).start()
            if options.by_child:
                code = subprocess.run([sys.executable, "-c", "x = []\nwhile True: x.append(b'x' * (8 << 20))"]).returncode
                print(f"the child ended with {code}", flush=True)
                sys.exit(7)
        if options.again_at and os.path.exists(options.again_at):
            options.most, options.again_at, growing = 1 << 20, "", True
        if options.touch_at and os.path.exists(options.touch_at):
            print(f"touched {sum(block[place] for block in held for place in range(0, len(block), 4096))}", flush=True)
            options.touch_at = ""
        if growing and options.full:
            with open(options.full, "ab") as file:
                file.write(os.urandom(options.step << 20))
            growing = os.path.getsize(options.full) < options.most << 20
        elif growing and options.threads:
            for _ in range(options.threads):
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            options.threads, growing = 0, False
        elif growing and options.inodes:
            for number in range(options.step):
                open(f"{options.inodes}/{tick}-{number}", "w").close()
            made += options.step
            growing = made < options.most
        elif growing and len(held) * options.step < options.most:
            held.append(os.urandom(1 << 20) * options.step)
        print(f"tick {tick} held {len(held) * options.step} MiB", flush=True)
        time.sleep(options.interval)


if __name__ == "__main__":
    main()
