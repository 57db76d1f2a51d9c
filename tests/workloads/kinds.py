#!/usr/bin/env python3
"""Holds one kind of resource and checks, again and again, that it still has it.

    kinds.py KIND [FOLDER]      FOLDER: a directory on a volume (default /volume)

Prints `ready KIND` when it holds the resource, then `step N` for each check that passed, flushed. A check
that fails prints `broken …` and ends with 99. `kinds.py --list` prints all kinds.
"""

import array
import ctypes
import errno
import fcntl
import mmap
import os
import queue
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
KINDS = {}
VOLUME = "/volume"


def kind(setup):
    """Registers a generator function: yields once when set up, then after each check."""
    KINDS[setup.__name__.replace("_", "-")] = setup
    return setup


def check(condition, what):
    if not condition:
        print(f"broken {what}", flush=True)
        os._exit(99)


def syscall(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"syscall {number}")
    return result


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return result


# ---- memory


@kind
def private_memory():
    memory = bytearray(os.urandom(1 << 20))
    copy = bytes(memory)
    while True:
        yield
        check(memory == copy, "private memory changed")


@kind
def memory_that_changes_all_the_time():
    """Numbers page after page, without a pause: a checkpoint that mixes two moments has a page of the later one."""
    pages = 8192
    memory = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    number, pack, unpack = 0, struct.Struct("<Q").pack_into, struct.Struct("<Q").unpack_from
    while True:
        number += 1
        for at in range(0, pages * 4096, 4096):
            check(unpack(memory, at)[0] == number - 1, f"page {at >> 12} is of another moment")
            pack(memory, at, number)
            pack(memory, at + 4088, number)
        yield


@kind
def shared_anonymous_memory():
    memory = mmap.mmap(-1, 1 << 16)
    up, down = os.pipe(), os.pipe()
    if os.fork() == 0:
        while True:
            number = os.read(up[0], 4)
            if not number:
                os._exit(0)
            memory[: len(number)] = number
            os.write(down[1], b"x")
    count = 0
    while True:
        yield
        count += 1
        os.write(up[1], struct.pack("<I", count))
        os.read(down[0], 1)
        check(memory[:4] == struct.pack("<I", count), "parent and child no longer share memory")


@kind
def copy_on_write_memory():
    memory = bytearray(os.urandom(1 << 20))
    up, down = os.pipe(), os.pipe()
    if os.fork() == 0:
        memory[0] ^= 1
        while os.read(up[0], 1):
            os.write(down[1], bytes(memory[:64]))
        os._exit(0)
    while True:
        yield
        os.write(up[1], b"?")
        answer = os.read(down[0], 64)
        check(answer[0] == memory[0] ^ 1 and answer[1:] == memory[1:64], "the child's copy of memory changed")


def mapped_file(path, flags):
    with open(path, "wb") as file:
        file.write(bytes(8192))
    file = open(path, "r+b")
    memory = mmap.mmap(file.fileno(), 8192, flags)
    count = 0
    while True:
        count += 1
        memory[4096:4100] = struct.pack("<I", count)
        yield
        check(memory[4096:4100] == struct.pack("<I", count), "the mapping changed")
        on_disk = os.pread(file.fileno(), 4, 4096)
        check((on_disk == memory[4096:4100]) == (flags == mmap.MAP_SHARED), "the mapping is of another kind")


@kind
def private_file_mapping():
    return mapped_file("/tmp/private-mapping", mmap.MAP_PRIVATE)


@kind
def shared_file_mapping():
    return mapped_file("/tmp/shared-mapping", mmap.MAP_SHARED)


@kind
def shared_file_mapping_on_a_volume():
    return mapped_file(f"{VOLUME}/shared-mapping", mmap.MAP_SHARED)


@kind
def mapping_of_a_deleted_file():
    path = "/tmp/deleted-mapping"
    with open(path, "wb") as file:
        file.write(bytes(8192))
    file = open(path, "r+b")
    memory = mmap.mmap(file.fileno(), 8192)
    memory[:4] = b"mark"
    os.unlink(path)
    while True:
        yield
        check(memory[:4] == b"mark" and os.pread(file.fileno(), 4, 0) == b"mark", "the deleted file's mapping changed")


