"""revenant itself: a job that is saved again and again, ended by SIGTERM, and continued in a new container."""

import json
import os
import signal
import subprocess
import time

from box import REVENANT, Box, first_process, runs
from processes import Failed, Watch, bytes_in, cpu_seconds, members, program, timed
from report import FIRST, RESTORE, again
from workload import Workload, arguments

SAVED_AND_STOPPED = 200
# How much is dirtied before each later save, and how. The order is from small to large, because
# what is dirtied is random from then on.
DIRTIED = [(1, "random"), (1, "runs"), (5, "random"), (5, "runs"), (25, "random"), (25, "runs")]
THROTTLED_BYTES_PER_SECOND = 10_000_000


def words(pattern):
    return "in runs" if pattern == "runs" else pattern


class Revenant:
    def __init__(self, stage, binary, scratch):
        self.stage, self.binary, self.scratch = stage, binary, scratch

    def unusable(self):
        """Why revenant cannot be measured, or nothing."""
        if not (self.stage / "bin" / "revenant").exists():
            return f"{self.stage}/bin/revenant is not there: run `make stage`"
        return None

    def measure(self, size, note):
        if reason := self.unusable():
            raise Failed(reason)
        peaks = []

        def noted(program, what, values):
            if "peak_mib" in values:
                peaks.append(values["peak_mib"])
            note(program, what, values)

        with Box(self.scratch, self.stage, self.binary) as box:
            self._measure(box, size, noted)
        if size.processes == 1:
            with Box(self.scratch, self.stage, self.binary) as box:
                self._throttled(box, size, noted)
        note("revenant", "all rows", {"peak_mib": max(peaks)})

    def _measure(self, box, size, note):
        workload = Workload(box.control, size.processes)
        command = ["/workload", *arguments(size, "/control")]
        with box.supervised(command) as container:
            pid1 = first_process(container)
            workload.ready(alive=runs(container))
            note("revenant", FIRST, self._save(box, container, workload, pid1))
            note("revenant", again(0, ""), self._save(box, container, workload, pid1))
            for seed, (percent, pattern) in enumerate(DIRTIED if size.processes == 1 else [], start=1):
                dirtied = workload.dirty(percent, pattern, seed)
                cost = self._save(box, container, workload, pid1)
                note("revenant", again(percent, words(pattern)), {**cost, "dirtied_bytes": dirtied})
            dirtied = workload.dirty(1, "runs", 99)
            expected = workload.sums()
            note("revenant", "final save on SIGTERM, 1 % dirtied in runs", {**self._final(box, container, pid1), "dirtied_bytes": dirtied})

        start = box.plain_start()
        workload.clear()
        workload.ask("ping")
        began = time.time()
        with box.supervised(command) as container:
            pid1 = first_process(container)
            with Watch(pid1) as watch:
                running = float(workload.answer(alive=runs(container))["at"]) / 1e9 - began
            cpu = sum(map(cpu_seconds, members(pid1)))
            note("revenant", RESTORE, {**watch.cost(), "wall_s": running, "restore_s": running - start, "cpu_s": cpu})
            if workload.sums() != expected:
                raise Failed("revenant restored other memory than it saved: " + "\n".join(container.lines[-12:]))

    def _save(self, box, container, workload, pid1):
        """`revenant checkpoint` in the container, as a person or a CronJob asks for it."""
        before = bytes_in(box.store)
        workload.gap()
        with Watch(pid1) as watch:
            cost = timed(["runc", "exec", container.name, REVENANT, "checkpoint", "--json"])
            wait_for_engine(pid1)
        frozen = workload.gap()["seconds"]
        durable = json.loads(cost["output"].strip().splitlines()[-1])
        if durable.get("answer") != "durable":
            raise Failed(f"no durable checkpoint: {durable}")
        stored = bytes_in(box.store) - before
        return {**watch.cost(), "wall_s": cost["wall_s"], "frozen_s": frozen, "frozen_reported_s": durable["frozen_ms"] / 1000, "stored_bytes": stored}

    def _final(self, box, container, pid1):
        before = bytes_in(box.store)
        began = time.monotonic()
        with Watch(pid1) as watch:
            os.kill(pid1, signal.SIGTERM)
            code = container.wait(3600)
        wall = time.monotonic() - began
        if code != SAVED_AND_STOPPED:
            raise Failed(f"the final save ended with {code}: " + "\n".join(container.lines[-8:]))
        return {**watch.cost(), "wall_s": wall, "stored_bytes": bytes_in(box.store) - before}

    def _throttled(self, box, size, note):
        """A first save with a slow store: measured until the workload runs again, not until the save is durable."""
        if "--upload-limit" not in timed([str(self.stage / "bin" / "revenant"), "run", "--help"])["output"]:
            return
        env = {"REVENANT_UPLOAD_LIMIT": str(THROTTLED_BYTES_PER_SECOND), "REVENANT_SPOOL": "/spool", "REVENANT_SPOOL_LIMIT": str(size.mib << 20)}
        workload = Workload(box.control, size.processes)
        with box.supervised(["/workload", *arguments(size, "/control")], env=env) as container:
            pid1 = first_process(container)
            workload.ready(alive=runs(container))
            workload.gap()
            with Watch(pid1) as watch:
                asking = ["runc", "exec", container.name, REVENANT, "checkpoint", "--json"]
                with subprocess.Popen(asking, stdout=subprocess.PIPE, text=True) as asked:
                    answers = map(json.loads, asked.stdout)
                    released = next((answer for answer in answers if answer["answer"] != "progress"), {"answer": "nothing"})
                    if released["answer"] != "released":
                        raise Failed(f"with a slow store: {released}")
                    frozen = workload.gap()["seconds"]
                    container.signal("KILL")
            values = {"frozen_s": frozen, "frozen_reported_s": released["frozen_ms"] / 1000, "peak_mib": watch.cost()["peak_mib"]}
            note("revenant", f"{FIRST}, store at 10 MB/s", values)


def wait_for_engine(pid1, timeout=5):
    """The engine ends a moment after it has said that the save is durable; then PID 1 knows what it cost."""
    deadline = time.monotonic() + timeout
    while sum(program(pid) in ("revenant", "criu") for pid in members(pid1)) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
