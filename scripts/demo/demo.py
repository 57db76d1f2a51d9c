"""The demonstration: a metagenome assembly that outlives five containers.

Assembles simulated reads with MEGAHIT twice: once undisturbed, once under revenant in a container
that is told to stop (SIGTERM) five times, at different phases, and continues in a new container
each time. Then compares the contigs.
"""

import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from container import Container
from seaweed import SeaweedS3

HERE = pathlib.Path(__file__).parent
ASSEMBLE = "megahit -1 /reads/reads_1.fq -2 /reads/reads_2.fq -t 2 -o /work/assembly".split()
SAVED_AND_STOPPED = 200
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def contigs(fasta):
    """The set of contigs, each by its smaller strand: order and strand vary from run to run."""
    sequences, current = [], []
    for line in fasta.read_text().splitlines() + [">"]:
        if line.startswith(">"):
            if current:
                forward = "".join(current)
                sequences.append(min(forward, forward.translate(COMPLEMENT)[::-1]))
            current = []
        else:
            current.append(line)
    return collections.Counter(sequences)


STEPS = {
    "read2sdbg": "building the first graph",
    "buildlib": "reading the reads",
    "count": "counting k-mers",
    "seq2sdbg": "building the graph",
    "assemble": "assembling contigs",
    "local": "extending contigs locally",
    "iterate": "extracting longer k-mers",
}


def phase(lines):
    """What MEGAHIT is doing, by its own log."""
    for line in reversed(lines):
        if match := re.search(r"command \S*megahit_core\S* (\w+) (.*)", line):
            k = re.findall(r"/k?(\d+)\b", match[2])
            return STEPS.get(match[1], match[1]) + (f", k = {k[-1]}" if k else "")
    return "starting"


class Timeline:
    """Prints what happened, when, in a newcomer's words."""

    def __init__(self):
        self.start = time.monotonic()

    def now(self):
        return time.monotonic() - self.start

    def say(self, text):
        minutes, seconds = divmod(self.now(), 60)
        print(f"  {int(minutes):2}:{seconds:04.1f}  {text}", flush=True)


def assemble_undisturbed(options, reads, scratch, work):
    mounts = [(reads, "/reads", "ro"), (work, "/work", "rw")]
    with Container("revenant-demo-plain", options.rootfs, scratch, ASSEMBLE, mounts=mounts) as container:
        code = container.wait(options.timeout)
    if code != 0:
        sys.exit(f"the undisturbed assembly failed with code {code}:\n" + "\n".join(container.lines[-20:]))


def milestones(log, count):
    """How many lines MEGAHIT's log has at evenly spaced moments of the undisturbed run: the same lines
    come at the same phase in the preempted run, however fast the machine is just then."""
    times = [time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) for line in log]
    moments = [times[0] + (times[-1] - times[0]) * (n + 1) / (count + 1) for n in range(count)]
    return [next(i for i, at in enumerate(times) if at >= moment) for moment in moments]


def assemble_preempted(options, reads, scratch, work, store, stops, timeline):
    """Runs the assembly under revenant and stops it at each of `stops`. Returns how often it was."""
    stopped = 0
    while True:
        number = stopped + 1
        env = {"REVENANT_STORE": store["url"], "REVENANT_JOB": "demo", "REVENANT_GRACE": "120", **store["env"]}
        mounts = [(options.bundle, "/opt/revenant", "ro"), (reads, "/reads", "ro"), (work, "/work", "rw"), *store["mounts"]]
        args = ["/opt/revenant/bin/revenant", "run", "--", *ASSEMBLE]
        running = threading.Event()

        def watch(line):
            if line.startswith("revenant: "):
                timeline.say(f"   | {line.removeprefix('revenant: ')}")
                if re.search(r"(started|continued)", line):
                    running.set()

        timeline.say(f"container {number} begins")
        with Container(f"revenant-demo-{number}", options.rootfs, scratch, args, env, mounts, watch) as container:
            deadline = time.monotonic() + 120
            while not running.wait(0.1) and container.process.poll() is None and time.monotonic() < deadline:
                pass
            if stopped < len(stops):
                end = time.monotonic() + options.timeout
                while len(log_of(work)) <= stops[stopped] and container.process.poll() is None and time.monotonic() < end:
                    time.sleep(0.05)
                if container.process.poll() is None:
                    timeline.say(f"container {number} is told to stop (SIGTERM). MEGAHIT is {phase(log_of(work))}")
                    container.signal("TERM")
            code = container.wait(options.timeout)
        timeline.say(f"container {number} is gone, exit code {code}")
        if code == 0:
            return stopped
        if code != SAVED_AND_STOPPED:
            sys.exit(f"container {number} ended with code {code}:\n" + "\n".join(container.lines[-30:]))
        stopped += 1