@kind
def memfd():
    fd = os.memfd_create("fidelity")
    os.write(fd, b"content")
    memory = mmap.mmap(fd, 7)
    while True:
        yield
        check(os.pread(fd, 7, 0) == b"content" and memory[:] == b"content", "the memfd's content changed")
        check(os.lseek(fd, 0, os.SEEK_CUR) == 7, "the memfd's position changed")


@kind
def locked_memory():
    buffer = mmap.mmap(-1, 1 << 14)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    call("mlock", ctypes.c_void_p(address), ctypes.c_size_t(1 << 14))
    while True:
        yield
        locked = next(line for line in open("/proc/self/status") if line.startswith("VmLck"))
        check(int(locked.split()[1]) >= 16, f"memory is no longer locked: {locked.strip()}")


@kind
def huge_pages():
    memory = mmap.mmap(-1, 2 << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x40000)
    memory[:4] = b"huge"
    while True:
        yield
        check(memory[:4] == b"huge", "the huge page changed")


@kind
def posix_shared_memory():
    fd = os.open("/dev/shm/fidelity", os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(fd, 4096)
    memory = mmap.mmap(fd, 4096)
    memory[:4] = b"shm!"
    while True:
        yield
        check(memory[:4] == b"shm!", "the mapping changed")
        with open("/dev/shm/fidelity", "rb") as again:
            check(again.read(4) == b"shm!", "the name leads to something else")


@kind
def system_v_shared_memory():
    libc.shmat.restype = ctypes.c_void_p
    number = call("shmget", 0, ctypes.c_size_t(4096), 0o1600)
    address = libc.shmat(number, None, 0)
    ctypes.memmove(address, b"SHM!", 4)
    while True:
        yield
        check(ctypes.string_at(address, 4) == b"SHM!", "the shared memory changed")


@kind
def system_v_semaphores():
    number = call("semget", 0x52455645, 1, 0o1600)
    call("semctl", number, 0, 16, 7)
    while True:
        yield
        check(libc.semctl(number, 0, 12) == 7, "the semaphore is gone")


# ---- files


@kind
def file_in_the_layer():
    path = "/tmp/plain"
    log = open(path, "w+b", buffering=0)
    count = 0
    while True:
        yield
        log.write(struct.pack("<I", count))
        count += 1
        content = os.pread(log.fileno(), 1 << 20, 0)
        check(content == b"".join(struct.pack("<I", n) for n in range(count)), "the file has lost or doubled something")
        check(os.stat(path).st_size == 4 * count, "the name leads to another file")


@kind
def file_on_a_volume():
    path = f"{VOLUME}/appended"
    log = open(path, "ab", buffering=0)
    count = 0
    while True:
        yield
        log.write(struct.pack("<I", count))
        count += 1
        with open(path, "rb") as again:
            check(again.read() == b"".join(struct.pack("<I", n) for n in range(count)), "the file has lost or doubled something")


def deleted(directory):
    path = f"{directory}/ghost"
    file = open(path, "w+b", buffering=0)
    file.write(b"ghost" * 1000)
    os.unlink(path)
    while True:
        yield
        check(os.pread(file.fileno(), 5000, 0) == b"ghost" * 1000, "the deleted file's content changed")
        check(os.fstat(file.fileno()).st_nlink == 0, "the deleted file has a name again")
        check(file.tell() == 5000, "the position changed")


@kind
def deleted_file():
    return deleted("/tmp")


@kind
def deleted_file_on_a_volume():
    return deleted(VOLUME)


@kind
def unnamed_temporary_file():
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, b"temporary")
    while True:
        yield
        check(os.pread(fd, 9, 0) == b"temporary", "the unnamed file's content changed")


def renamed_link(directory):
    first, second = f"{directory}/first-name", f"{directory}/second-name"
    file = open(first, "w+b", buffering=0)
    file.write(b"linked")
    os.link(first, second)
    os.unlink(first)
    while True:
        yield
        check(os.pread(file.fileno(), 6, 0) == b"linked", "the file's content changed")
        check(os.stat(second).st_ino == os.fstat(file.fileno()).st_ino, "the other name leads to another file")


