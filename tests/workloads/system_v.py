#!/usr/bin/env python3
"""System V shared memory, semaphores and messages, used by a program and a daemon of it that has left its session.

Prints `step N`: the daemon has added one to a number in shared memory, given a semaphore and answered by a message.
"""

import ctypes
import os
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
IPC_CREAT, SETVAL, GETVAL = 0o1000, 16, 12


class Message(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_long), ("text", ctypes.c_char * 32)]


class Operation(ctypes.Structure):
    _fields_ = [("number", ctypes.c_ushort), ("change", ctypes.c_short), ("flags", ctypes.c_short)]


def call(name, *arguments):
    while True:
        result = getattr(libc, name)(*arguments)
        if result >= 0:
            return result
        if ctypes.get_errno() != 4:
            print(f"broken {name}: {os.strerror(ctypes.get_errno())}", flush=True)
            os._exit(99)


memory = call("shmget", 0x5245, ctypes.c_size_t(1 << 20), IPC_CREAT | 0o600)
number = ctypes.c_uint64.from_address(libc.shmat(memory, None, 0))
semaphores = call("semget", 0x5256, 2, IPC_CREAT | 0o600)
queue = call("msgget", 0x5245, IPC_CREAT | 0o600)
# One message that nobody takes, a semaphore that keeps its value, and a segment that nobody has attached.
call("msgsnd", queue, ctypes.byref(Message(9, b"kept")), 32, 0)
call("semctl", semaphores, 1, SETVAL, 7)
lonely = call("shmget", 0x4C4F, ctypes.c_size_t(8192), IPC_CREAT | 0o600)
address = libc.shmat(lonely, None, 0)
ctypes.memmove(address, b"lonely", 6)
libc.shmdt(ctypes.c_void_p(address))


def add(index, change):
    call("semop", semaphores, ctypes.byref(Operation(index, change, 0)), ctypes.c_size_t(1))


if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    while True:
        add(0, -1)
        number.value += 1
        call("msgsnd", queue, ctypes.byref(Message(1, str(number.value).encode())), 32, 0)
os.wait()
step = 0
while True:
    step += 1
    add(0, 1)
    answer = Message()
    call("msgrcv", queue, ctypes.byref(answer), 32, 1, 0)
    assert int(answer.text) == number.value == step, (answer.text, number.value, step)
    assert call("semctl", semaphores, 1, GETVAL) == 7
    again = libc.shmat(call("shmget", 0x4C4F, 8192, 0), None, 0)
    assert ctypes.string_at(again, 6) == b"lonely"
    libc.shmdt(ctypes.c_void_p(again))
    print(f"step {step}", flush=True)
    time.sleep(0.05)
