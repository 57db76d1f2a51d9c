"""`make bench`: revenant beside CRIU and podman, in one run, as one table.

Every repetition measures every program once, one after another, so that what disturbs the machine
disturbs all of them; the table shows medians and the targets are ratios of them. Results go to
`results.json` as they come in, so that an interrupted run keeps what it has.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import sys
import tempfile

import report
from assembler import Assembler
from criu import Criu
from idle import Idle
from lazy import Lazy
from podman import Podman
from processes import Failed
from revenant import Revenant
from watching import Watching


@dataclasses.dataclass(frozen=True)
class Size:
    """How much memory, in how many processes that share it copy-on-write."""

    mib: int
    processes: int = 1

    def __str__(self):
        amount = f"{self.mib // 1024} GiB" if self.mib % 1024 == 0 else f"{self.mib} MiB"
        return amount if self.processes == 1 else f"{amount} × {self.processes}"

    def needs_mib(self):
        """The workload, and CRIU's images of it in tmpfs."""
        return self.mib * (1 + self.processes) + 1024


class Results:
    """All measurements of a run, always on disk."""

    def __init__(self, file, machine):
        self.file, self.measurements, self.problems, self.machine = file, [], [], machine
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def noter(self, size, repetition):
        def note(program, what, values):
            values = {key: value for key, value in values.items() if isinstance(value, (int, float))}
            self.measurements.append({"size": str(size), "program": program, "what": what, "repetition": repetition, "values": values})
            said = ", ".join(f"{key} {value:.3f}" for key, value in values.items() if key.endswith("_s"))
            print(f"  {size}, {repetition}: {program} {what}: {said}", file=sys.stderr, flush=True)
            self.save([])

        return note

    @contextlib.contextmanager
    def reporting(self, size, program):
        """What fails is reported beside the results, and the others are measured all the same."""
        try:
            yield
        except (Failed, OSError, RuntimeError) as error:
            self.problem(size, program, error)

    def problem(self, size, program, error):
        self.problems.append({"size": str(size), "program": program, "error": str(error)})
        print(f"  {size}: {program} FAILED: {error}", file=sys.stderr, flush=True)

    def save(self, targets):
        rows = report.medians(self.measurements)
        text = {"machine": self.machine, "rows": rows, "targets": targets, "problems": self.problems, "measurements": self.measurements}
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps(text, indent=1) + "\n")
        draft.rename(self.file)


def machine():
    """What the numbers depend on."""
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    models = [line.partition(":")[2].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "kernel": platform.release().split("-")[0],
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(int(memory) / 2**20),
    }


def available_mib():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) // 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", type=pathlib.Path, required=True, help="the compiled workload.rs")
    parser.add_argument("--stage", type=pathlib.Path, required=True, help="the staged /opt/revenant, with criu/")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory for results.json and what is temporary on disk")
    parser.add_argument("--tmpfs", type=pathlib.Path, default="/dev/shm", help="a file system in memory (default: /dev/shm)")
    parser.add_argument("--gib", default="1 4", help='sizes of the workload (default: "1 4")')
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which medians are taken (default: 3)")
    parser.add_argument("--quick", action="store_true", help="256 MiB, once: does it work at all")
    parser.add_argument("--only", default="criu podman revenant lazy assembler idle watching", help="what is measured")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the benchmark runs real containers and needs root: sudo make bench")

    sizes = [Size(256)] if options.quick else [Size(int(float(gib) * 1024)) for gib in options.gib.split()]
    sizes.append(Size(min(sizes[0].mib, 1024), 4))
    repeat = 1 if options.quick else options.repeat
    only = options.only.split()
    options.out.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="scratch-", dir=options.out)).resolve()
    memory = pathlib.Path(tempfile.mkdtemp(prefix="revenant-bench-", dir=options.tmpfs))
    results = Results(options.out / "results.json", machine())
    binary = options.workload.resolve()
    podman = Podman(options.stage / "criu", binary, scratch)
    programs = {
        "criu": Criu(options.stage / "criu", binary, scratch, memory),
        "podman": podman,
        "revenant": Revenant(options.stage, binary, scratch),
        "lazy": Lazy(options.stage.resolve(), binary, scratch, memory),
    }
    # A benchmark that is told to stop cleans up like one that has ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    try:
        for size in sizes:
            if size.needs_mib() > available_mib():
                results.problem(size, "benchmark", f"skipped: needs {size.needs_mib()} MiB of memory, {available_mib()} MiB are available")
                continue
            for repetition in range(1, repeat + 1):
                for name, program in programs.items():
                    if name in only:
                        with results.reporting(size, name):
                            program.measure(size, results.noter(size, repetition))
        if "assembler" in only and not options.quick:
            with results.reporting(report.ASSEMBLY, "assembler"):
                Assembler(options.stage, scratch).measure(results.noter(report.ASSEMBLY, 1))
        if "idle" in only:
            with results.reporting("small", "revenant"):
                Idle(options.stage, binary, scratch).measure(results.noter("small", 1))
        if "watching" in only:
            with results.reporting("small", "revenant"):
                Watching(options.stage, binary, scratch).measure(results.noter("small", 1))
    finally:
        podman.close()
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(memory, ignore_errors=True)
    conclude(results, sizes, options.out)


def conclude(results, sizes, out):
    rows = report.medians(results.measurements)
    checked = report.verdicts(rows, [str(size) for size in sizes])
    results.save(checked)
    known = results.machine
    print(f"\n{known['cpu']}, {known['cores']} cores, {known['memory_gib']} GiB, Linux {known['kernel']}. Medians of n repetitions.")
    for size in dict.fromkeys(row["size"] for row in rows):
        print(f"\n{size}\n{report.small_table(rows) if size == 'small' else report.table(rows, size)}")
    if checked:
        print(f"\nTargets\n{report.targets_table(checked)}")
    for problem in results.problems:
        print(f"\nnot measured: {problem['program']} at {problem['size']}: {problem['error']}")
    print(f"\nall numbers: {out / 'results.json'}")


if __name__ == "__main__":
    main()
