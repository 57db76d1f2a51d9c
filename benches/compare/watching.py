"""What it costs to watch: a `revenant run` that has nothing to do, with every trigger on and with none."""

import os
import re
import subprocess
import sys
import time

from box import Box, first_process, runs
from processes import PROC, children, status
from workload import Workload, arguments

SECONDS = 60

NONE = {
    "REVENANT_ON_PRESSURE": "false",
    "REVENANT_KUBERNETES": "false",
    "REVENANT_CLOUD": "none",
    "REVENANT_ANNOTATIONS": "none",
    "REVENANT_LOOK_AFTER": "0",
}
# A metadata server that has nothing to announce, as most of the time.
CLOUD = """
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        token = self.command == "PUT"
        body = b"secret" if token else b""
        self.send_response(200 if token else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_PUT = answer
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class Small:
    """The smallest workload."""

    mib, processes = 8, 1


def all_on(port):
    return {
        "REVENANT_EVERY": "6h",
        "REVENANT_CLOUD": "aws",
        "REVENANT_CLOUD_ENDPOINT": f"http://127.0.0.1:{port}",
        "REVENANT_TRIGGER_FILE": "/control/save",
        "REVENANT_ANNOTATIONS": "/control/annotations",
        "REVENANT_SPOOL": "/spool",
        "REVENANT_HTTP": "127.0.0.1:0",
        "REVENANT_LOOK_AFTER": "0",
    }


class Watching:
    def __init__(self, stage, binary, scratch):
        self.stage, self.binary, self.scratch = stage, binary, scratch

    def measure(self, note):
        with subprocess.Popen([sys.executable, "-c", CLOUD], stdout=subprocess.PIPE, text=True) as cloud:
            try:
                on = self._cost(all_on(cloud.stdout.readline().strip()))
            finally:
                cloud.terminate()
        off = self._cost(NONE)
        note("revenant", "watching nothing", off)
        note("revenant", "watching all", on | {"more_mib": on["pss_mib"] - off["pss_mib"]})

    def _cost(self, env):
        with Box(self.scratch, self.stage, self.binary) as box:
            workload = Workload(box.control)
            (box.control / "annotations").write_text('a="b"\n')
            with box.supervised(["/workload", *arguments(Small, "/control")], env=env) as container:
                pid1 = first_process(container)
                workload.ready(alive=runs(container))
                time.sleep(6)  # The first looks, and the beat of the claim's first third.
                ours = revenants(pid1)
                before, began = {pid: used(pid) for pid in ours}, time.monotonic()
                time.sleep(SECONDS)
                took = time.monotonic() - began
                after = {pid: used(pid) for pid in ours}
                time_used = sum(after[pid][0] - before[pid][0] for pid in ours)
                wakeups = sum(after[pid][1] - before[pid][1] for pid in ours)
                return {
                    "cpu_percent": 100 * time_used / 1e9 / took,
                    "wakeups_per_s": wakeups / took,
                    "processes": len(ours),
                    "rss_mib": int(status(pid1)["VmRSS"].split()[0]) / 1024,
                    "pss_mib": sum(proportional(pid) for pid in ours) / 1024,
                }


def revenants(pid1):
    """PID 1 and what it runs beside the workload."""
    own = os.readlink(PROC / str(pid1) / "exe")
    return [pid1, *(pid for pid in children(pid1) if os.readlink(PROC / str(pid) / "exe") == own)]


def used(pid):
    """Nanoseconds on a processor (schedstat), and how often it went to sleep by itself."""
    tasks = list((PROC / str(pid) / "task").iterdir())
    time_used = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    return time_used, sum(int(status(f"{pid}/task/{task.name}")["voluntary_ctxt_switches"]) for task in tasks)


def proportional(pid):
    return int(re.search(r"^Pss: +(\d+)", (PROC / str(pid) / "smaps_rollup").read_text(), re.MULTILINE)[1])
