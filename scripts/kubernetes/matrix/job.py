"""One job under revenant: its manifest as revenant writes it, its containers, and what they printed."""

import calendar
import json
import re
import subprocess
import threading
import time

import yaml

from cluster import Failed, SCRIPTS, get, kubectl, pods, wait

TICK = re.compile(r"tick (\d+) hash ([0-9a-f]{32})$")
RIGHTS = SCRIPTS.parent.parent / "deploy/rbac.yaml"
COUNTER = SCRIPTS.parent.parent / "tests/workloads/counter.py"


def seconds(moment):
    """Of a time like 2026-01-02T03:04:05.678901234Z."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


def for_2021(document):
    """What Kubernetes has renamed or added since 1.20; all else is taken as it is."""
    if document["kind"] == "PodDisruptionBudget":
        document["apiVersion"] = "policy/v1beta1"
    if document["kind"] == "CronJob":
        document["apiVersion"] = "batch/v1beta1"
        document["spec"]["jobTemplate"]["spec"].pop("podFailurePolicy")
    if document["kind"] == "Job":
        document["spec"].pop("podFailurePolicy")
    return document


class Run:
    """One container of the job, from its start to its end: its log, as the runtime writes it on the node.

    Not through `kubectl logs -f`, which ends or hangs with its kubelet; a file that is open outlives its pod.
    """

    def __init__(self, pod, number, status, state):
        self.pod, self.number = pod["metadata"]["name"], number
        folder = f"{pod['metadata']['namespace']}_{self.pod}_{pod['metadata']['uid']}"
        # /var/log/pods, as the node sees it.
        self.path = state / pod["spec"]["nodeName"] / "logs/pods" / folder / status["name"] / f"{status['restartCount']}.log"
        self.lines = []
        self.ticks = {}
        self.first = self.last = None
        self.over = threading.Event()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while not self.path.exists():
            if self.over.wait(0.1):
                return
        with self.path.open() as log:
            rest = ""
            while True:
                rest += log.read()
                *lines, rest = rest.split("\n")
                for line in lines:
                    self.take(line)
                if not lines and self.over.wait(0.1):
                    return

    def take(self, line):
        """TIME STREAM TAG TEXT: <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>."""
        moment, _, _, text = line.split(" ", 3)
        self.lines.append(text)
        match = TICK.search(text)
        if match:
            number = int(match[1])
            self.ticks[number] = (match[2], seconds(moment))
            self.first = self.first or number
            self.last = number

    def newest(self, words):
        """The newest generation after these words, as (container, number); none if they were not said."""
        found = [match for match in map(re.compile(words + r" (\d+)-(\d+)").search, self.lines) if match]
        return (int(found[-1][1]), int(found[-1][2])) if found else None

    def restored_in(self):
        """How many seconds the restore took, by revenant's own words."""
        found = [match for match in map(re.compile(r"continued from generation .*, in ([\d.]+) s").search, self.lines) if match]
        return float(found[-1][1]) if found else 0.0

    def said(self, words):
        """Whether revenant said this in the container."""
        return any(words in line for line in self.lines)


