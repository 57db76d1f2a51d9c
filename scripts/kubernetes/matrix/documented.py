"""The commands that the documentation shows for a cluster, typed as they stand there."""

import os
import re
import subprocess
import tempfile

import yaml

from causes import cause, nothing_lost
from cluster import Failed, SCRIPTS

DOCS = SCRIPTS.parent.parent / "docs"
NAME = "gut-12"


def shown(page):
    """Lines of code blocks that begin with kubectl, without the comment behind."""
    return [line.strip().split("  #")[0] for line in (DOCS / page).read_text().splitlines() if re.match(r"\s*kubectl ", line)]


def typed(line, folder):
    # A log that is followed ends with its pod; the reader ends it, and so does the time limit.
    words = f"timeout 20 {line}" if " logs -f " in line else line
    path = f"{SCRIPTS}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", words], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in ((0, 124) if " logs -f " in line else (0,)):
        raise Failed(f"{line}: ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@cause("the commands of docs/start.md, as they stand there", "kubectl apply, exec … doctor, exec … status, delete pod, logs", "each does what the page says; continues, nothing lost")
def commands(new):
    apply, doctor, status, delete, logs = shown("start.md")
    with tempfile.TemporaryDirectory() as folder, new(NAME) as job:
        with open(f"{folder}/{NAME}.yaml", "w") as file:
            yaml.safe_dump_all(job.manifest(), file)
        typed(apply, folder)
        job.counts()
        if "can be checkpointed here" not in typed(doctor, folder) or "running" not in typed(status, folder):
            raise Failed("doctor or status does not say what the page says")
        typed(delete, folder)
        job.counts(containers=2)
        if "continued from generation" not in typed(logs, folder):
            raise Failed("the log does not say that it continued")
        return nothing_lost(job)


@cause("by hand: to a high-memory node", "kubectl patch, as docs/kubernetes-survival.md says", "continues there, nothing lost")
def moved_by_hand(new):
    with new(NAME) as job:
        job.counts()
        for line in shown("kubernetes-survival.md"):
            typed(line, "/")
        job.counts(containers=2)
        job.promoted()
        return nothing_lost(job)
