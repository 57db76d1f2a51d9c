"""A real S3 service for the demonstration: SeaweedFS on loopback, with a bucket and credentials."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

BUCKET, KEY, SECRET = "assemblies", "demo", "demo-secret"


def free_ports(count):
    """Ports that nobody listens on; SeaweedFS also takes each port + 10000 for gRPC."""
    ports = []
    while len(ports) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port > 50000:
                port -= 20000
            try:
                high.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            ports.append(port)
    return ports


class SeaweedS3:
    """`weed server -s3`, its data in `directory`. The program comes from $WEED or PATH."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.weed = os.environ.get("WEED") or shutil.which("weed")

    def __enter__(self):
        if not self.weed:
            raise SystemExit("SeaweedFS is missing: make installs it, or set WEED to the program `weed`")
        self.directory.mkdir()
        identities = {"identities": [{"name": "demo", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                                      "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}]}  # fmt: skip
        config = self.directory / "s3.json"
        config.write_text(json.dumps(identities))
        master, volume, filer, self.port = free_ports(4)
        self.log = (self.directory / "weed.log").open("w")
        self.process = subprocess.Popen(
            [self.weed, "server", "-s3", f"-dir={self.directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
             f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={self.port}",
             f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket", "-master.volumeSizeLimitMB=256", "-volume.max=100"],
            stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._create_bucket()
        return self

    def _create_bucket(self):
        """Waits until the service answers, then makes the bucket by a plain directory request to its filer's shell."""
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit("SeaweedFS did not start; its log: " + (self.directory / "weed.log").read_text()[-2000:]) from None
                time.sleep(0.2)
        master = next(a for a in self.process.args if a.startswith("-master.port=")).split("=")[1]
        for _ in range(60):
            shell = subprocess.run([self.weed, "shell", f"-master=127.0.0.1:{master}"], input=f"s3.bucket.create -name {BUCKET}\n",
                                   text=True, capture_output=True, timeout=60)  # fmt: skip
            if "create bucket under" in shell.stdout or "created bucket" in shell.stdout or "exists" in shell.stdout + shell.stderr:
                return
            time.sleep(0.5)
        raise SystemExit(f"SeaweedFS did not make the bucket: {shell.stdout}{shell.stderr}")

    def access(self):
        env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
               "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}  # fmt: skip
        return {"url": f"s3://{BUCKET}/checkpoints", "env": env, "mounts": []}

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
