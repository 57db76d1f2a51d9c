"""Real programs, preempted: is the result that of an uninterrupted run?

Each program of Debian runs once undisturbed; once under revenant, told to stop (SIGTERM) at three random moments, each
time continued in a new container; and once with periodic saves, killed (SIGKILL, as by a lost node) some time after one
of them. Both results must equal the undisturbed one's.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
from container import CAPABILITIES, Container  # noqa: E402

from recipes import RECIPES, prepare  # noqa: E402

SAVED_AND_STOPPED = 200
PREEMPTIONS = 3


class Failed(Exception):
    pass


def mounts(options, data, work, store):
    # An image that carries revenant is tried with its own.
    ours = [] if options.image else [(options.revenant, "/opt/revenant/bin/revenant", "ro"), (options.criu, "/opt/revenant/criu", "ro")]
    return ours + [(HERE, "/programs", "ro"), (data, "/data", "ro"), (work, "/work", "rw"), (store, "/checkpoints", "rw")]


def container(options, name, scratch, args, env, places, add=()):
    return Container(f"revenant-programs-{os.getpid()}-{name}", options.rootfs, scratch, args, {"HOME": "/tmp", **env}, places,
                     capabilities=CAPABILITIES + options.add + list(add), cwd="/work", user=options.as_user)  # fmt: skip


def fresh(options, scratch, name):
    work, store = scratch / f"{name}-work", scratch / f"{name}-store"
    work.mkdir()
    work.chmod(0o777)
    store.mkdir()
    os.chown(store, options.as_user, options.as_user)
    return work, store


def undisturbed(options, recipe, data, scratch):
    work, store = fresh(options, scratch, "plain")
    begun = time.monotonic()
    command = ["setpriv", f"--reuid={recipe.user}", f"--regid={recipe.user}", "--clear-groups", *recipe.command] if recipe.user else recipe.command
    with container(options, f"{recipe.name}-plain", scratch, command, {}, mounts(options, data, work, store)) as run:
        code = run.wait(options.timeout)
    if code != 0:
        raise Failed(f"the undisturbed run ended with {code}: " + " | ".join(run.lines[-5:]))
    return recipe.result(work), time.monotonic() - begun


def under_revenant(options, recipe, data, scratch, name, work, store, extra, disturb):
    """One container; `disturb(run)` is called once the program runs. Returns the exit code and the lines."""
    env = {"REVENANT_STORE": "file:///checkpoints", "REVENANT_JOB": recipe.name, "REVENANT_GRACE": "300", "REVENANT_LEASE": "2s", **extra}
    args = ["/opt/revenant/bin/revenant", "run", *recipe.options, "--", *recipe.command]
    with container(options, f"{recipe.name}-{name}", scratch, args, env, mounts(options, data, work, store), recipe.add) as run:
        deadline = time.monotonic() + options.timeout
        while not any(re.search("revenant: (started|continued)", line) for line in run.lines):
            if run.process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        disturb(run)
        code = run.wait(options.timeout)
        return code, run.lines


def preempted(options, recipe, data, scratch, duration):
    work, store = fresh(options, scratch, "preempted")
    pauses = [random.uniform(0.05, 0.3) * duration for _ in range(PREEMPTIONS)]
    stops, frozen, log = 0, [], []
    while True:
        def disturb(run):
            if stops < PREEMPTIONS:
                end = time.monotonic() + pauses[stops]
                while time.monotonic() < end and run.process.poll() is None:
                    time.sleep(0.02)
                if run.process.poll() is None:
                    run.signal("TERM")

        code, lines = under_revenant(options, recipe, data, scratch, f"stop{stops}", work, store, {}, disturb)
        log += lines
        frozen += [float(found[1]) for line in lines if (found := re.search(r"frozen ([\d.]+) s", line))]
        if code == 0:
            return recipe.result(work), stops, frozen
        if code != SAVED_AND_STOPPED:
            raise Failed(f"container {stops + 1} ended with {code}: " + " | ".join(line for line in lines if "revenant" in line or "why:" in line)[-700:])
        stops += 1
        if stops > PREEMPTIONS:
            raise Failed("it was stopped more often than told to")


def killed(options, recipe, data, scratch, duration):
    work, store = fresh(options, scratch, "killed")
    done = False

    def disturb(run):
        nonlocal done
        deadline = time.monotonic() + options.timeout
        while not done and run.process.poll() is None and time.monotonic() < deadline:
            if any("saved generation" in line for line in run.lines):
                # Long enough for the program to write on.
                time.sleep(0.15 * duration)
                done = run.process.poll() is None
                if done:
                    run.signal("KILL")
                return
            time.sleep(0.02)

    every = f"{max(1, int(duration * 0.25))}s"
    for number in (1, 2):
        code, lines = under_revenant(options, recipe, data, scratch, f"kill{number}", work, store, {"REVENANT_EVERY": every}, disturb if number == 1 else lambda run: None)
        if code == 0:
            return recipe.result(work), done
        if number == 1 and not done:
            raise Failed(f"the first container ended with {code}: " + " | ".join(lines[-5:]))
    raise Failed(f"the second container ended with {code}: " + " | ".join(line for line in lines if "revenant" in line or "why:" in line)[-700:])


def one(options, recipe):
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="revenant-programs-"))
    row = {"name": recipe.name, "shown": recipe.shown}
    try:
        data = prepare(options, recipe)
        expected, duration = undisturbed(options, recipe, data, scratch)
        row["took"] = f"{duration:.0f} s"
        try:
            found, stops, frozen = preempted(options, recipe, data, scratch, duration)
            verdict = "equal" if found == expected else "DIFFERENT"
            row["preempted"] = f"{verdict} ({stops} times, frozen {max(frozen, default=0):.1f} s at most)"
        except (Failed, TimeoutError, OSError, subprocess.CalledProcessError) as error:
            row["preempted"] = f"FAILED: {error}"
        try:
            found, done = killed(options, recipe, data, scratch, duration)
            verdict = "equal" if found == expected else "DIFFERENT"
            row["killed"] = verdict if done else f"{verdict} (ended before it was killed)"
        except (Failed, TimeoutError, OSError, subprocess.CalledProcessError) as error:
            row["killed"] = f"FAILED: {error}"
    except (Failed, TimeoutError, OSError, subprocess.CalledProcessError) as error:
        row["took"] = f"FAILED: {error}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(" | ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
    return row


def table(rows):
    return "\n".join(["| program | undisturbed | stopped at three random moments | killed after a periodic save |", "|---|---|---|---|", *rows, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rootfs", type=pathlib.Path, required=True)
    parser.add_argument("--image", action="store_true", help="the root file system is an image's and has revenant inside")
    parser.add_argument("--as-user", type=int, default=0, help="the container's user")
    parser.add_argument("--revenant", type=pathlib.Path)
    parser.add_argument("--criu", type=pathlib.Path)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="where inputs are kept between runs")
    parser.add_argument("--only", default="", help="only these (comma-separated)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=900, help="seconds that one container may take")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--add", action="append", default=[], help="a capability besides the usual")
    parser.add_argument("--write", type=pathlib.Path, help="the document whose table is replaced")
    options = parser.parse_args()
    for name in ("rootfs", "cache") if options.image else ("rootfs", "revenant", "criu", "cache"):
        setattr(options, name, getattr(options, name).resolve())
    if os.geteuid() != 0:
        sys.exit("programs run in real containers, which need root: sudo make programs")
    random.seed(options.seed)
    recipes = [recipe for recipe in RECIPES if not options.only or recipe.name in options.only.split(",")]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda recipe: one(options, recipe), recipes))
    measured = {row["shown"]: f"| {row['shown']} | {row.get('took', '')} | {row.get('preempted', '')} | {row.get('killed', '')} |" for row in rows}
    print("\n" + table(measured.values()))
    if options.write:
        begin, end = "<!-- measured by make programs -->", "<!-- end of programs -->"
        head, rest = options.write.read_text().split(begin)
        before, tail = rest.split(end)
        # What was not measured now stays as it was measured before.
        kept = {line.split(" | ")[0].removeprefix("| "): line for line in before.splitlines()[4:] if line.startswith("| ")}
        options.write.write_text(head + begin + "\n\n" + table((kept | measured).values()) + "\n" + end + tail)
    return 0 if all(str(row.get(key, "")).startswith("equal") for row in rows for key in ("preempted", "killed")) else 1


if __name__ == "__main__":
    sys.exit(main())