@kind
def file_whose_name_was_removed():
    return renamed_link("/tmp")


@kind
def file_whose_name_was_removed_on_a_volume():
    return renamed_link(VOLUME)


@kind
def working_directory_in_the_layer():
    os.makedirs("/tmp/deep/er", exist_ok=True)
    os.chdir("/tmp/deep/er")
    while True:
        yield
        check(os.getcwd() == "/tmp/deep/er", f"the current directory is {os.getcwd()}")


@kind
def deleted_working_directory():
    os.makedirs("/tmp/gone", exist_ok=True)
    os.chdir("/tmp/gone")
    os.rmdir("/tmp/gone")
    while True:
        yield
        check(os.readlink("/proc/self/cwd").endswith("(deleted)"), "the current directory exists again")


@kind
def flock():
    file = open("/tmp/flocked", "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    while True:
        yield
        other = open("/tmp/flocked")
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            check(False, "the lock is lost")
        except BlockingIOError:
            pass
        other.close()


@kind
def record_lock():
    file = open("/tmp/posix-locked", "w")
    fcntl.lockf(file, fcntl.LOCK_EX, 10)
    while True:
        yield
        probe = "import fcntl,sys\nf=open('/tmp/posix-locked','r+')\ntry:\n fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,10)\nexcept OSError:\n sys.exit(7)"
        check(subprocess.run([sys.executable, "-c", probe]).returncode == 7, "the lock is lost")


@kind
def open_file_description_lock():
    file = open("/tmp/ofd-locked", "w+")
    fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0))
    while True:
        yield
        other = open("/tmp/ofd-locked", "r+")
        try:
            fcntl.fcntl(other, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0))
            check(False, "the lock is lost")
        except OSError as error:
            check(error.errno in (errno.EAGAIN, errno.EACCES), f"{error}")
        other.close()


@kind
def file_of_proc():
    file = open(f"/proc/{os.getpid()}/stat")
    while True:
        yield
        file.seek(0)
        check(file.read().startswith(f"{os.getpid()} ("), "the file is another process's")


@kind
def file_of_the_control_group():
    for path in ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"):
        if os.path.exists(path):
            break
    file = open(path)
    while True:
        yield
        file.seek(0)
        check(len(file.read()) > 0, "the file cannot be read")


# ---- pipes, sockets


@kind
def pipe_with_data():
    reader, writer = os.pipe()
    os.write(writer, b"waiting")
    while True:
        yield
        check(os.read(reader, 7) == b"waiting", "the data in the pipe is lost")
        os.write(writer, b"waiting")


@kind
def named_pipe():
    os.mkfifo("/tmp/fifo")
    fd = os.open("/tmp/fifo", os.O_RDWR)
    os.write(fd, b"fifo")
    while True:
        yield
        check(os.read(fd, 4) == b"fifo", "the data in the named pipe is lost")
        os.write(fd, b"fifo")


@kind
def socket_pair_with_data():
    left, right = socket.socketpair()
    left.send(b"waiting")
    while True:
        yield
        check(right.recv(7) == b"waiting", "the data in the socket is lost")
        left.send(b"waiting")


def unix_server(address):
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    while True:
        yield
        client = socket.socket(socket.AF_UNIX)
        client.connect(address)
        peer, _ = server.accept()
        client.send(b"hello")
        check(peer.recv(5) == b"hello", "the socket does not carry data")


@kind
def listening_unix_socket():
    return unix_server("/tmp/listening")


@kind
def abstract_unix_socket():
    return unix_server(f"\0revenant-fidelity-{os.stat(VOLUME).st_ino}")


@kind
def unix_connection_inside():
    server = socket.socket(socket.AF_UNIX)
    server.bind("/tmp/inside")
    server.listen()
    if os.fork() == 0:
        client = socket.socket(socket.AF_UNIX)
        client.connect("/tmp/inside")
        while data := client.recv(1):
            client.send(data)
        os._exit(0)
    peer, _ = server.accept()
    while True:
        yield
        peer.send(b"e")
        check(peer.recv(1) == b"e", "the connection is broken")


