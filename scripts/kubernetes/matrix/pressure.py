"""Causes by a node that has too little: the kubelet evicts, softly and hard, and a container exceeds its limit."""

import pathlib

from causes import cause, node_of, nothing_lost, since_the_last_save, template
from cluster import Failed, condition, get, kubectl, pods, restart_kubelet, terminated, under_pressure, wait


def threshold():
    """So much that the node is always short of it: all memory but what Kubernetes itself is sure to use."""
    total = next(int(line.split()[1]) for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return f"{total // 1024 - 600}Mi"


def calm(node, state):
    """The node as it was, for whoever comes next."""
    restart_kubelet(node, state)
    wait(f"{node} takes pods again", lambda: condition(node, "MemoryPressure") == "False" and not under_pressure(node))


def evicted(job):
    """The kubelet's words about the pod that it has evicted."""
    return next((pod["status"].get("message", "") for pod in pods(job.selector) if pod["status"].get("reason") == "Evicted"), None)


def evicted_for_memory(job, node, pressure):
    """Puts the node under this pressure until the pod is evicted and continues; that it was for want of memory, and has moved."""
    try:
        pressure()
        said = wait("the pod is evicted", lambda: evicted(job))
        job.counts(containers=2)
    finally:
        calm(node, job.state)
    if "resource: memory" not in said:
        raise Failed(f"evicted for another reason: {said}")
    job.promoted()


@cause("node pressure, soft", "the kubelet's soft threshold: SIGTERM, 20 s", "continues on a high-memory node, nothing lost")
def soft_eviction(new):
    with new("soft") as job:
        job.counts()
        node = node_of(job.pod())
        evicted_for_memory(job, node, lambda: restart_kubelet(node, job.state, EVICT_SOFT=threshold(), EVICT_SOFT_AFTER="5s"))
        return nothing_lost(job)


@cause("node pressure, hard", "soft threshold long before (the node says MemoryPressure), then the hard one: SIGKILL, no notice",
       "saved at the first, then at most the time since is lost; continues on a high-memory node")
def hard_eviction(new):
    # No save by the schedule: the one of the pressure is what counts.
    with new("hard", every="1h") as job:
        job.may_watch_nodes()
        job.counts()
        node = node_of(job.pod())

        def pressure():
            restart_kubelet(node, job.state, EVICT_SOFT=threshold(), EVICT_SOFT_AFTER="30m")
            wait("the node says MemoryPressure", lambda: condition(node, "MemoryPressure") == "True")
            wait("the pressure is a reason to save", lambda: (job.said("MemoryPressure") or job.said("memory-pressure")) and job.said("saved generation"))
            job.counts(more=job.containers()[-1].last + 10)
            restart_kubelet(node, job.state, EVICT_HARD=threshold())

        evicted_for_memory(job, node, pressure)
        if job.containers()[0].said("SIGTERM"):
            raise Failed(f"there was a notice\n{job.report()}")
        # What is lost is what was counted while the kubelet was restarted.
        return since_the_last_save(job)


@cause("memory limit exceeded, tier standard", "the command takes more than a limit of 256 MiB on an ordinary node",
       "continues from the last save on a high-memory node; the message says what limit would do")
def out_of_memory(new):
    def change(document):
        # As a LimitRange of the namespace would; the Job for high-memory nodes has none.
        if template(document) and document["metadata"]["name"] == "too-small":
            template(document)["containers"][0]["resources"]["limits"] = {"memory": "256Mi"}
    with new("too-small", change=change, counter=["--grow-at", "150", "--grow", "400"]) as job:
        job.counts(more=100)
        if node_of(job.pod()) != "node1":
            raise Failed("it did not begin on the ordinary node")
        job.counts(more=100, containers=2)
        ends = [end for pod in pods(job.selector) for end in terminated(pod)]
        if not any(reason == "OOMKilled" for _, reason, _ in ends):
            raise Failed(f"no container was killed for want of memory: {ends}")
        if not any("raise the limit to" in message for _, _, message in ends):
            raise Failed(f"no message says what limit would do: {ends}")
        job.promoted()
        if node_of(job.pod()) != "node2":
            raise Failed("it does not run on the high-memory node")
        return since_the_last_save(job)


@cause("ephemeral storage: limit exceeded", "an emptyDir is filled over the container's limit: SIGKILL, no notice", "at most the time since the last save is lost")
def ephemeral_storage(new):
    def change(document):
        spec = template(document)
        if spec:
            spec.setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})
            container = spec["containers"][0]
            container["volumeMounts"].append({"name": "scratch", "mountPath": "/scratch"})
            container["resources"]["limits"] = {"ephemeral-storage": "64Mi"}
            # A job's scratch files travel with it, so what has filled the disk would fill the next one.
            container["env"].append({"name": "REVENANT_IGNORE", "value": "/scratch"})
    with new("disk-full", change=change) as job:
        job.counts(more=120)
        kubectl("exec", job.pod(), "-c", "job", "--", "dd", "if=/dev/zero", "of=/scratch/full", "bs=1M", "count=200")
        job.counts(containers=2)
        if get("job", f"{job.name}-high-memory")["spec"]["parallelism"] != 0:
            raise Failed("a full disk is no reason to move to a high-memory node")
        return since_the_last_save(job)
