"""What revenant costs when it has nothing to do, and how quick it is with a small workload."""

import os
import re
import signal
import statistics
import subprocess
import time

from box import Box, first_process, runs
from processes import PROC, Failed, status
from revenant import SAVED_AND_STOPPED
from workload import Workload, arguments

WATCHED_SECONDS = 20
STARTS = 15
STOPS = 5


class Small:
    """The smallest workload."""

    mib, processes = 8, 1


class Idle:
    def __init__(self, stage, binary, scratch):
        self.stage, self.binary, self.scratch = stage, binary, scratch

    def measure(self, note):
        note("revenant", "binary", self._binary())
        with Box(self.scratch, self.stage, self.binary) as box:
            note("revenant", "idle", self._idle(box))
        with Box(self.scratch, self.stage, self.binary) as box:
            note("revenant", "start", self._start(box))
        for _ in range(STOPS):
            with Box(self.scratch, self.stage, self.binary) as box:
                note("revenant", "SIGTERM", self._sigterm(box))

    def _binary(self):
        file = self.stage / "bin" / "revenant"
        needed = subprocess.run(["ldd", file], capture_output=True, text=True).stdout
        return {"size_mib": file.stat().st_size / 2**20, "libraries": len(re.findall(r"=>|/ld-", needed))}

    def _idle(self, box):
        workload = Workload(box.control)
        with box.supervised(["/workload", *arguments(Small, "/control")]) as container:
            pid1 = first_process(container)
            workload.ready(alive=runs(container))
            time.sleep(2)
            before = voluntary_switches(pid1)
            time.sleep(WATCHED_SECONDS)
            wakeups = (voluntary_switches(pid1) - before) / WATCHED_SECONDS
            proportional = re.search(r"^Pss: +(\d+)", (PROC / str(pid1) / "smaps_rollup").read_text(), re.MULTILINE)
            resident = int(status(pid1)["VmRSS"].split()[0])
            return {"rss_mib": resident / 1024, "pss_mib": int(proportional[1]) / 1024, "wakeups_per_s": wakeups}

    def _start(self, box):
        """Interleaved, so that both have the same neighbours."""
        without, through = [], []
        for _ in range(STARTS):
            without += box.start_seconds(["/workload", "stamp"], 1, supervised=False)
            through += box.start_seconds(["/workload", "stamp"], 1, supervised=True)
        running, whole = ([statistics.median(pair[part] for pair in pairs) for pairs in (without, through)] for part in (0, 1))
        return {
            "direct_ms": running[0] * 1000,
            "through_ms": running[1] * 1000,
            "added_ms": (running[1] - running[0]) * 1000,
            "added_to_end_ms": (whole[1] - whole[0]) * 1000,
        }

    def _sigterm(self, box):
        workload = Workload(box.control)
        command = ["/workload", *arguments(Small, "/control")]
        with box.supervised(command) as container:
            pid1 = first_process(container)
            workload.ready(alive=runs(container))
            time.sleep(0.5)
            workload.gap()
            told = time.time()
            os.kill(pid1, signal.SIGTERM)
            code = container.wait(60)
            gone = time.time()
        if code != SAVED_AND_STOPPED:
            raise Failed(f"the final save of a small workload ended with {code}: " + "\n".join(container.lines[-8:]))
        # The restored workload remembers when it last ran: it was frozen within a millisecond of that.
        workload.clear()
        workload.ask("gap")
        with box.supervised(command) as container:
            gap = workload.answer(alive=runs(container))
        return {"to_frozen_ms": (int(gap["from"]) / 1e9 - told) * 1000, "to_gone_ms": (gone - told) * 1000}


def voluntary_switches(pid):
    tasks = (PROC / str(pid) / "task").iterdir()
    return sum(int(status(f"{pid}/task/{task.name}")["voluntary_ctxt_switches"]) for task in tasks)
