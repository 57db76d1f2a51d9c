"""Every way a pod dies, done to a real pod: each function does it, and returns what the job has lost."""

import json
import os
import pathlib
import subprocess
import time

from cluster import Failed, SCRIPTS, alive, condition, get, kubectl, terminated, under_pressure, up, wait

CAUSES = []


def cause(name, how, must):
    def keep(function):
        CAUSES.append((name, how, must, function))
        return function
    return keep


def nothing_lost(job):
    lost, again = job.outcome()
    if lost > 0:
        raise Failed(f"{lost:.1f} s of work are lost\n{job.report()}")
    return lost, again


def since_the_last_save(job):
    """What was counted since the newest save is lost, and nothing before it."""
    lost, again = job.outcome()
    runs = job.containers()
    for before, after in zip(runs, runs[1:]):
        saved, continued = before.newest("saved generation"), after.newest("continued from generation")
        # One may have become durable without anybody left to say so.
        if not saved or not continued or continued < saved:
            raise Failed(f"saved last was {saved}, it continued from {continued}\n{job.report()}")
    return lost, again


@cause("a person: delete the pod of a Job", "kubectl delete pod", "continues, nothing lost")
def delete_job(new):
    with new("delete-job") as job:
        job.counts()
        kubectl("delete", "pod", job.pod(), "--wait=false")
        job.counts(containers=2)
        return nothing_lost(job)


@cause("a person: delete the pod of a StatefulSet, three times", "kubectl delete pod", "continues, nothing lost")
def delete_statefulset(new):
    with new("delete-set", kind="statefulset") as job:
        for containers in (1, 2, 3):
            job.counts(containers=containers)
            kubectl("delete", "pod", job.pod(), "--wait=false")
        job.counts(containers=4)
        return nothing_lost(job)


def evict(pod):
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}}
    return kubectl("create", "--raw", f"/api/v1/namespaces/default/pods/{pod}/eviction", "-f", "-", stdin=json.dumps(eviction), check=False)


@cause("API-initiated eviction", "Eviction API, with the PodDisruptionBudget and without", "the budget protects; then continues, nothing lost")
def eviction(new):
    with new("evicted") as job:
        job.counts()
        refused = evict(job.pod())
        if refused.returncode == 0 or "disruption budget" not in refused.stderr:
            raise Failed(f"the budget did not protect: {refused.stdout}{refused.stderr}")
        job.counts(more=job.containers()[-1].last + 10)
        kubectl("delete", "poddisruptionbudget", job.name)
        accepted = evict(job.pod())
        if accepted.returncode:
            raise Failed(f"not evicted: {accepted.stderr}")
        job.counts(containers=2)
        return nothing_lost(job)


def node_of(pod):
    return get("pod", pod)["spec"]["nodeName"]


@cause("API-initiated eviction: drain", "kubectl drain, without the PodDisruptionBudget", "continues on another node, nothing lost")
def drain(new):
    with new("drained") as job:
        job.counts()
        kubectl("delete", "poddisruptionbudget", job.name)
        node = node_of(job.pod())
        try:
            kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s")
            job.counts(containers=2)
            if node_of(job.pod()) == node:
                raise Failed("it came back to the drained node")
        finally:
            kubectl("uncordon", node)
        return nothing_lost(job)


@cause("preemption", "a pod of higher priority that does not fit beside it", "continues when there is room again, nothing lost")
def preemption(new):
    big = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "more-important"},
        "spec": {
            "priorityClassName": "most-important", "terminationGracePeriodSeconds": 1, "dnsPolicy": "Default",
            "containers": [{"name": "c", "image": "localhost/pause:1", "imagePullPolicy": "Never",
                            "resources": {"requests": {"cpu": "1900m"}}}],
        },
    }
    highest = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "most-important"}, "value": 2000000}
    with new("preempted") as job:
        job.counts()
        node = node_of(job.pod())
        other = "node1" if node == "node2" else "node2"
        kubectl("cordon", other)
        try:
            kubectl("apply", "-f", "-", stdin=json.dumps(highest))
            kubectl("apply", "-f", "-", stdin=json.dumps(big))
            wait("the important pod runs", lambda: get("pod", "more-important")["status"]["phase"] == "Running")
            time.sleep(3)
            kubectl("delete", "pod", "more-important")
            job.counts(containers=2)
        finally:
            kubectl("uncordon", other)
            kubectl("delete", "pod", "more-important", "--ignore-not-found", "--force", "--grace-period=0", check=False)
        return nothing_lost(job)