class Job:
    """A job of the survival matrix. `options` are of `revenant manifest`, `counter` those of its workload."""

    def __init__(self, revenant, name, state, kind="job", counter=(), command=None, change=None, every="5s", options=()):
        self.name, self.state, self.counter = name, state, ["--interval", "0.1", *counter]
        self.selector = f"app.kubernetes.io/instance={name}"
        self.change, self.uncounted = change, command is not None
        self.command = [
            revenant, "manifest", "--name", name, "--image", "localhost/counter:1", "--memory", "64MiB", "--cpus", "0.1",
            "--kind", kind, "--tier", "standard", "--every", every, *options, "--",
            *(command or ["python3", "/workloads/counter.py", *self.counter]),
        ]
        self.runs = {}
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def manifest(self):
        """As `revenant manifest` writes it, for a Kubernetes of 2021 without registry or volume provisioner."""
        text = subprocess.run(self.command, capture_output=True, text=True, check=True).stdout
        documents = [document for document in yaml.safe_load_all(text) if document]
        # Before their claims: a claim that finds none waits for the controller to look again.
        volumes = []
        for document in documents:
            for_2021(document)
            if document["kind"] == "PersistentVolumeClaim":
                document["spec"].update(volumeName=document["metadata"]["name"], storageClassName="")
                volumes.append(self.volume(document))
            if document["kind"] == "StatefulSet":
                for claim in document["spec"].get("volumeClaimTemplates", []):
                    name = f"{claim['metadata']['name']}-{self.name}-0"
                    claim["spec"].update(storageClassName="")
                    volumes.append(self.volume({**claim, "metadata": {"name": name}}))
            template = document["spec"].get("template") if document["kind"] in ("Job", "StatefulSet") else None
            if template:
                template["spec"]["dnsPolicy"] = "Default"
                for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                    container["imagePullPolicy"] = "Never"
            if self.change:
                self.change(document)
        return volumes + documents

    def may_watch_nodes(self):
        """The cluster role of deploy/rbac.yaml, for this job's account."""
        role = next(found for found in yaml.safe_load_all(RIGHTS.read_text()) if found["kind"] == "ClusterRole")
        kubectl("apply", "-f", "-", stdin=yaml.safe_dump(role))
        kubectl("create", "clusterrolebinding", f"{self.name}-{role['metadata']['name']}", f"--clusterrole={role['metadata']['name']}",
                f"--serviceaccount=default:{self.name}")

    def promoted(self):
        """That the Job for high-memory nodes has taken over."""
        rests, runs = (get("job", name)["spec"]["parallelism"] for name in (self.name, f"{self.name}-high-memory"))
        if (rests, runs) != (0, 1):
            raise Failed(f"not moved to high-memory nodes: parallelism {rests} and {runs}\n{self.report()}")

    def volume(self, claim):
        """A volume for the claim, on the machine's disk, reachable from both nodes as network storage is."""
        path = self.state / "volumes" / self.name
        path.mkdir(parents=True, exist_ok=True)
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": claim["metadata"]["name"]},
            "spec": {
                "capacity": claim["spec"]["resources"]["requests"],
                "accessModes": claim["spec"]["accessModes"],
                "hostPath": {"path": str(path)},
                "claimRef": {"namespace": "default", "name": claim["metadata"]["name"]},
            },
        }

    def __enter__(self):
        kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(self.manifest()))
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        kubectl("delete", "-f", "-", "--grace-period=1", "--wait=false", "--ignore-not-found",
                stdin=yaml.safe_dump_all(self.manifest()), check=False)
        kubectl("delete", "clusterrolebinding", f"{self.name}-revenant-node", "--ignore-not-found", check=False)
        for pod in pods(self.selector):
            kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0", check=False)
        for run in self.runs.values():
            run.over.set()

    def watch(self):
        """Follows the output of every container that the job has."""
        while not self.ended.wait(0.3):
            try:
                found = pods(self.selector)
            except Failed:
                continue
            for pod in found:
                for status in pod["status"].get("containerStatuses", []):
                    identity = status.get("containerID")
                    if status["name"] == "job" and identity and identity not in self.runs:
                        self.runs[identity] = Run(pod, len(self.runs) + 1, status, self.state)

    def containers(self):
        """The containers that have counted, in order."""
        return [run for run in list(self.runs.values()) if run.ticks]

    def pod(self):
        """The name of the pod that runs now."""
        def running():
            names = [pod["metadata"]["name"] for pod in pods(self.selector)
                     if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]
            return names[-1] if names else None
        return wait(f"a running pod of {self.name}", running)

    def counts(self, more=20, containers=1):
        """Waits until the newest container, at least the so manieth, has counted so many more; returns it."""
        def enough():
            runs = self.containers()
            return runs[-1] if len(runs) >= containers and runs[-1].last - runs[-1].first >= more else None
        try:
            return wait(f"container {containers} of {self.name} counts", enough)
        except Failed as failed:
            raise Failed(f"{failed}\n{self.report()}") from failed

    def outcome(self):
        """Checks every count; returns (work lost, time to running again) in seconds, over all changes of containers."""
        runs = self.containers()
        self.check(runs)
        lost, again = 0.0, 0.0
        for before, after in zip(runs, runs[1:]):
            if after.first > before.last + 1:
                raise Failed(f"tick {before.last + 1} was never printed\n{self.report()}")
            if after.first == 1 and before.last > 1:
                raise Failed(f"the job began anew\n{self.report()}")
            known = before.ticks.get(after.first - 1) or before.ticks[before.first]
            lost += before.ticks[before.last][1] - known[1]
            again = max(again, after.ticks[after.first][1] - before.ticks[before.last][1])
        return lost, again

    def check(self, runs):
        """Every count is the one of an undisturbed run. The last container counts on meanwhile."""
        counted = [(run, dict(run.ticks)) for run in runs]
        expected = self.reference(max(max(ticks) for _, ticks in counted))
        for run, ticks in counted:
            if any(digest != expected[number] for number, (digest, _) in ticks.items()):
                raise Failed(f"container {run.number} says a wrong hash\n{self.report()}")
            if list(ticks) != list(range(min(ticks), max(ticks) + 1)):
                raise Failed(f"container {run.number} skipped or repeated a tick\n{self.report()}")

    def reference(self, ticks):
        """What an undisturbed run prints."""
        if self.uncounted:
            return {number: "0" * 32 for number in range(1, ticks + 1)}
        done = subprocess.run(
            ["python3", COUNTER, *self.counter, "--interval", "0", "--ticks", str(ticks)], capture_output=True, text=True, check=True
        )
        return {int(match[1]): match[2] for match in map(TICK.search, done.stdout.splitlines()) if match}

    def said(self, words):
        """Whether revenant said this in any container."""
        return any(run.said(words) for run in list(self.runs.values()))

    def report(self):
        parts = []
        for run in self.runs.values():
            words = [line for line in run.lines if "tick " not in line]
            parts.append(f"-- container {run.number} of {run.pod}: ticks {run.first} to {run.last}\n" + "\n".join(words[-30:]))
        for pod in pods(self.selector):
            parts.append(f"-- pod {pod['metadata']['name']}: {json.dumps(pod['status'])[:1500]}")
        return "\n".join(parts)
