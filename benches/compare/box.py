"""The container that revenant's rows are measured in: runc, an almost empty root, and what is needed mounted."""

import itertools
import pathlib
import shutil
import statistics
import sys
import time

from processes import Failed, children, program, status

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "scripts" / "demo"))
from container import Container  # noqa: E402

NUMBERS = itertools.count(1)
REVENANT = "/opt/revenant/bin/revenant"


class Box:
    """Directories that several containers share: the root below, the store, and the workload's control files."""

    def __init__(self, scratch, stage, binary):
        self.dir, self.stage = pathlib.Path(scratch) / f"box-{next(NUMBERS)}", pathlib.Path(stage).resolve()
        self.root, self.store, self.control = (self.dir / part for part in ("root", "store", "control"))
        for directory in ("proc", "sys", "dev", "run", "tmp", "etc", "work", "opt/revenant", "store", "spool", "control"):
            (self.root / directory).mkdir(parents=True)
        self.spool = self.dir / "spool"
        for directory in (self.store, self.control, self.spool):
            directory.mkdir()
        (self.root / "workload").hardlink_to(binary) if same_disk(binary, self.root) else shutil.copy(binary, self.root / "workload")

    def container(self, arguments, job="bench", env=None):
        mounts = [(self.stage, "/opt/revenant", "ro"), (self.store, "/store", "rw"), (self.control, "/control", "rw"), (self.spool, "/spool", "rw")]
        env = {"REVENANT_STORE": "file:///store", "REVENANT_JOB": job, "REVENANT_GRACE": "3600", **(env or {})}
        return Container(f"revenant-bench-{time.time_ns()}", self.root, self.dir, arguments, env, mounts)

    def supervised(self, inside, **more):
        return self.container([REVENANT, "run", "--", *inside], **more)

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

    def start_seconds(self, arguments, repetitions, supervised):
        """For each repetition: from asking runc for a container until the command in it runs, and until the container is gone."""
        for number in range(repetitions):
            build = self.supervised if supervised else self.container
            job = {"job": f"start-{time.time_ns()}-{number}"}
            container = build(arguments, **job)
            began = time.time()
            with container:
                code = container.wait(120)
            ended = time.time()
            stamp = next((line for line in reversed(container.lines) if line.isdigit()), None)
            if code != 0 or stamp is None:
                raise Failed(f"a trivial command ended with {code}: {container.lines[-8:]}")
            yield int(stamp) / 1e9 - began, ended - began

    def plain_start(self):
        """What a container alone costs, before revenant does anything."""
        return statistics.median(running for running, _ in self.start_seconds(["/workload", "stamp"], 3, supervised=False))


def runs(container):
    """Asked while somebody waits for the workload: fails, with revenant's last words, once the container has ended."""

    def check():
        if container.process.poll() is not None:
            container.reader.join(timeout=5)
            raise Failed(f"the container ended with {container.process.returncode}: " + "\n".join(container.lines[-12:]))
        return True

    return check


def same_disk(one, other):
    return pathlib.Path(one).stat().st_dev == pathlib.Path(other).stat().st_dev


def first_process(container, name="revenant", timeout=30):
    """The PID on this side of the container's PID 1, once it is the program of that name."""
    deadline, alive = time.monotonic() + timeout, runs(container)
    while time.monotonic() < deadline:
        alive()
        for pid in children(container.process.pid):
            try:
                if program(pid) == name and status(pid)["NSpid"].split()[-1] == "1":
                    return pid
            except (OSError, KeyError):
                continue
        time.sleep(0.002)
    raise Failed(f"no {name} in the container after {timeout} s")
