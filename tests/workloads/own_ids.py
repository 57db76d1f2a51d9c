#!/usr/bin/env python3
"""Says how it is called, and checks that this and what it holds stay as they were.

Prints `tick N pid P`: its ID, by which it finds itself in /proc, a child of its own, and what it has written to the
container's layer and to shared memory; else `broken …`, and ends with 99.
"""

import os
import time

pid = os.getpid()
kept = open("/proc/self/stat")
names = ["/tmp/kept", "/dev/shm/kept"]
files = [open(name, "w+") for name in names]
for file in files:
    file.write("kept")
    file.flush()


def check(what, right):
    if not right:
        print(f"broken {what}", flush=True)
        os._exit(99)


tick = 0
while True:
    tick += 1
    check("its ID", os.getpid() == pid and os.readlink("/proc/self") == str(pid))
    kept.seek(0)
    check("an open file of /proc", kept.read().split()[0] == str(pid))
    for name, file in zip(names, files):
        file.seek(0)
        check(name, file.read() == "kept" and os.fstat(file.fileno()).st_ino == os.stat(name).st_ino)
    check("a child", os.waitstatus_to_exitcode(os.system("exit 7")) == 7)
    print(f"tick {tick} pid {pid}", flush=True)
    time.sleep(0.05)
