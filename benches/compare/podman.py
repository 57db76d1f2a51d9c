"""The peer that people know: `podman container checkpoint --export`, with the same CRIU."""

import pathlib
import resource
import shlex
import shutil
import subprocess
import tempfile
import time

import criu
from processes import Failed, flushed, timed
from workload import Workload, arguments

IMAGE = "localhost/revenant-bench"


class Podman:
    """Podman with storage of its own, so that nothing of the machine's is touched and nothing stays."""

    def __init__(self, bundle, binary, scratch):
        self.binary, self.disk = binary, pathlib.Path(scratch) / "podman"
        # A short path: podman puts sockets there.
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="bench-podman-"))
        wrapper = self.run / "bin" / "criu"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(criu.command(bundle))} "$@"\n')
        wrapper.chmod(0o755)
        self.wrapper = wrapper.parent

    def command(self, *arguments):
        place = ["--root", self.disk / "storage", "--runroot", self.run / "run", "--tmpdir", self.run / "tmp"]
        kind = ["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "runc"]
        conmon = ["--conmon", shutil.which("conmon")]
        # The wrapper comes first in PATH, for podman and for the runtime that it starts.
        return ["env", f"PATH={self.wrapper}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.program, *map(str, [*place, *kind, *conmon, *arguments])]  # fmt: skip

    def unusable(self):
        """Why podman cannot take part, or nothing."""
        self.program = shutil.which("podman")
        if not self.program or not shutil.which("conmon"):
            return "podman is not installed: apt-get install podman"
        return None

    def version(self):
        return timed([self.program, "--version"])["output"].split()[-1]

    def prepare(self):
        root = self.disk / "root"
        for directory in ("proc", "sys", "dev", "run", "tmp", "etc", "control"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.binary, root / "workload")
        archive = self.disk / "root.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        timed(self.command("import", archive, IMAGE))

    def measure(self, size, note):
        if reason := self.unusable():
            raise Failed(reason)
        control, archive = self.disk / "control", self.disk / "exported" / "checkpoint.tar.zst"
        control.mkdir(parents=True)
        archive.parent.mkdir()
        try:
            self.prepare()
            self._measure(size, note, control, archive)
        finally:
            subprocess.run(self.command("rm", "--all", "--force", "--time", "0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            subprocess.run(self.command("rmi", "--all", "--force"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            shutil.rmtree(self.disk)

    def _measure(self, size, note, control, archive):
        workload = Workload(control, size.processes)
        # Podman wants higher limits than a root without CAP_SYS_RESOURCE may set.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = ["--ulimit", f"nofile={most}:{most}", "--ulimit", "nproc=4096:4096"]
        rights = ["--network", "none", "--security-opt", "seccomp=unconfined"]
        inside = ["/workload", *arguments(size, "/control")]
        timed(self.command("run", "--detach", "--name", "workload", *rights, *limits, "--volume", f"{control}:/control", IMAGE, *inside))
        workload.ready()
        workload.gap()
        cost = timed(self.command("container", "checkpoint", "workload", "--leave-running", "--compress", "zstd", "--export", archive))
        cost["frozen_s"] = workload.gap()["seconds"]
        cost["wall_s"] += flushed(archive.parent)["wall_s"]
        note("podman", "checkpoint --export (zstd)", {**cost, "stored_bytes": archive.stat().st_size})

        expected = workload.sums()
        timed(self.command("rm", "--force", "--time", "0", "workload"))
        workload.clear()
        workload.ask("ping")
        start = time.time()
        cost = timed(self.command("container", "restore", "--import", archive))
        running = float(workload.answer()["at"]) / 1e9 - start
        note("podman", "restore --import", {**cost, "wall_s": running})
        if workload.sums() != expected:
            raise Failed("podman restored other memory than it saved")

    def close(self):
        shutil.rmtree(self.run, ignore_errors=True)