def template(document):
    return document["spec"]["template"]["spec"] if document["kind"] in ("Job", "StatefulSet") else None


def scratch(document, **container):
    """An emptyDir at /scratch, which no checkpoint holds, and more fields of the container."""
    spec = template(document)
    if spec:
        spec.setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})
        spec["containers"][0].setdefault("volumeMounts", []).append({"name": "scratch", "mountPath": "/scratch"})
        for field, value in container.items():
            spec["containers"][0].setdefault(field, {}).update(value)


@cause("liveness probe fails", "an exec probe of the user; restartPolicy OnFailure", "restarted in its pod from the checkpoint, nothing lost")
def liveness(new):
    def change(document):
        scratch(document)
        spec = template(document)
        if spec:
            spec["restartPolicy"] = "OnFailure"
            spec["containers"][0]["livenessProbe"] = {
                "exec": {"command": ["test", "!", "-e", "/scratch/sick"]}, "periodSeconds": 2, "failureThreshold": 1,
            }
    with new("sick", change=change) as job:
        job.counts()
        pod = job.pod()
        kubectl("exec", pod, "-c", "job", "--", "touch", "/scratch/sick")
        wait("the container was ended", lambda: terminated(get("pod", pod)))
        wait("it runs again", lambda: kubectl("exec", pod, "-c", "job", "--", "rm", "-f", "/scratch/sick", check=False).returncode == 0)
        job.counts(containers=2)
        if job.pod() != pod:
            raise Failed("another pod continued it")
        return nothing_lost(job)


# Of the liveness probe: so many failures, so many seconds apart, and the kubelet kills.
FAILURES, PERIOD = 2, 1


@cause("restore takes longer than the probes' patience", f"liveness probe with {FAILURES * PERIOD} s of patience, a quarter of a core for the restore", "the restore takes longer than that; it is not killed, nothing lost")
def patience(new):
    def change(document):
        spec = template(document)
        if spec:
            spec["containers"][0]["livenessProbe"].update(periodSeconds=PERIOD, failureThreshold=FAILURES, timeoutSeconds=1)
            spec["containers"][0]["startupProbe"].update(periodSeconds=1, failureThreshold=600)
            # So that the restore takes its time: much to bring back, and little to do it with.
            spec["containers"][0]["resources"]["limits"] = {"cpu": "250m"}
            spec["terminationGracePeriodSeconds"] = 120
    with new("patient", change=change, counter=["--mib", "100", "--grow-at", "1", "--grow", "1500"], every="1h") as job:
        job.counts(more=3)
        kubectl("delete", "pod", job.pod(), "--wait=false")
        again = job.counts(more=3, containers=2)
        if len(job.runs) != 2:
            raise Failed(f"it was restarted in between\n{job.report()}")
        # One more probe may just be on its way.
        took = again.restored_in()
        if took <= (FAILURES + 1) * PERIOD:
            raise Failed(f"the restore took {took} s, which no probe would have minded: this has shown nothing\n{job.report()}")
        return nothing_lost(job)


