"""The peer that revenant stands on: plain CRIU, with all the rights that it may want."""

import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

from processes import Failed, added, bytes_in, children, cpu_seconds, flushed, members, program, timed
from workload import Workload, arguments


def command(bundle):
    """How the bundled CRIU is started from any directory."""
    bundle = pathlib.Path(bundle).resolve()
    loader = next(bundle.glob("ld-linux-*.so.*"))
    return [str(loader), "--library-path", str(bundle), str(bundle / "criu")]


# To ignore SIGCHLD is to have the kernel reap.
REAPER = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(flush=True); signal.pause()"


class PidNamespace:
    """A PID namespace, so that a PID to be restored is free. Its first process reaps what is left behind."""

    def __enter__(self):
        init = [sys.executable, "-c", REAPER]
        unshare = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child", *init]
        self.holder = subprocess.Popen(unshare, stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        (self.init_pid,) = children(self.holder.pid)
        return self

    def inside(self, *arguments):
        return ["nsenter", "--target", str(self.init_pid), "--pid", "--mount", *map(str, arguments)]

    def workload_pids(self):
        return [pid for pid in members(self.init_pid) if program(pid) == "workload"]

    def kill_workload(self):
        pids = self.workload_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        # Only when it has been reaped is its PID free.
        deadline = time.monotonic() + 120
        while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
            if time.monotonic() > deadline:
                raise Failed("the workload cannot be killed")
            time.sleep(0.01)

    def __exit__(self, *_):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


def frozen_by_criu(images):
    """`frozen_time` of CRIU's own statistics, in seconds: field 2 of the message that is field 1 of `stats-dump`."""
    data = (pathlib.Path(images) / "stats-dump").read_bytes()
    (size,) = struct.unpack_from("<I", data, 8)
    fields = varints(length_delimited(data[12 : 12 + size]))
    return fields[2] / 1e6


def length_delimited(message):
    if message[0] != 0x0A:
        raise Failed("stats-dump does not begin with the statistics of a dump")
    length, start = varint(message, 1)
    return message[start : start + length]


def varints(message):
    fields, position = {}, 0
    while position < len(message):
        key, position = varint(message, position)
        fields[key >> 3], position = varint(message, position)
    return fields


def varint(message, position):
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


class Criu:
    """Every way of saving by CRIU that people use, on one workload; then a restore."""

    def __init__(self, bundle, binary, scratch, memory):
        self.criu, self.binary = command(bundle), binary
        self.disk, self.memory = pathlib.Path(scratch) / "criu", pathlib.Path(memory) / "criu"

    def version(self):
        return timed([*self.criu, "--version"])["output"].split()[1]

    def measure(self, size, note):
        for place in (self.disk, self.memory):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        try:
            self._measure(size, note)
        finally:
            for place in (self.disk, self.memory):
                shutil.rmtree(place, ignore_errors=True)

    def _measure(self, size, note):
        control = self.disk / "control"
        control.mkdir()
        workload = Workload(control, size.processes)
        with PidNamespace() as namespace:
            # /dev/null must be the one of the namespace, or CRIU does not find its mount.
            quiet = ["setsid", "sh", "-c", 'exec "$0" "$@" </dev/null >/dev/null 2>&1']
            started = subprocess.Popen(namespace.inside(*quiet, self.binary, *arguments(size, control)))
            pid = workload.ready(alive=lambda: started.poll() is None)

            on_disk = self._directory(self.disk / "images")
            dump = self._dump(namespace, workload, pid, on_disk)
            sync = flushed(on_disk)
            note("criu", "dump to disk, synced", {**dump, **added(dump, sync), "stored_bytes": bytes_in(on_disk)})
            shutil.rmtree(on_disk)

            images = self._directory(self.memory / "images")
            dump = self._dump(namespace, workload, pid, images)
            note("criu", "dump to tmpfs", {**dump, "stored_bytes": bytes_in(images)})
            for name, packed in (("zstd -1 -T0", self._zstd(images)), ("lz4", self._lz4(images))):
                note("criu", f"dump to tmpfs, then {name} to disk, synced", {**dump, **added(dump, packed), "stored_bytes": packed["stored_bytes"]})

            expected = workload.sums()
            namespace.kill_workload()
            self._restore(namespace, workload, images, note)
            if workload.sums() != expected:
                raise Failed("criu restored other memory than it saved")

    def _directory(self, path):
        path.mkdir()
        return path

    def _dump(self, namespace, workload, pid, images):
        workload.gap()
        options = ["--tree", pid, "--images-dir", images, "--leave-running", "--log-file", "dump.log"]
        cost = timed(namespace.inside(*self.criu, "dump", *options), log=images / "dump.log")
        cost["frozen_s"] = workload.gap()["seconds"]
        cost["frozen_reported_s"] = frozen_by_criu(images)
        return cost

    def _zstd(self, images):
        packed = self._directory(self.disk / "zstd")
        cost = timed(["zstd", "-1", "-T0", "-q", "-r", "--output-dir-flat", packed, images])
        return self._finished(packed, cost)

    def _lz4(self, images):
        packed = self._directory(self.disk / "lz4")
        files = sorted(file for file in images.iterdir() if file.is_file())
        cost = added(*(timed(["lz4", "-1", "-q", file, packed / f"{file.name}.lz4"]) for file in files))
        return self._finished(packed, cost)

    def _finished(self, packed, cost):
        cost = {**added(cost, flushed(packed)), "stored_bytes": bytes_in(packed)}
        shutil.rmtree(packed)
        return cost

    def _restore(self, namespace, workload, images, note):
        workload.clear()
        workload.ask("ping")
        start = time.time()
        options = ["--restore-detached", "--images-dir", images, "--log-file", "restore.log"]
        cost = timed(namespace.inside(*self.criu, "restore", *options), log=images / "restore.log")
        running = float(workload.answer()["at"]) / 1e9 - start
        # The restored processes read their memory themselves.
        cost["cpu_s"] += sum(map(cpu_seconds, namespace.workload_pids()))
        note("criu", "restore from tmpfs", {**cost, "wall_s": running})
