"""What the kernel says about processes: time, memory, and what one command took."""

import contextlib
import os
import pathlib
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
PROC = pathlib.Path("/proc")


class Failed(Exception):
    """A program that was being measured failed. The text says which, and its last words."""


def timed(command, log=None):
    """Runs a command to its end. Wall and CPU seconds (with the children it waited for) and its largest process in MiB.

    `log` is where a program that says little on stderr writes what went wrong.
    """
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        text = output.decode(errors="replace")
        if log and log.exists():
            text += "".join(line for line in log.read_text(errors="replace").splitlines(keepends=True) if "Error" in line)
        last = text.strip().splitlines()[-8:]
        raise Failed(f"{' '.join(map(str, command))} ended with {process.returncode}:\n" + "\n".join(last))
    return {
        "wall_s": time.monotonic() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "output": output.decode(errors="replace"),
    }


def added(*steps):
    """Steps that follow one another as one."""
    return {
        "wall_s": sum(step["wall_s"] for step in steps),
        "cpu_s": sum(step["cpu_s"] for step in steps),
        "peak_mib": max(step["peak_mib"] for step in steps),
    }


def flushed(directory):
    """Makes all files in a directory durable; how long that took, as a step."""
    start = time.monotonic()
    for path in [*pathlib.Path(directory).rglob("*"), pathlib.Path(directory)]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return {"wall_s": time.monotonic() - start, "cpu_s": 0, "peak_mib": 0}


def bytes_in(directory):
    """The size of all files in a directory."""
    return sum(path.stat().st_size for path in pathlib.Path(directory).rglob("*") if path.is_file())


def status(pid):
    """`/proc/PID/status` as a dictionary."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_seconds(pid):
    """User and system time of a process and of the children that it has waited for. Steps of 10 ms."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def children(pid):
    """The PIDs of a process's children."""
    tasks = (PROC / str(pid) / "task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def members(pid):
    """All processes in the PID namespace of a process, as PIDs of this side."""
    namespace = os.readlink(PROC / str(pid) / "ns/pid")
    for entry in os.listdir(PROC):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(PROC / entry / "ns/pid") == namespace:
                    yield int(entry)


def program(pid):
    """Which of the benchmark's programs a process is."""
    try:
        name = pathlib.Path(os.readlink(PROC / str(pid) / "exe")).name
        if name.startswith("ld-"):
            name = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[3].decode().rpartition("/")[2]
        return name
    except (OSError, IndexError):
        return None


class Watch:
    """Looks at the processes of a container twenty times a second, while they last."""

    def __init__(self, init_pid):
        self.init_pid, self.peak_kib, self.done = init_pid, {}, threading.Event()
        self.before = self.cpu = 0
        self.before = self._look()
        self.cpu = 0

    def _look(self):
        """CPU seconds of all that is not the workload. Notes the sum of each program's memory peaks."""
        cpu, now, workload = 0.0, {}, False
        for pid in list(members(self.init_pid)):
            with contextlib.suppress(OSError, KeyError):
                name = program(pid)
                if name == "workload":
                    workload = True
                elif name in ("revenant", "criu"):
                    cpu += cpu_seconds(pid)
                    now[name] = now.get(name, 0) + int(status(pid)["VmHWM"].split()[0])
        for name, kib in now.items():
            self.peak_kib[name] = max(kib, self.peak_kib.get(name, 0))
        if workload:
            # Once the workload has been reaped, its own time counts among that of its parents.
            self.cpu = max(self.cpu, cpu - self.before)
        return cpu

    def _run(self):
        while not self.done.wait(0.05):
            with contextlib.suppress(OSError):
                self._look()

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        with contextlib.suppress(OSError):
            self._look()

    def cost(self):
        return {
            "cpu_s": self.cpu,
            "peak_mib": self.peak_kib.get("revenant", 0) / 1024,
            "criu_peak_mib": self.peak_kib.get("criu", 0) / 1024,
        }