@kind
def unix_stream_to_the_outside():
    client = socket.socket(socket.AF_UNIX)
    client.connect(f"{VOLUME}/outside-stream")
    while True:
        yield
        client.send(b"x")


@kind
def unix_datagrams_to_the_outside():
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    client.connect(f"{VOLUME}/outside-datagram")
    while True:
        yield
        client.send(b"x")


@kind
def tcp_listener():
    server = socket.create_server(("127.0.0.1", 0))
    while True:
        yield
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        client.send(b"hello")
        check(peer.recv(5) == b"hello", "the listener does not accept")
        client.close()
        peer.close()


@kind
def tcp_connection():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    peer, _ = server.accept()
    while True:
        yield
        client.send(b"echo")
        check(peer.recv(4) == b"echo", "the connection lost data")


@kind
def tcp_connection_that_is_opened_again():
    server = socket.create_server(("127.0.0.1", 0))
    client = peer = None
    while True:
        try:
            if client is None:
                client = socket.create_connection(server.getsockname())
                peer, _ = server.accept()
            client.send(b"echo")
            check(peer.recv(4) == b"echo", "the connection lost data")
        except OSError:
            client = None
            continue
        yield


@kind
def udp_socket():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(server.getsockname())
    while True:
        yield
        client.send(b"hello")
        check(server.recv(5) == b"hello", "the socket does not carry data")


@kind
def raw_socket():
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    while True:
        yield
        check(raw.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_RAW, "the socket is another one")


@kind
def packet_socket():
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    while True:
        yield
        check(packet.getsockopt(socket.SOL_SOCKET, 39) == socket.AF_PACKET, "the socket is another one")


