#!/usr/bin/env python3
"""Makes an OCI image archive of one directory: image.py NAME DIRECTORY OUT.tar [--entrypoint WORD ...].

For what has no Dockerfile; no registry and no builder is needed. The same directory gives the same digest.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import tarfile


def layer(directory):
    """The directory as a tar archive, everything owned by root, at one time, in order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sorted(pathlib.Path(directory).rglob("*")):
            entry = archive.gettarinfo(path, str(path.relative_to(directory)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = "root"
            with open(path, "rb") if entry.isfile() else io.BytesIO() as content:
                archive.addfile(entry, content)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("directory")
    parser.add_argument("out")
    parser.add_argument("--entrypoint", nargs="+")
    arguments = parser.parse_args()

    blobs = {}

    def blob(media, data):
        digest = hashlib.sha256(data).hexdigest()
        blobs["blobs/sha256/" + digest] = data
        return {"mediaType": "application/vnd.oci.image." + media, "digest": "sha256:" + digest, "size": len(data)}

    archive = layer(arguments.directory)
    content = blob("layer.v1.tar", archive)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": arguments.entrypoint},
        "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [content],
    }
    described = blob("manifest.v1+json", json.dumps(manifest).encode())
    described["annotations"] = {
        "io.containerd.image.name": arguments.name,
        "org.opencontainers.image.ref.name": arguments.name.rsplit(":", 1)[-1],
    }
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    with tarfile.open(arguments.out, "w") as out:
        for name, data in blobs.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            out.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main()
