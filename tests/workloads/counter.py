#!/usr/bin/env python3
"""Counts, and proves with each count that nothing of it was lost.

Prints `tick N hash H`, N = 1, 2, 3 …, one line each, flushed. H chains over all memory of the main
process, of its threads, of its child processes and over the answers of a bash pipeline, so it
depends on everything that ever happened and on nothing else: two undisturbed runs with the same
options print the same lines. Each part also checks by itself that it sees every number once; if
not, it prints `broken …` and ends with 99.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

PAGE = 4096


def broken(message):
    print(f"broken {message}", flush=True)
    os._exit(99)


class Memory:
    """Memory that changes a little with each tick, and a digest of all of it."""

    def __init__(self, name, mib):
        seed = hashlib.sha256(name.encode()).digest()
        # Half random-looking, a quarter text of four letters, a quarter zero.
        size = mib << 20
        noise = hashlib.shake_256(seed).digest(size // 2)
        letters = bytes(b"ACGT"[byte & 3] for byte in noise[: 1 << 16])
        text = (letters * (size // 4 // len(letters) + 1))[: size // 4]
        self.bytes = bytearray(noise + text + bytes(size - len(noise) - len(text)))
        self.digest = seed
        self.tick = 0

    def step(self, tick):
        if tick != self.tick + 1:
            broken(f"tick {tick} came after {self.tick}")
        self.tick = tick
        for index in range(8):
            word = hashlib.sha256(self.digest + bytes([index])).digest()
            page = int.from_bytes(word[:8], "little") % (len(self.bytes) // PAGE)
            self.bytes[page * PAGE : page * PAGE + len(word)] = word
        self.digest = hashlib.sha256(self.digest + hashlib.sha256(self.bytes).digest()).digest()
        return self.digest


class Thread:
    """Memory that is changed by a thread of its own."""

    def __init__(self, name, mib):
        self.memory = Memory(name, mib)
        self.asked, self.answered = threading.Event(), threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            self.asked.wait()
            self.asked.clear()
            self.memory.step(self.tick)
            self.answered.set()

    def ask(self, tick):
        self.tick = tick
        self.asked.set()

    def answer(self):
        self.answered.wait()
        self.answered.clear()
        return self.memory.digest


class Child:
    """Memory that is changed by a child process, which is told each tick through a pipe."""

    def __init__(self, name, mib):
        ask_read, self.ask_write = os.pipe()
        self.answer_read, answer_write = os.pipe()
        if os.fork() == 0:
            os.close(self.ask_write)
            os.close(self.answer_read)
            memory = Memory(name, mib)
            while tick := os.read(ask_read, 8):
                os.write(answer_write, memory.step(int.from_bytes(tick, "little")))
            os._exit(0)
        os.close(ask_read)
        os.close(answer_write)

    def ask(self, tick):
        os.write(self.ask_write, tick.to_bytes(8, "little"))

    def answer(self):
        digest = os.read(self.answer_read, 32)
        return digest if len(digest) == 32 else broken("a child process is gone")


class Pipeline:
    """A bash pipeline: the first bash sums up what it is sent, the second counts the sums."""

    SCRIPT = (
        "s=0; while read -r n; do s=$((s + n)); echo $s; done | "
        "{ c=0; while read -r s; do c=$((c + 1)); echo $c $s; done; }"
    )

    def __init__(self):
        self.bash = subprocess.Popen(
            ["bash", "-c", self.SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, tick):
        self.tick = tick
        print(tick, file=self.bash.stdin, flush=True)

    def answer(self):
        line = self.bash.stdout.readline()
        expected = f"{self.tick} {self.tick * (self.tick + 1) // 2}\n"
        return line.encode() if line == expected else broken(f"bash answered {line!r}, not {expected!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between ticks")
    parser.add_argument("--ticks", type=int, default=0, help="end after so many (0: never)")
    parser.add_argument("--mib", type=int, default=2, help="memory of each part")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--children", type=int, default=0)
    parser.add_argument("--pipeline", action="store_true", help="with a bash pipeline")
    parser.add_argument("--file", default="", help="append each line to this file as well")
    parser.add_argument("--grow-at", type=int, default=0, help="at this tick, take more memory, which no hash tells of")
    parser.add_argument("--grow", type=int, default=0, help="so many MiB")
    parser.add_argument("--exit", type=int, default=0, help="exit code after the last tick")
    parser.add_argument("--on-term", type=int, default=-1, help="say so at SIGTERM and end with this code")
    options = parser.parse_args()

    if options.on_term >= 0:

        def on_term(*_):
            os.write(1, b"terminated\n")
            os._exit(options.on_term)

        signal.signal(signal.SIGTERM, on_term)

    # Children first: a fork with threads running is a bad habit.
    parts = [Child(f"child {number}", options.mib) for number in range(options.children)]
    parts += [Pipeline()] if options.pipeline else []
    parts += [Thread(f"thread {number}", options.mib) for number in range(options.threads)]
    own = Memory("main", options.mib)
    file = open(options.file, "a", buffering=1) if options.file else None

    digest, tick = b"", 0
    ballast = None
    while options.ticks == 0 or tick < options.ticks:
        tick += 1
        if tick == options.grow_at:
            ballast = os.urandom(1 << 20) * options.grow
        for part in parts:
            part.ask(tick)
        answers = [own.step(tick)] + [part.answer() for part in parts]
        digest = hashlib.sha256(digest + b"".join(answers)).digest()
        line = f"tick {tick} hash {digest.hex()[:32]}"
        if file:
            file.write(line + "\n")
        print(line, flush=True)
        time.sleep(options.interval)
    print(f"done {tick}", flush=True)
    sys.exit(options.exit)


if __name__ == "__main__":
    main()
