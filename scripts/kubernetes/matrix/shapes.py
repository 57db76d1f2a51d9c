"""Pods of every usual shape: each is preempted, and continues as a plain one does."""

from causes import cause, nothing_lost, template
from cluster import Failed, get, kubectl, wait


def preempted(new, name, change, **arguments):
    """A Job whose pod is changed so, deleted once."""
    def changed(document):
        if template(document):
            change(template(document))
    with new(name, change=changed, **arguments) as job:
        job.counts()
        kubectl("delete", "pod", job.pod(), "--wait=false")
        job.counts(containers=2)
        return nothing_lost(job)


def shape(name, **arguments):
    """A function that changes a pod's specification, as a row of the table."""
    def keep(change):
        def run(new):
            return preempted(new, change.__name__.replace("_", "-"), change, **arguments)
        run.__name__ = change.__name__
        cause(f"pod: {name}", "kubectl delete pod", "continues, nothing lost")(run)
        return change
    return keep


def side_car():
    """Something that starts processes all the time, and ends with the pod."""
    return {
        "name": "side-car", "image": "localhost/counter:1", "imagePullPolicy": "Never",
        "command": ["bash", "-c", "trap 'exit 0' TERM; while :; do /bin/true; sleep 0.2; done"],
    }


@shape("a side-car")
def beside_a_side_car(spec):
    spec["containers"].append(side_car())


@shape("shareProcessNamespace, with a side-car")
def shared_process_namespace(spec):
    spec["shareProcessNamespace"] = True
    spec["containers"].append(side_car())


@shape("an init container, ConfigMap and projected volumes")
def with_configuration(spec):
    spec.setdefault("initContainers", []).append({
        "name": "first", "image": "localhost/counter:1", "imagePullPolicy": "Never", "command": ["sleep", "0.5"],
    })
    spec["volumes"] += [
        {"name": "configuration", "configMap": {"name": "kube-root-ca.crt"}},
        {"name": "projected", "projected": {"sources": [
            {"configMap": {"name": "kube-root-ca.crt"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        ]}},
    ]
    spec["containers"][0]["volumeMounts"] += [
        {"name": "configuration", "mountPath": "/etc/configuration"}, {"name": "projected", "mountPath": "/etc/projected"},
    ]


@shape("read-only root file system, emptyDirs for /tmp and /run")
def read_only_root(spec):
    container = spec["containers"][0]
    container["securityContext"]["readOnlyRootFilesystem"] = True
    for name, path in (("tmp", "/tmp"), ("run", "/run")):
        spec["volumes"].append({"name": name, "emptyDir": {}})
        container["volumeMounts"].append({"name": name, "mountPath": path})


@shape("an emptyDir as spool")
def with_a_spool(spec):
    spec["volumes"].append({"name": "spool", "emptyDir": {"sizeLimit": "1Gi"}})
    spec["containers"][0]["volumeMounts"].append({"name": "spool", "mountPath": "/spool"})
    spec["containers"][0]["env"].append({"name": "REVENANT_SPOOL", "value": "/spool"})


@shape("restartPolicy OnFailure")
def restarted_on_failure(spec):
    spec["restartPolicy"] = "OnFailure"


@shape("restartPolicy Always, in a StatefulSet", kind="statefulset")
def restarted_always(spec):
    assert spec.get("restartPolicy", "Always") == "Always"


@shape("runAsNonRoot")
def not_root(spec):
    # The volume of a test is a directory of the machine's; a real one takes the group from fsGroup.
    spec.setdefault("initContainers", []).append({
        "name": "owner", "image": "localhost/counter:1", "imagePullPolicy": "Never",
        "command": ["chown", "1000", "/checkpoints"],
        "volumeMounts": [{"name": "checkpoints", "mountPath": "/checkpoints"}],
    })
    spec["containers"][0]["image"] = "localhost/counter-user:1"
    spec["containers"][0]["securityContext"] |= {"runAsNonRoot": True, "runAsUser": 1000}


@cause("pod: two containers under revenant", "kubectl delete pod", "both continue, nothing lost")
def two_in_one_pod(new):
    def change(document):
        spec = template(document)
        if not spec:
            return
        second = {**spec["containers"][0], "name": "second", "ports": []}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            second.pop(probe)
        second["env"] = [variable for variable in second["env"] if variable["name"] not in ("REVENANT_JOB", "REVENANT_HTTP")]
        second["env"].append({"name": "REVENANT_JOB", "value": "second"})
        spec["containers"].append(second)
    with new("two", change=change) as job:
        job.counts()
        pod = job.pod()
        kubectl("delete", "pod", pod, "--wait=false")
        job.counts(containers=2)
        said = wait("the second continued too", lambda: "continued from" in kubectl("logs", job.pod(), "-c", "second") or None)
        if not said or get("pod", job.pod())["status"]["phase"] != "Running":
            raise Failed("the second container did not continue")
        return nothing_lost(job)