def processes_of(node, state):
    """The kubelet, containerd, its shims and all that runs in containers of a node."""
    pids = [int((state / "pids" / f"{name}-{node}").read_text()) for name in ("kubelet", "containerd")]
    contained = []
    for line in subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines():
        pid, _, arguments = line.strip().partition(" ")
        if "containerd-shim" in arguments and f"/run/{node}/containerd.sock" in arguments:
            pids.append(int(pid))
    for cgroup in pathlib.Path("/sys/fs/cgroup").glob(f"**/revenant-{node}/**/cgroup.procs"):
        contained += [int(pid) for pid in cgroup.read_text().split()]
    return pids, sorted(set(contained))


def signal(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def gone(node):
    """The controller has seen that the node is gone: only then is a pod given up, by hand or by the taint out-of-service."""
    wait(f"{node} is seen to be gone", lambda: condition(node, "Ready") != "True" and under_pressure(node))


def hardware_failure(job):
    job.counts(more=120)
    pod = job.pod()
    node = node_of(pod)
    daemons, contained = processes_of(node, job.state)
    signal(daemons + contained, 9)
    try:
        gone(node)
        kubectl("delete", "pod", pod, "--force", "--grace-period=0")
        job.counts(containers=2)
        if node_of(job.pod()) == node:
            raise Failed("it continues on the node that is gone")
    finally:
        up()
        wait(f"{node} takes pods again", lambda: not under_pressure(node))
    return since_the_last_save(job)


@cause("hardware failure", "kubelet, containerd and all containers of the node killed at once; the pod is force-deleted, as out-of-service does", "continues on another node from the last durable save")
def hardware(new):
    with new("lost-node") as job:
        return hardware_failure(job)


@cause("network partition: the old pod comes back", "the node is frozen, the pod is force-deleted, a new one continues, then the old one thaws", "the old one is fenced: it commits nothing; the new one goes on")
def fenced(new):
    with new("partitioned") as job:
        old = job.counts(more=120)
        pod = job.pod()
        node = node_of(pod)
        daemons, contained = processes_of(node, job.state)
        signal(daemons, 19)
        signal(contained, 19)
        try:
            gone(node)
            kubectl("delete", "pod", pod, "--force", "--grace-period=0")
            job.counts(containers=2)
        finally:
            signal(contained, 18)
            signal(daemons, 18)
            wait(f"{node} takes pods again", lambda: not under_pressure(node))
        wait("the old one has ended", lambda: not any(alive(pid) for pid in contained))
        second = job.containers()[-1]
        job.counts(more=second.last - second.first + 30, containers=2)
        # Had the old one committed anything, the third would continue from there.
        kubectl("delete", "pod", job.pod(), "--wait=false")
        third = job.counts(containers=3)
        job.check(job.containers())
        if third.first != second.last + 1:
            raise Failed(f"the third container continues at {third.first}, the second ended at {second.last}\n{job.report()}")
        # The old one may have counted on when it thawed, which nobody builds upon.
        frozen = max(number for number, (_, moment) in old.ticks.items() if moment < second.ticks[second.first][1])
        stopped, continued = old.ticks[frozen][1], second.ticks[second.first][1]
        return stopped - old.ticks[second.first - 1][1], continued - stopped


@cause("kubectl exec POD -- revenant checkpoint, status", "by hand, with a terminal", "a progress bar, durable, runs on")
def by_hand(new):
    with new("by-hand") as job:
        job.counts()
        pod = job.pod()
        words = f"{SCRIPTS}/kubectl exec -it {pod} -c job -- revenant checkpoint"
        shown = subprocess.run(["script", "-qec", words, "/dev/null"], capture_output=True, text=True, timeout=60, check=False)
        if shown.returncode or "saved" not in shown.stdout:
            raise Failed(f"checkpoint said {shown.stdout!r}, and ended with {shown.returncode}")
        status = json.loads(kubectl("exec", pod, "-c", "job", "--", "revenant", "status", "--json"))
        if not status["generation"] or not status["last_save"]:
            raise Failed(f"the status does not tell of the save: {status}")
        job.counts(more=job.containers()[-1].last + 10)
        if len(job.containers()) != 1:
            raise Failed("it did not run on")
        return 0.0, 0.0