@kind
def netlink_socket():
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    link.bind((0, 0))
    while True:
        yield
        link.send(struct.pack("<IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
        check(len(link.recv(65536)) > 16, "the socket does not answer")
        link.close()
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        link.bind((0, 0))


# ---- waiting, timers


@kind
def epoll():
    reader, writer = os.pipe()
    poll = select.epoll()
    poll.register(reader, select.EPOLLIN)
    while True:
        yield
        os.write(writer, b"x")
        check(poll.poll(5) == [(reader, select.EPOLLIN)], "epoll does not see the pipe")
        os.read(reader, 1)


@kind
def eventfd():
    fd = call("eventfd", 41, 0)
    while True:
        yield
        check(struct.unpack("<Q", os.read(fd, 8))[0] == 41, "the counter changed")
        os.write(fd, struct.pack("<Q", 41))


@kind
def timerfd():
    fd = call("timerfd_create", 1, 0)
    call("timerfd_settime", fd, 0, struct.pack("<qqqq", 0, 20_000_000, 0, 20_000_000), None)
    while True:
        yield
        check(struct.unpack("<Q", os.read(fd, 8))[0] >= 1, "the timer does not fire")


@kind
def interval_timer():
    count = 0

    def tick(*_):
        nonlocal count
        count += 1

    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    while True:
        before = count
        yield
        while count == before:
            signal.pause()


@kind
def posix_timer():
    count = 0

    def tick(*_):
        nonlocal count
        count += 1

    signal.signal(signal.SIGUSR2, tick)
    timer = ctypes.c_void_p()
    event = (ctypes.c_char * 64).from_buffer_copy(struct.pack("<Qii", 0, signal.SIGUSR2, 0).ljust(64, b"\0"))
    call("timer_create", 1, event, ctypes.byref(timer))
    call("timer_settime", timer, 0, struct.pack("<qqqq", 0, 20_000_000, 0, 20_000_000), None)
    while True:
        before = count
        yield
        while count == before:
            signal.pause()


@kind
def signalfd():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    mask = (ctypes.c_ulong * 16)()
    mask[0] = 1 << (signal.SIGUSR2 - 1)
    fd = call("signalfd", -1, mask, 0)
    while True:
        yield
        os.kill(os.getpid(), signal.SIGUSR2)
        check(struct.unpack("<I", os.read(fd, 128)[:4])[0] == signal.SIGUSR2, "another signal came")


@kind
def pending_blocked_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)
    while True:
        yield
        check(signal.sigpending() == {signal.SIGUSR2}, "the pending signal is lost")


def watched(directory):
    os.makedirs(directory, exist_ok=True)
    fd = call("inotify_init", )
    call("inotify_add_watch", fd, directory.encode(), 0x100)
    count = 0
    while True:
        yield
        count += 1
        open(f"{directory}/f{count}", "w").close()
        check(b"f%d" % count in os.read(fd, 4096), "the watch sees nothing")


@kind
def inotify():
    return watched("/tmp/watched")


@kind
def inotify_on_a_volume():
    return watched(f"{VOLUME}/watched")


@kind
def fanotify():
    os.makedirs("/tmp/announced", exist_ok=True)
    fd = syscall(300, 0, os.O_RDONLY)
    syscall(301, fd, 1, ctypes.c_uint64(0x8 | 0x08000000), -100, b"/tmp/announced")  # add: closed after writing, of children
    count = 0
    while True:
        yield
        count += 1
        with open(f"/tmp/announced/f{count}", "w") as file:
            file.write("x")
        event = os.read(fd, 4096)
        found = struct.unpack("<i", event[16:20])[0]
        check(os.readlink(f"/proc/self/fd/{found}") == f"/tmp/announced/f{count}", "the mark sees nothing")
        os.close(found)


@kind
def posix_message_queue():
    attributes = struct.pack("<qqqq32x", 0, 4, 16, 0)
    fd = syscall(240, b"fidelity", os.O_RDWR | os.O_CREAT, 0o600, attributes)
    syscall(242, fd, b"first", 5, 0, None)
    while True:
        yield
        message = ctypes.create_string_buffer(16)
        length = syscall(243, fd, message, 16, None, None)
        check(message.raw[:length] == b"first", "the message is lost")
        syscall(242, fd, b"first", 5, 0, None)


# ---- processes


@kind
def threads():
    counts = [0] * 4
    go = [threading.Semaphore(0) for _ in counts]
    done = threading.Semaphore(0)

    def work(n):
        while True:
            go[n].acquire()
            counts[n] += 1
            done.release()

    for n in range(4):
        threading.Thread(target=work, args=(n,), daemon=True).start()
    total = 0
    while True:
        yield
        total += 1
        for semaphore in go:
            semaphore.release()
        for _ in go:
            done.acquire()
        check(counts == [total] * 4, "a thread is lost")


@kind
def threads_in_odd_states():
    """Waiting for a lock with a timeout, for input, for a signal, in a sleep, with signals blocked, on a stack of its own."""
    reader, writer = os.pipe()
    answers = queue.SimpleQueue()
    go, lock = threading.Event(), threading.Lock()
    lock.acquire()

    def waits(name, wait):
        def run():
            while True:
                if wait():
                    answers.put(name)

        threading.Thread(target=run, daemon=True).start()

    def signalled():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        own.put(threading.get_native_id())
        return signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2

    own = queue.SimpleQueue()
    waits("input", lambda: os.read(reader, 1))
    waits("poll", lambda: select.select([reader], [], [], 1000) and go.wait() and time.sleep(0.01) is None)
    waits("lock", lambda: lock.acquire(timeout=1000))
    waits("sleep", lambda: time.sleep(0.05) is None)
    waits("signal", signalled)
    while True:
        target = own.get()
        yield
        while not answers.empty():
            answers.get()
        os.write(writer, b"!")
        lock.release()
        go.set()
        call("syscall", ctypes.c_long(234), os.getpid(), target, int(signal.SIGUSR2))  # tgkill
        seen = set()
        while not seen >= {"input", "lock", "sleep", "signal"}:
            try:
                seen.add(answers.get(timeout=20))
            except queue.Empty:
                check(False, f"only these threads go on: {seen}")
        go.clear()


@kind
def main_thread_that_has_ended():
    """A process whose first thread is gone, while another one works on."""
    reader, writer = os.pipe()
    back, answer = os.pipe()
    pid = os.fork()
    if pid == 0:

        def serve():
            while os.read(reader, 1):
                os.write(answer, b"!")

        threading.Thread(target=serve, daemon=True).start()
        syscall(60, 0)  # exit(2): only this thread's
    while "(zombie)" not in open(f"/proc/{pid}/task/{pid}/status").read():
        time.sleep(0.01)
    while True:
        yield
        os.write(writer, b"?")
        check(os.read(back, 1) == b"!", "the thread that was left is gone")


@kind
def program_that_has_not_begun():
    """A process that waits until its child, which shares its memory, has begun its program: posix_spawn, and a slow file."""
    os.mkfifo("/tmp/slow")
    pid = os.fork()
    if pid == 0:
        action = (os.POSIX_SPAWN_OPEN, 0, "/tmp/slow", os.O_RDONLY, 0)
        os.posix_spawn("/bin/true", ["true"], {}, file_actions=[action])
        os._exit(0)
    while not open(f"/proc/{pid}/task/{pid}/children").read():
        time.sleep(0.01)
    while True:
        yield
        check("D (disk sleep)" in open(f"/proc/{pid}/status").read(), "it does not wait any more")


@kind
def scheduling_policy():
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    while True:
        yield
        check(os.sched_getscheduler(0) == os.SCHED_BATCH, "the policy changed")


@kind
def processors_that_it_may_run_on():
    chosen = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, chosen)
    while True:
        yield
        check(os.sched_getaffinity(0) == chosen, "it may run on others")


