#!/usr/bin/env python3
"""Starts and ends processes and threads all the time, and counts that none is lost.

Eight workers live at a time. Each has a thread that counts and starts a short-lived thread again and
again; each tick the oldest worker is told to end, which it must do with the sum of its count, and a
new one is born. Each worker also starts short-lived processes. Prints `tick N` when all is as it
must be, else `broken …`, and ends with 99.
"""

import os
import sys
import threading
import time

LIVING = 8


def broken(message):
    print(f"broken {message}", flush=True)
    os._exit(99)


def worker(ask, answer):
    count, ended, wanted = [0], threading.Event(), threading.Event()

    def short_lived(number):
        count[0] = number

    def counting():
        while not ended.is_set():
            thread = threading.Thread(target=short_lived, args=(count[0] + 1,))
            thread.start()
            thread.join()
            time.sleep(0.003)

    thread = threading.Thread(target=counting)
    thread.start()
    while word := os.read(ask, 1):
        if word == b"e":
            ended.set()
            thread.join()
            os._exit(7)
        before = count[0]
        child = os.posix_spawn("/bin/true", ["true"], {})
        if os.waitpid(child, 0)[1] != 0:
            broken("a short-lived process failed")
        deadline = 4000
        while count[0] == before and deadline:
            time.sleep(0.005)
            deadline -= 1
        os.write(answer, b"." if count[0] > before else b"!")
    os._exit(8)


def born():
    ask_read, ask = os.pipe()
    answer, answer_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ask)
        os.close(answer)
        for other in workers:
            os.close(other[1])
            os.close(other[2])
        worker(ask_read, answer_write)
    os.close(ask_read)
    os.close(answer_write)
    return pid, ask, answer


workers = []
for _ in range(LIVING):
    workers.append(born())
tick = 0
while True:
    tick += 1
    for pid, ask, answer in workers:
        os.write(ask, b"?")
    for pid, ask, answer in workers:
        if os.read(answer, 1) != b".":
            broken(f"worker {pid} is gone or its thread stands still")
    pid, ask, answer = workers.pop(0)
    os.write(ask, b"e")
    if os.waitpid(pid, 0) != (pid, 7 << 8):
        broken(f"worker {pid} ended in another way than it was told to")
    os.close(ask)
    os.close(answer)
    workers.append(born())
    print(f"tick {tick}", flush=True)
