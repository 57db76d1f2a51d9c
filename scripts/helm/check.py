"""The Helm chart writes what `revenant manifest` writes: the same objects, field by field, for each kind of answer."""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import yaml

COMMAND = ["megahit", "-1", "r1.fq", "-2", "r2.fq", "-o", "out"]

# What `revenant manifest` is told, and the values of the chart that say the same.
CASES = {
    "the defaults": ([], {}),
    "a statefulset": (["--kind", "statefulset"], {"kind": "statefulset"}),
    "a standard job": (["--tier", "standard"], {"tier": "standard"}),
    "a short job": (["--tier", "short"], {"tier": "short"}),
    "an object store": (["--store", "s3://assemblies/soil", "--store-secret", "s3-keys"], {"store": {"url": "s3://assemblies/soil", "secret": "s3-keys"}}),
    "a statefulset on an object store": (["--kind", "statefulset", "--store", "gs://assemblies"], {"kind": "statefulset", "store": {"url": "gs://assemblies"}}),
    "a claim of its own": (["--claim-size", "64GiB", "--storage-class", "fast"], {"store": {"claimGiB": 64, "storageClass": "fast"}}),
    "data": (["--data", "reads=/data"], {"data": {"claim": "reads", "path": "/data"}}),
    "a key": (["--key-secret", "checkpoint-key"], {"keySecret": "checkpoint-key"}),
    "a save that takes long": (["--save-time", "1200s", "--every", "2h"], {"saveSeconds": 1200, "every": "2h"}),
    "another label": (["--high-memory-label", "pool=large"], {"highMemoryLabel": {"name": "pool", "value": "large"}}),
}

# What must be refused, and by which word.
REFUSED = {
    "no image": ({"image": ""}, "image is missing"),
    "no command": ({"command": []}, "command is missing"),
    "no memory": ({"memoryGiB": 0}, "memoryGiB"),
    "an unknown tier": ({"tier": "vital"}, "tier"),
    "an unknown kind": ({"kind": "pod"}, "kind"),
}


def milli(text):
    return int(text[:-1]) if text.endswith("m") else int(text) * 1000


def mib(text):
    return int(text[:-2]) * {"Mi": 1, "Gi": 1024}[text[-2:]]


def comparable(value, key=""):
    """Without what only Helm knows, and quantities as numbers."""
    if isinstance(value, dict):
        found = {name: comparable(inner, name) for name, inner in value.items() if not name.startswith("helm.sh/")}
        return {name: inner for name, inner in found.items() if not (name == "annotations" and not inner)}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if key in ("memory", "storage"):
        return mib(value)
    return milli(value) if key == "cpu" else value


def objects(text):
    found = {}
    for document in yaml.safe_load_all(text):
        if document:
            found[document["kind"], document["metadata"]["name"]] = comparable(document)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revenant", type=pathlib.Path, required=True)
    parser.add_argument("--render", type=pathlib.Path, required=True, help="the compiled render.go, or anything that takes NAME CHART VALUES")
    parser.add_argument("--chart", type=pathlib.Path, default="deploy/helm/revenant-job")
    options = parser.parse_args()
    usual = {"image": "registry.example/megahit:1", "command": COMMAND, "memoryGiB": 10.5, "cpus": 2.5}
    wrong = []

    def rendered(values):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(usual | values, file)
            file.flush()
            return subprocess.run([options.render, "soil-7", options.chart, file.name], capture_output=True, text=True, check=False)

    for name, (arguments, values) in CASES.items():
        command = [options.revenant, "manifest", "--name", "soil-7", "--image", usual["image"], "--memory", "10752MiB", "--cpus", "2.5"]
        written = subprocess.run([*command, *arguments, "--", *COMMAND], capture_output=True, text=True, check=True).stdout
        chart = rendered(values)
        if chart.returncode != 0:
            wrong.append(f"{name}: {chart.stderr.strip()}")
            continue
        expected, found = objects(written), objects(chart.stdout)
        if set(expected) != set(found):
            wrong.append(f"{name}: the chart has {sorted(found)}, revenant manifest {sorted(expected)}")
        for which in set(expected) & set(found):
            if expected[which] != found[which]:
                wrong.append(f"{name}: {which} differs:\n  manifest {expected[which]}\n  chart    {found[which]}")
    for name, (values, word) in REFUSED.items():
        chart = rendered(values)
        if chart.returncode == 0 or word not in chart.stderr:
            wrong.append(f"{name} is not refused: {chart.stderr.strip() or 'no word'}")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"helm chart: {len(CASES)} sets of answers give what revenant manifest gives, {len(REFUSED)} are refused")


if __name__ == "__main__":
    main()
