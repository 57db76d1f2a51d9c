"""Talks to the running workload (workload.rs) through files in a directory that both can see."""

import pathlib
import time


class Workload:
    """The processes of one workload. `dir` is the directory as this side sees it."""

    def __init__(self, directory, processes=1):
        self.dir, self.processes = pathlib.Path(directory), processes

    def clear(self):
        """Forgets what was asked and answered: before a start, and before a restore."""
        for name in ("command", "answer"):
            for file in self.dir.glob(f"{name}.*"):
                file.unlink(missing_ok=True)

    def ask(self, command, process=0):
        draft = self.dir / f"draft.{process}"
        draft.write_text(command)
        draft.rename(self.dir / f"command.{process}")

    def answer(self, process=0, timeout=900, alive=lambda: True):
        """Waits for the answer: its `key=value` lines."""
        file = self.dir / f"answer.{process}"
        deadline = time.monotonic() + timeout
        while not file.exists():
            if not alive():
                raise RuntimeError("the workload ended before it answered")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the workload did not answer within {timeout} s")
            time.sleep(0.001)
        text = file.read_text()
        file.unlink()
        return dict(line.split("=", 1) for line in text.splitlines())

    def do(self, command, process=0, **waiting):
        self.ask(command, process)
        return self.answer(process, **waiting)

    def ready(self, **waiting):
        """Waits until every process has its memory. Returns the first one's PID where it runs."""
        pids = [self.answer(process, **waiting)["pid"] for process in range(self.processes)]
        return int(pids[0])

    def dirty(self, percent, pattern, seed):
        """Overwrites pages of the first process; returns how many bytes."""
        return int(self.do(f"dirty {percent} {pattern} {seed}")["bytes"])

    def sums(self):
        """What is in the memory of each process."""
        return [self.do("sum", process)["sum"] for process in range(self.processes)]

    def gap(self):
        """The longest time that the first process did not run since this was last asked."""
        gap = self.do("gap")
        return {"seconds": int(gap["longest_ns"]) / 1e9, "from": int(gap["from"]) / 1e9, "until": int(gap["until"]) / 1e9}


def arguments(size, directory):
    """The command line of a workload of that size, `directory` being the path where it runs."""
    return ["run", "--mib", str(size.mib), "--processes", str(size.processes), "--dir", str(directory)]
