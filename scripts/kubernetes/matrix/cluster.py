"""The test cluster, through kubectl and the scripts beside."""

import json
import os
import pathlib
import subprocess
import time

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A scenario did not show what it must show."""


def kubectl(*arguments, stdin=None, check=True):
    """What kubectl prints; its complaint as an exception."""
    done = subprocess.run(
        [SCRIPTS / "kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    if check and done.returncode:
        raise Failed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout if check else done


def get(*arguments):
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def wait(what, condition, within=300):
    """The first true value of the condition."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {within} s: {what}")
        time.sleep(0.3)


def up(**thresholds):
    """Starts what does not run, with other thresholds of the kubelet if given."""
    subprocess.run([SCRIPTS / "up.sh"], env={**os.environ, **thresholds}, check=True)


def restart_kubelet(node, state, **thresholds):
    """Its pods run on meanwhile. Only this node's kubelet has the thresholds."""
    pid = int((state / "pids" / f"kubelet-{node}").read_text())
    os.kill(pid, 15)
    wait(f"the kubelet of {node} has ended", lambda: not alive(pid))
    up(**thresholds)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def condition(node, kind):
    """A condition of a node: True, False or Unknown."""
    return next(found["status"] for found in get("node", node)["status"]["conditions"] if found["type"] == kind)


def under_pressure(node):
    """Whether the scheduler keeps pods away from a node."""
    return any(taint["key"].startswith("node.kubernetes.io/") for taint in get("node", node)["spec"].get("taints", []))


def pods(selector):
    return get("pods", "-l", selector)["items"]


def terminated(pod):
    """How the pod's container has ended, newest last: (exit code, reason, message)."""
    ends = []
    for status in pod["status"].get("containerStatuses", []):
        for state in (status.get("lastState", {}), status.get("state", {})):
            end = state.get("terminated")
            if end:
                ends.append((end["exitCode"], end.get("reason", ""), end.get("message", "")))
    return ends