def log_of(work):
    log = work / "assembly" / "log"
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["local", "s3"], default="local", help="where checkpoints go (default: local)")
    parser.add_argument("--preemptions", type=int, default=5)
    parser.add_argument("--megabases", type=float, default=3.0, help="size of the simulated community")
    parser.add_argument("--rootfs", type=pathlib.Path, required=True, help="root file system with MEGAHIT")
    parser.add_argument("--bundle", type=pathlib.Path, required=True, help="the staged /opt/revenant")
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="where simulated reads are kept between runs")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds that one container may take")
    options = parser.parse_args()
    # Mounts and overlays want absolute paths.
    options.rootfs, options.bundle, options.cache = (p.resolve() for p in (options.rootfs, options.bundle, options.cache))
    if os.geteuid() != 0:
        sys.exit("the demonstration runs real containers and needs root: sudo make demo")

    print("\nrevenant: an assembly that outlives its containers\n")
    reads = options.cache / f"community-{options.megabases:g}"
    if not (reads / "complete").exists():
        print("simulating a metagenome …", flush=True)
        subprocess.run([sys.executable, HERE / "community.py", reads, "--megabases", str(options.megabases)], check=True)
        (reads / "complete").touch()

    scratch = pathlib.Path(tempfile.mkdtemp(prefix="revenant-demo-"))
    try:
        plain, preempted = scratch / "plain", scratch / "preempted"
        plain.mkdir()
        preempted.mkdir()

        print("1. The assembly, undisturbed, for comparison …", flush=True)
        start = time.monotonic()
        assemble_undisturbed(options, reads, scratch, plain)
        duration = time.monotonic() - start
        expected = contigs(plain / "assembly" / "final.contigs.fa")
        print(f"   took {duration:.0f} s: {sum(expected.values())} contigs, {sum(map(len, expected.elements())):,} bases\n")

        print(f"2. The same under revenant, stopped {options.preemptions} times. Lines after | are revenant's own.", flush=True)
        timeline = Timeline()
        with SeaweedS3(scratch / "seaweed") if options.store == "s3" else LocalStore(scratch / "checkpoints") as store:
            stops = milestones(log_of(plain), options.preemptions)
            stopped = assemble_preempted(options, reads, scratch, preempted, store.access(), stops, timeline)
        found = contigs(preempted / "assembly" / "final.contigs.fa")
        print(f"   took {timeline.now():.0f} s in {stopped + 1} containers: {sum(found.values())} contigs, "
              f"{sum(map(len, found.elements())):,} bases\n")  # fmt: skip

        if found == expected and stopped == options.preemptions:
            print(f"VERDICT: the same {sum(found.values())} contigs. {stopped} containers died, no work was lost.")
            return 0
        print(f"VERDICT: FAILED. {sum((found - expected).values())} contigs only in the preempted assembly, "
              f"{sum((expected - found).values())} only in the undisturbed one; {stopped} of {options.preemptions} preemptions.")  # fmt: skip
        return 1
    finally:
        shutil.rmtree(scratch)


class LocalStore:
    """A directory of this machine as store, mounted into each container as a volume would be."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        self.directory.mkdir()
        return self

    def __exit__(self, *_):
        pass

    def access(self):
        return {"url": "file:///checkpoints", "env": {}, "mounts": [(self.directory, "/checkpoints", "rw")]}


if __name__ == "__main__":
    sys.exit(main())
