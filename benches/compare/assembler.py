"""A real assembler until its end: MEGAHIT, saved where it holds most memory, then continued after an eager and after a lazy restore.

All continue from the same checkpoint and a copy of the same files, and must find the contigs of an undisturbed run.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

from lazy import SAVED_AND_STOPPED
from link import Link
from processes import Failed, children, cpu_seconds, members
from report import ENDS, LOCAL

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS / "demo"))
from container import Container  # noqa: E402
from demo import contigs, log_of  # noqa: E402
from seaweed import SeaweedS3  # noqa: E402

# With as much memory as it is given, as on a machine of its own: all k-mers are sorted at once.
ASSEMBLE = "megahit -1 /reads/reads_1.fq -2 /reads/reads_2.fq -t 2 -m 2000000000 --mem-flag 2 --k-list 21 -o /work/assembly"
# Then it stays, so that the job does not count as complete and can be continued again.
COMMAND = ["sh", "-c", f"{ASSEMBLE} && touch /work/ended && exec sleep 100000"]
SUPERVISED = ["/opt/revenant/bin/revenant", "run", "--", *COMMAND]
# Said in its log when all k-mers are in memory, and their sorting is still to come.
HUNGRY = "Lv1 scanning done"
MEGABASES = 3
# Round trip and rate of the way to the S3 server.
LINKS = [("S3", 0, 0), ("S3, 20 ms, 200 MB/s", 20, 200e6)]
# Each manner in turn, so that what disturbs the machine disturbs both.
ROUNDS = 2
PATIENCE = 900


class Assembler:
    """The rows of one assembly."""

    def __init__(self, stage, scratch):
        self.stage, self.dir = stage.resolve(), pathlib.Path(scratch) / "assembler"
        self.cache = pathlib.Path(os.environ.get("REVENANT_CACHE") or pathlib.Path.home() / ".cache" / "revenant")
        self.work, self.saved, self.store = (self.dir / part for part in ("work", "saved", "store"))

    def measure(self, note):
        if not (self.stage / "bin" / "revenant").exists():
            raise Failed(f"{self.stage}/bin/revenant is not there: run `make stage`")
        self.dir.mkdir()
        self.store.mkdir()
        said = subprocess.run([SCRIPTS / "rootfs.sh", self.cache, "megahit"], stdout=subprocess.PIPE, text=True, check=True)
        self.root, self.reads = said.stdout.strip(), self._community()
        expected, cost = self._until_its_end(COMMAND, {}, None)
        note("MEGAHIT", f"{ENDS}, undisturbed", cost)
        self._save({"REVENANT_STORE": "file:///store"})
        self._continue(LOCAL, {}, expected, note)
        if not (os.environ.get("WEED") or shutil.which("weed")):
            raise Failed("no rows for S3: set WEED to SeaweedFS's program (scripts/seaweedfs.sh)")
        with SeaweedS3(self.dir / "seaweed") as server:
            access = server.access()
            self._save({**access["env"], "REVENANT_STORE": access["url"]})
            for name, delay, rate in LINKS:
                with Link(server.port, delay, rate) if delay or rate else contextlib.nullcontext(server) as way:
                    self._continue(name, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.port}"}, expected, note)

    def _community(self):
        """Simulated reads, kept between runs like those of the demonstration."""
        reads = self.cache / "demo" / f"community-{MEGABASES:g}"
        if not (reads / "complete").exists():
            subprocess.run([sys.executable, SCRIPTS / "demo" / "community.py", reads, "--megabases", str(MEGABASES)], check=True)
            (reads / "complete").touch()
        return reads

    def _continue(self, store, env, expected, note):
        """What follows from the save, over this way to the store."""
        for _ in range(ROUNDS):
            for manner in ("eager", "lazy"):
                found, cost = self._until_its_end(SUPERVISED, {**self.env, **env, "REVENANT_RESTORE": manner}, self.saved)
                note(f"revenant {manner}", f"{ENDS}, {store}", cost)
                if found != expected:
                    raise Failed(f"after the {manner} restore from {store} the contigs are others")

    def _container(self, inside, env):
        mounts = [(self.stage, "/opt/revenant", "ro"), (self.reads, "/reads", "ro"), (self.work, "/work", "rw"), (self.store, "/store", "rw")]
        return Container(f"revenant-bench-{time.time_ns()}", self.root, self.dir, inside, env, mounts)

    def _save(self, env):
        """Runs it until it is hungry, and stops it there; keeps its files as they are then."""
        self.env = {**env, "REVENANT_JOB": f"assembler-{time.time_ns()}", "REVENANT_GRACE": "3600", "REVENANT_TAKEOVER": "true"}
        for directory in (self.work, self.saved):
            shutil.rmtree(directory, ignore_errors=True)
        self.work.mkdir()
        with self._container(SUPERVISED, self.env) as container:
            wait(container, lambda: any(HUNGRY in line for line in log_of(self.work)))
            container.signal("TERM")
            if (code := container.wait(PATIENCE)) != SAVED_AND_STOPPED:
                raise Failed(f"the save ended with {code}: " + "\n".join(container.lines[-8:]))
        self.work.rename(self.saved)

    def _until_its_end(self, inside, env, files):
        """The contigs, and what they took from the start of the container, revenant's own work included."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(files, self.work, symlinks=True) if files else self.work.mkdir()
        container = self._container(inside, env)
        began = time.monotonic()
        with container:
            wait(container, (self.work / "ended").exists)
            took = time.monotonic() - began
            cpu = sum(cpu_seconds(pid) for first in children(container.process.pid) for pid in members(first))
            if files and not any("continued from generation" in line for line in container.lines):
                raise Failed("it was not continued: " + "\n".join(container.lines[-8:]))
            container.signal("KILL")
            container.wait(60)
        return contigs(self.work / "assembly" / "final.contigs.fa"), {"wall_s": took, "cpu_s": cpu}


def wait(container, is_so):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if container.process.poll() is not None or time.monotonic() > deadline:
            raise Failed("the assembly has ended too early, or not in time: " + "\n".join(container.lines[-8:]))
        time.sleep(0.02)
