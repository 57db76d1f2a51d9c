#!/usr/bin/env python3
"""The survival matrix on a real Kubernetes: every cause is done to a real pod, and what it cost is measured.

Ends with one line, `N passed, M failed`. The results are kept as JSON; the tables are written once every row has passed.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import time
import traceback

import cluster
import manifests
import table
from causes import CAUSES
from job import Job

# Each adds its rows to the table, in this order.
import pressure  # isort: skip
import image  # isort: skip
import documented  # isort: skip
import bucket  # isort: skip
import shapes  # isort: skip


def attempt(what):
    """(its result, None), or (None, its failure in one line)."""
    try:
        return what(), None
    except Exception as error:  # a scenario that breaks must not hide the others
        print("   FAILED", flush=True)
        if isinstance(error, cluster.Failed):
            print(error, flush=True)
        else:
            traceback.print_exc()
        return None, str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revenant", required=True, help="the binary")
    parser.add_argument("--state", required=True, type=pathlib.Path, help="directory for volumes and logs")
    parser.add_argument("--cache", required=True, type=pathlib.Path, help="where programs are kept")
    parser.add_argument("--only", default="", help="names of functions, separated by commas; `manifests` for the dry runs")
    parser.add_argument("--results", required=True, type=pathlib.Path, help="JSON: the newest result of each row")
    parser.add_argument("--pages", required=True, nargs=2, type=pathlib.Path, help="README and page for the tables, once all have passed")
    options = parser.parse_args()

    # Told to stop, it puts the nodes back as they were.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cluster.kubectl("label", "node", "node2", "node-class=high-memory", "--overwrite")
    revenant = str(pathlib.Path(options.revenant).resolve())

    def new(name, **arguments):
        volume = options.state / "volumes" / name
        subprocess.run(["rm", "-rf", volume], check=True)
        return Job(revenant, name, options.state, **arguments)

    new.state, new.cache = options.state, options.cache
    only = set(filter(None, options.only.split(",")))
    unknown = only - {"manifests"} - {function.__name__ for *_, function in CAUSES}
    if unknown:
        parser.error(f"no such cause: {', '.join(sorted(unknown))}")
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    done, passed, failed = [], 0, 0
    if not only or "manifests" in only:
        print("-- manifests: kubectl apply --dry-run=server", flush=True)
        taken, _ = attempt(lambda: manifests.taken(revenant))
        passed, failed = (passed + 1, failed) if taken else (passed, failed + 1)
        if taken:
            print(f"   {taken} variants are taken", flush=True)
    for name, how, must, function in CAUSES:
        if only and function.__name__ not in only:
            continue
        began = time.monotonic()
        print(f"-- {name}: {how}", flush=True)
        row = {"cause": name, "how": how, "must": must}
        measured, problem = attempt(lambda: function(new))
        if measured:
            passed += 1
            lost, again = measured
            row |= {"lost_seconds": round(lost, 1), "again_seconds": round(again, 1), "result": "as it must"}
            print(f"   lost {lost:.1f} s, counting again after {again:.1f} s ({time.monotonic() - began:.0f} s in all)", flush=True)
        else:
            failed += 1
            row["result"] = f"FAILED: {problem}"
        done.append(row)
        results[function.__name__] = row
        options.results.write_text(json.dumps(results, indent=1) + "\n")

    print("\n" + table.full(done))
    newest = [results.get(function.__name__, {}) for *_, function in CAUSES]
    if all("lost_seconds" in row for row in newest):
        readme, page = options.pages
        table.put(readme, table.short(newest))
        table.put(page, table.full(newest))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