@kind
def priority_for_the_disk():
    syscall(251, 1, 0, (2 << 13) | 7)  # ioprio_set: this process, best effort, the last
    while True:
        yield
        check(syscall(252, 1, 0) == (2 << 13) | 7, "it has the usual one")


@kind
def groups():
    os.setgroups([7, 1234])
    os.setresgid(50, 60, 70)
    while True:
        yield
        check((os.getgroups(), os.getresgid()) == ([7, 1234], (50, 60, 70)), "the groups changed")


@kind
def alternate_signal_stack():
    stack = mmap.mmap(-1, 64 << 10)
    address = ctypes.addressof(ctypes.c_char.from_buffer(stack))
    call("sigaltstack", struct.pack("<QixxxxQ", address, 0, 64 << 10), None)
    while True:
        yield
        now = ctypes.create_string_buffer(24)
        call("sigaltstack", None, now)
        check(struct.unpack("<QixxxxQ", now.raw) == (address, 0, 64 << 10), "the stack for signals is lost")


@kind
def zombie():
    pid = os.fork()
    if pid == 0:
        os._exit(42)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    while True:
        yield
        check(open(f"/proc/{pid}/stat").read().split(") ")[1][0] == "Z", "the zombie is gone")


@kind
def stopped_process():
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    while True:
        yield
        # A restored process is stopped last of all, a moment after the others run.
        for _ in range(200):
            if (state := open(f"/proc/{pid}/stat").read().split(") ")[1][0]) == "T":
                break
            time.sleep(0.01)
        check(state == "T", "the stopped process runs")


@kind
def daemon():
    """Double-forked into a session of its own: an orphan of the job."""
    reader, writer = os.pipe()
    back, answer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while os.read(reader, 1):
                os.write(answer, struct.pack("<ii", os.getpid(), os.getsid(0)))
        os._exit(0)
    os.wait()
    first = None
    while True:
        yield
        os.write(writer, b"?")
        who = os.read(back, 8)
        first = first or who
        check(who == first, "the daemon is another process, or in another session")


@kind
def pidfd():
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    fd = os.pidfd_open(pid)
    while True:
        yield
        signal.pidfd_send_signal(fd, 0)


@kind
def process_of_another_user():
    reader, writer = os.pipe()
    back, answer = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setgid(1000)
        os.setuid(1000)
        os.write(answer, b"!")
        while os.read(reader, 1):
            os.write(answer, struct.pack("<i", os.getuid()))
    os.read(back, 1)
    while True:
        yield
        os.write(writer, b"?")
        check(struct.unpack("<i", os.read(back, 4))[0] == 1000, "the process has another user")


