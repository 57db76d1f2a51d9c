"""Checkpoints in an object store beside the cluster: SeaweedFS, which speaks S3."""

import contextlib
import json
import subprocess
import time

from causes import cause, hardware_failure, nothing_lost
from cluster import Failed, SCRIPTS, kubectl

ADDRESS = "10.250.0.1"
BUCKET = "checkpoints"
KEY, SECRET = "matrix-key", "matrix-secret"
# In the cluster's network namespace, where nobody else listens.
INSIDE = ["nsenter", "--net=/run/netns/revenant-k8s", "--"]


def http(method, path, body=""):
    """The status of the filer's answer, whose directories are buckets."""
    ask = """import http.client, sys
filer = http.client.HTTPConnection(sys.argv[1], 8888, timeout=10)
filer.request(*sys.argv[2:])
print(filer.getresponse().status)"""
    words = ["python3", "-c", ask, ADDRESS, method, path, body]
    return subprocess.run([*INSIDE, *words], capture_output=True, text=True, check=False).stdout


@contextlib.contextmanager
def seaweed(new):
    """A server with one bucket, and the Secret that lets jobs in."""
    weed = subprocess.run([SCRIPTS.parent / "seaweedfs.sh", new.cache], capture_output=True, text=True, check=True).stdout.strip()
    data = new.state / "seaweedfs"
    subprocess.run(["rm", "-rf", data], check=True)
    data.mkdir(parents=True)
    (data / "s3.json").write_text(json.dumps({"identities": [{
        "name": "matrix", "actions": ["Read", "Write", "List", "Tagging"], "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
    }]}))
    with (data / "log").open("w") as log:
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *INSIDE, weed, "server", "-s3", f"-dir={data}", f"-ip={ADDRESS}", f"-ip.bind={ADDRESS}",
             f"-s3.config={data}/s3.json", "-s3.autoCreateBucket=false", "-master.volumeSizeLimitMB=256", "-volume.max=20",
             "-master.telemetry=false", "-volume.preStopSeconds=0"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        # The filer takes an upload once a volume does.
        while not (http("POST", f"/buckets/{BUCKET}/").startswith("2") and http("PUT", f"/buckets/{BUCKET}/ready", "ready").startswith("2")):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failed("SeaweedFS does not get ready:\n" + (data / "log").read_text()[-3000:])
            time.sleep(0.3)
        access = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{ADDRESS}:8333"}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket"}, "stringData": access}
        kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        yield ["--store", f"s3://{BUCKET}/jobs", "--store-secret", "bucket"]
    finally:
        kubectl("delete", "secret", "bucket", "--ignore-not-found", check=False)
        server.terminate()
        server.wait()


@cause("S3: delete the pod", "kubectl delete pod, checkpoints in SeaweedFS", "continues, nothing lost")
def bucket_delete(new):
    with seaweed(new) as store, new("bucket", options=store) as job:
        job.counts()
        kubectl("delete", "pod", job.pod(), "--wait=false")
        job.counts(containers=2)
        return nothing_lost(job)


@cause("S3: hardware failure", "as above, checkpoints in SeaweedFS", "continues on another node from the last durable save")
def bucket_hardware(new):
    with seaweed(new) as store, new("bucket-lost", options=store) as job:
        return hardware_failure(job)
