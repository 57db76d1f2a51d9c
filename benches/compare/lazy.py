"""Running before the memory has arrived: revenant's lazy restore beside its eager one and `criu lazy-pages`.

Each restore is measured until the workload executes, until all of its memory is there, and until it has done something that
touches all of it, or one page in twenty. The workload finds what it is to do before it is restored, so that it does that at once.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

from box import Box, first_process, runs
from criu import PidNamespace, command
from link import Link
from processes import Failed, Watch, timed
from report import ALL_THERE, EXECUTES, LOCAL, TOUCHES, WALKS
from workload import Workload, arguments

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "scripts" / "demo"))
from seaweed import SeaweedS3  # noqa: E402

SAVED_AND_STOPPED = 200
ARRIVED = "all memory has arrived, after"
# What is asked of the workload, and the row in which the time until its answer stands.
DEEDS = [("ping", EXECUTES), ("dirty 5 random 7", TOUCHES), ("sum", WALKS)]
# Round trip and rate of the way to the S3 server.
LINKS = [("S3", 0, 0), ("S3, 20 ms", 20, 0), ("S3, 20 ms, 200 MB/s", 20, 200e6)]


class Fetched:
    """What has come over a link since then; nothing without one."""

    def __init__(self, link):
        self.link, self.before = link, link.passed() if link else 0

    def cost(self):
        return {"fetched_mib": (self.link.passed() - self.before) / 2**20} if self.link else {}


class Lazy:
    """All rows of lazy restore for one size."""

    def __init__(self, stage, binary, scratch, memory):
        self.stage, self.binary, self.scratch, self.memory = stage, binary, pathlib.Path(scratch), pathlib.Path(memory) / "lazy"

    def measure(self, size, note):
        if size.processes > 1:
            return
        if not (self.stage / "bin" / "revenant").exists():
            raise Failed(f"{self.stage}/bin/revenant is not there: run `make stage`")
        self._criu(size, note)
        with Box(self.scratch, self.stage, self.binary) as box:
            self._revenant(box, size, note, LOCAL, {})
        if not (os.environ.get("WEED") or shutil.which("weed")):
            raise Failed("no rows for S3: set WEED to SeaweedFS's program (scripts/seaweedfs.sh)")
        directory = self.scratch / f"seaweed-{time.time_ns()}"
        with SeaweedS3(directory) as server, Box(self.scratch, self.stage, self.binary) as box:
            access = server.access()
            env = {**access["env"], "REVENANT_STORE": access["url"], "REVENANT_JOB": f"lazy-{time.time_ns()}"}
            save = True
            for name, delay, rate in LINKS:
                with contextlib.ExitStack() as stack:
                    link = stack.enter_context(Link(server.port, delay, rate)) if delay or rate else None
                    if link:
                        env = {**env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{link.port}"}
                    self._revenant(box, size, note, name, env, save, link)
                save = False
        shutil.rmtree(directory, ignore_errors=True)

    def _revenant(self, box, size, note, store, env, save=True, link=None):
        workload = Workload(box.control)
        inside = ["/workload", *arguments(size, "/control")]
        if save:
            workload.clear()
            with box.supervised(inside, env=env) as container:
                pid1 = first_process(container)
                workload.ready(alive=runs(container))
                os.kill(pid1, 15)
                if (code := container.wait(3600)) != SAVED_AND_STOPPED:
                    raise Failed(f"the save ended with {code}: " + "\n".join(container.lines[-8:]))
        start = box.plain_start()
        for manner in ("lazy", "eager"):
            for deed, row in DEEDS:
                if manner == "eager" and (deed != "sum" and store != LOCAL):
                    continue
                workload.clear()
                workload.ask(deed)
                arrived, at = threading.Event(), []

                def heard(line):
                    if ARRIVED in line:
                        at.append(time.time())
                        arrived.set()

                container = box.supervised(inside, env={**env, "REVENANT_RESTORE": manner, "REVENANT_TAKEOVER": "true"})
                container.on_line = heard
                fetched = Fetched(link)
                began = time.time()
                with container, Watch(first_process(container)) as watch:
                    workload.answer(alive=runs(container))
                    done = time.time() - began - start
                    note(f"revenant {manner}", f"{row}, {store}", {"wall_s": done, "restore_s": done, "peak_mib": watch.cost()["peak_mib"], **fetched.cost()})
                    if manner == "lazy" and deed == "ping":
                        # With nothing else going on.
                        if not arrived.wait(3600):
                            raise Failed("the memory does not arrive: " + "\n".join(container.lines[-8:]))
                        there = at[0] - began - start
                        note("revenant lazy", f"{ALL_THERE}, {store}", {"wall_s": there, "restore_s": there, **fetched.cost()})
                    # Killed: the store holds the same generation for the next one, which need not wait to see that this
                    # one is gone.
                    container.signal("KILL")
                    container.wait(60)

    def _criu(self, size, note):
        """`criu lazy-pages` with images in memory: the best that it can be given."""
        criu = command(self.stage / "criu")
        shutil.rmtree(self.memory, ignore_errors=True)
        images, control = self.memory / "images", self.memory / "control"
        for directory in (images, control):
            directory.mkdir(parents=True)
        workload = Workload(control)
        try:
            with PidNamespace() as namespace:
                quiet = ["setsid", "sh", "-c", 'exec "$0" "$@" </dev/null >/dev/null 2>&1']
                started = subprocess.Popen(namespace.inside(*quiet, self.binary, *arguments(size, control)))
                pid = workload.ready(alive=lambda: started.poll() is None)
                timed(namespace.inside(*criu, "dump", "--tree", pid, "--images-dir", images, "--log-file", "dump.log"), log=images / "dump.log")
                namespace.kill_workload()
                for deed, row in DEEDS:
                    workload.clear()
                    workload.ask(deed)
                    began = time.time()
                    daemon = subprocess.Popen(namespace.inside(*criu, "lazy-pages", "--images-dir", images, "--log-file", "lazy.log"))
                    socket = images / "lazy-pages.socket"
                    while not socket.exists() and daemon.poll() is None:
                        time.sleep(0.001)
                    restore = [*criu, "restore", "--lazy-pages", "--restore-detached", "--images-dir", images, "--log-file", "restore.log"]
                    timed(namespace.inside(*restore), log=images / "restore.log")
                    workload.answer()
                    done = time.time() - began
                    note("criu lazy-pages", f"{row}, images in tmpfs", {"wall_s": done})
                    if daemon.wait(3600) != 0:
                        raise Failed(f"criu lazy-pages ended with {daemon.returncode}")
                    if deed == "ping":
                        note("criu lazy-pages", f"{ALL_THERE}, images in tmpfs", {"wall_s": time.time() - began})
                    socket.unlink(missing_ok=True)
                    namespace.kill_workload()
        finally:
            shutil.rmtree(self.memory, ignore_errors=True)
