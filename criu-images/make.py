"""Makes a golden checkpoint: the store of job `golden` after two saves on SIGTERM. See README.md beside this file.

Usage, as root: criu-images/make.py OUTPUT_DIR --rootfs DIR --bundle DIR [--key TEXT]
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "scripts" / "demo"))
from container import Container  # noqa: E402

SAVED_AND_STOPPED = 200


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--rootfs", type=pathlib.Path, required=True)
    parser.add_argument("--bundle", type=pathlib.Path, required=True)
    parser.add_argument("--key")
    options = parser.parse_args()
    options.output.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        tick = pathlib.Path(scratch) / "tick"
        subprocess.run(
            ["rustc", "--edition", "2024", "-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols", "-C", "target-feature=+crt-static",
             "-C", "relocation-model=static", "-o", tick, HERE / "tick.rs"],
            check=True,
        )  # fmt: skip
        work = pathlib.Path(scratch) / "empty"
        work.mkdir()
        mounts = [(options.bundle.resolve(), "/opt/revenant", "ro"), (options.output.resolve(), "/checkpoints", "rw"),
                  (tick, "/tick", "ro"), (work, "/work", "rw")]  # fmt: skip
        env = {"REVENANT_JOB": "golden"} | ({"REVENANT_KEY": options.key} if options.key else {})
        args = ["/opt/revenant/bin/revenant", "run", "--", "/bin/sh", "-c", "cp /tick /tmp/tick && cd /tmp && exec /tmp/tick"]
        for name in ("golden-1", "golden-2"):
            with Container(name, options.rootfs, scratch, args, env, mounts) as container:
                time.sleep(2)
                container.signal("TERM")
                code = container.wait(60)
                if code != SAVED_AND_STOPPED:
                    sys.exit("\n".join([f"exit code {code}", *container.lines]))
                print(container.lines[-1])


if __name__ == "__main__":
    main()
