"""Every manifest that revenant writes is one that the API server takes."""

import itertools
import subprocess

import yaml

from cluster import Failed, kubectl
from job import for_2021

STORES = {
    "volume": ["--claim-size", "10GiB", "--storage-class", "fast"],
    "bucket": ["--store", "s3://bucket/prefix", "--store-secret", "bucket"],
}
MORE = ["--data", "reads=/data", "--key-secret", "key", "--schedule", "0 2 * * 0"]


def taken(revenant):
    """Asks the server without storing anything (dry run); returns how many variants it took."""
    variants = list(itertools.product(("job", "statefulset", "cronjob"), ("critical", "standard", "short"), STORES))
    for kind, tier, store in variants:
        words = [revenant, "manifest", "--name", "soil-7", "--image", "registry.example/megahit:1", "--memory", "64GiB", "--cpus", "16",
                 "--kind", kind, "--tier", tier, *STORES[store], *MORE, "--", "megahit", "-1", "/data/it's \"r1\".fq"]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        documents = [for_2021(document) for document in yaml.safe_load_all(text) if document]
        said = kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(documents), check=False)
        if said.returncode or said.stdout.count("(server dry run)") != len(documents):
            raise Failed(f"{kind} {tier} {store} is not taken: {said.stdout}{said.stderr}")
    return len(variants)