@kind
def limits_umask_and_priority():
    resource.setrlimit(resource.RLIMIT_NOFILE, (123, 456))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o027)
    nice = os.nice(5)
    call("prctl", 15, b"fidelity-name", 0, 0, 0)
    while True:
        yield
        check(resource.getrlimit(resource.RLIMIT_NOFILE) == (123, 456), "the limit of open files changed")
        mask = os.umask(0o027)
        check(mask == 0o027, f"the umask is {mask:o}")
        check(os.nice(0) == nice, f"the priority is {os.nice(0)}")
        check(open("/proc/self/comm").read().strip() == "fidelity-name", "the name changed")


@kind
def no_new_privileges():
    call("prctl", 38, 1, 0, 0, 0)
    while True:
        yield
        check(libc.prctl(39, 0, 0, 0, 0) == 1, "no_new_privs is lost")


@kind
def dropped_capabilities():
    # Version 3, this process; all but CHOWN dropped.
    call("capset", struct.pack("<Ii", 0x20080522, 0), struct.pack("<IIIIII", 1, 1, 0, 0, 0, 0))
    while True:
        yield
        effective = next(line for line in open("/proc/self/status") if line.startswith("CapEff"))
        check(int(effective.split()[1], 16) == 1, f"capabilities changed: {effective.strip()}")


@kind
def seccomp_filter():
    call("prctl", 38, 1, 0, 0, 0)
    # One instruction: allow everything.
    program = (ctypes.c_char * 8).from_buffer_copy(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))
    header = struct.pack("<HxxxxxxQ", 1, ctypes.addressof(program))
    call("prctl", 22, 2, header, 0, 0)
    while True:
        yield
        check(any(line.split() == ["Seccomp:", "2"] for line in open("/proc/self/status")), "the filter is lost")


@kind
def pseudo_terminal_of_its_own():
    master, slave = os.openpty()
    while True:
        yield
        os.write(master, b"line\n")
        check(os.read(slave, 64) == b"line\n", "the terminal does not carry data")
        os.read(master, 64)


@kind
def asynchronous_io():
    context = ctypes.c_ulong()
    syscall(206, 8, ctypes.byref(context))
    while True:
        yield
        check(any("[aio]" in line for line in open("/proc/self/maps")), "the ring is gone")


# ---- what CRIU cannot do


@kind
def io_uring():
    syscall(425, 4, (ctypes.c_char * 120)())
    while True:
        yield


@kind
def userfaultfd():
    syscall(323, 1)
    while True:
        yield


@kind
def performance_counter():
    attributes = (ctypes.c_char * 128).from_buffer_copy(struct.pack("<IIQ", 1, 128, 1).ljust(128, b"\0"))
    syscall(298, attributes, 0, -1, -1, 0)
    while True:
        yield


@kind
def secret_memory():
    fd = syscall(447, 0)
    os.ftruncate(fd, 4096)
    while True:
        yield


@kind
def traced_process():
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    call("ptrace", 0x4206, pid, None, None)
    while True:
        yield


@kind
def device():
    # Whichever of these the kernel has: fuse, loop-control, hwrng, hpet.
    for minor in (229, 237, 183, 228):
        try:
            os.mknod("/tmp/device", 0o20600, os.makedev(10, minor))
            os.open("/tmp/device", os.O_RDONLY)
            break
        except OSError as error:
            failure = error
            if os.path.exists("/tmp/device"):
                os.unlink("/tmp/device")
    else:
        raise failure
    while True:
        yield


@kind
def namespaces_of_its_own():
    call("unshare", 0x04000000)  # CLONE_NEWUTS
    while True:
        yield


@kind
def changed_root():
    os.chroot("/usr")
    os.chdir("/")
    while True:
        yield
        check(os.path.isdir("/bin") and not os.path.exists("/usr/bin"), "the root directory changed")


def main():
    global VOLUME
    if sys.argv[1] == "--list":
        print("\n".join(KINDS))
        return
    if len(sys.argv) > 2:
        VOLUME = sys.argv[2]
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        holding = KINDS[sys.argv[1]]()
        next(holding)
    except OSError as error:
        print(f"unavailable {error}", flush=True)
        sys.exit(98)
    print(f"ready {sys.argv[1]}", flush=True)
    step = 0
    while True:
        next(holding)
        step += 1
        print(f"step {step}", flush=True)
        time.sleep(0.05)


main()
