"""The table of docs/fidelity.md: each kind of resource, saved and restored for real in new containers.

For each kind and each set of capabilities a container holds the resource (tests/workloads/kinds.py), is told
to stop (SIGTERM), and another container continues it twice over; the program itself checks that it still has
what it had. Nothing is written into the table that was not seen.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
from container import CAPABILITIES, Container  # noqa: E402

WORKLOADS = HERE.parent.parent / "tests" / "workloads"
SAVED_AND_STOPPED = 200
UNAVAILABLE = 98
BROKEN = 99


def caps(names):
    return [f"CAP_{name}" for name in names.split()]


PROFILES = {
    "minimal": caps("CHECKPOINT_RESTORE SETPCAP"),
    "recommended": CAPABILITIES + caps("SYS_ADMIN SYS_TIME"),
    "full": CAPABILITIES + caps("SYS_ADMIN SYS_TIME NET_ADMIN DAC_READ_SEARCH"),
}
GENERATIONS = 2
# What a user has to say who has such a program.
OPTIONS = {"tcp-connection-that-is-opened-again": ["--tcp", "close"]}


class Outside:
    """What a workload may be connected to outside of its container: listens on two sockets in the volume."""

    def __init__(self, volume):
        self.sockets = []
        for name, kind in (("outside-stream", socket.SOCK_STREAM), ("outside-datagram", socket.SOCK_DGRAM)):
            sock = socket.socket(socket.AF_UNIX, kind)
            # The kernel remembers the path as it was said: as in a side-car with the same volume at the same place.
            if (child := os.fork()) == 0:
                os.chroot(volume.parent)
                sock.bind(f"/{volume.name}/{name}")
                os._exit(0)
            os.waitpid(child, 0)
            if kind == socket.SOCK_STREAM:
                sock.listen()
                threading.Thread(target=self.accept, args=(sock,), daemon=True).start()
            else:
                # The kernel keeps few datagrams for one who does not read, and then lets the sender wait.
                threading.Thread(target=self.read, args=(sock,), daemon=True).start()
            self.sockets.append(sock)

    @staticmethod
    def read(sock):
        while True:
            try:
                sock.recv(1)
            except OSError:
                return

    @staticmethod
    def accept(sock):
        peers = []
        while True:
            try:
                peers.append(sock.accept()[0])
            except OSError:
                return

    def close(self):
        for sock in self.sockets:
            sock.close()


def wait_for(container, pattern, seconds=90):
    """Whether a line matches before the container ends."""
    deadline = time.monotonic() + seconds
    seen = 0
    while time.monotonic() < deadline:
        ended = container.process.poll() is not None
        lines = container.lines
        while seen < len(lines):
            if re.search(pattern, lines[seen]):
                return lines[seen]
            seen += 1
        if ended and seen == len(container.lines):
            container.reader.join(timeout=10)
            return next((line for line in container.lines if re.search(pattern, line)), None)
        time.sleep(0.02)
    return None


def said(lines, pattern):
    """What revenant said about a failure: the sentence, without its reason and advice."""
    for index, line in enumerate(lines):
        if re.search(pattern, line):
            why = next((text.strip() for text in lines[index : index + 4] if text.strip().startswith("why:")), "")
            sentence = re.sub(r"^revenant: (warning: |error: )?", "", line)
            sentence = re.sub(r"^(the save failed; earlier checkpoints stand|.*?was not restored): ", "", sentence)
            sentence = re.sub(r"^the workload('s state could not be saved| could not be restored): ", "", sentence)
            why = why.removeprefix("why:").strip()
            if sentence.startswith("the workload holds what cannot be saved"):
                return ("found before the freeze", re.sub(r"^process \d+ \(\w+\)(, descriptor \d+)?: ", "", why))
            return (sentence, why)
    return ("", "")


def last_step(lines):
    steps = [int(match[1]) for line in lines if (match := re.match(r"step (\d+)$", line))]
    return steps[-1] if steps else 0


def one(options, kind, profile):
    """Returns (verdict, detail)."""
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="revenant-fidelity-"))
    volume, store = scratch / "volume", scratch / "store"
    volume.mkdir(mode=0o777)
    store.mkdir()
    outside = Outside(volume)
    mounts = [
        (options.revenant, "/opt/revenant/bin/revenant", "ro"), (options.criu, "/opt/revenant/criu", "ro"),
        (WORKLOADS, "/workloads", "ro"), (volume, "/volume", "rw"), (store, "/checkpoints", "rw"),
    ]  # fmt: skip
    env = {"REVENANT_STORE": "file:///checkpoints", "REVENANT_JOB": "fidelity", "REVENANT_GRACE": "60", "REVENANT_LEASE": "2s"}
    args = ["/opt/revenant/bin/revenant", "run", *options.run, *OPTIONS.get(kind, []), "--", "python3", "/workloads/kinds.py", kind]
    log, reached = [], 0
    try:
        for number in range(1, GENERATIONS + 2):
            name = f"revenant-fidelity-{os.getpid()}-{kind}-{profile}-{number}"[:120]
            with Container(name, options.rootfs, scratch, args, env, mounts, capabilities=PROFILES[profile], cwd="/") as container:
                try:
                    goal = wait_for(container, rf"^step {reached + 3}$|^unavailable|^broken|^Traceback")
                    log += [f"--- container {number}"] + container.lines
                    if goal is None or not goal.startswith("step"):
                        code = container.process.poll()
                        broken = next((line for line in container.lines if line.startswith(("broken", "Traceback"))), None)
                        if number == 1:
                            detail = next((line for line in container.lines if line.startswith("unavailable")), "")
                            return ("unavailable", detail.removeprefix("unavailable ") or f"exit code {code}", log)
                        if broken:
                            wait_for(container, r"^\w+(Error|Exception)|^broken", 20)
                            trace = [line for line in container.lines if re.match(r"\w+(Error|Exception)", line)]
                            return ("lost", (broken.removeprefix("broken ") if broken.startswith("broken") else trace[-1] if trace else broken), log)
                        what, why = said(container.lines, "was not restored|could not be restored")
                        return ("not restored", f"{what}: {why}" if what else f"exit code {code}", log)
                    if number == GENERATIONS + 1:
                        return ("carried", "", log)
                    container.signal("TERM")
                    code = container.wait(120)
                    log += container.lines[-12:]
                    if code != SAVED_AND_STOPPED:
                        what, why = said(container.lines, "save failed")
                        return ("refused", f"{what}: {why}", log)
                    reached = last_step(container.lines)
                finally:
                    if container.process.poll() is None:
                        subprocess.run(["runc", "kill", name, "KILL"], stderr=subprocess.DEVNULL)
                        container.process.wait()
        return ("carried", "", log)
    except TimeoutError as error:
        return ("hung", str(error).splitlines()[0], log)
    finally:
        outside.close()
        shutil.rmtree(scratch, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rootfs", type=pathlib.Path, required=True)
    parser.add_argument("--revenant", type=pathlib.Path, required=True)
    parser.add_argument("--criu", type=pathlib.Path, required=True)
    parser.add_argument("--kinds", default="", help="only these (comma-separated)")
    parser.add_argument("--profiles", default=",".join(PROFILES), help="only these (comma-separated)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=pathlib.Path, help="the document whose table is replaced")
    parser.add_argument("--log", type=pathlib.Path, help="a directory for what each container said")
    parser.add_argument("--run", action="append", default=[], help="an option of revenant run (may be repeated)")
    options = parser.parse_args()
    options.rootfs, options.revenant, options.criu = (p.resolve() for p in (options.rootfs, options.revenant, options.criu))
    if os.geteuid() != 0:
        sys.exit("the table is measured in real containers and needs root: sudo make fidelity")
    known = subprocess.run([sys.executable, "-B", WORKLOADS / "kinds.py", "--list"], capture_output=True, text=True, check=True).stdout.split()
    kinds = [kind for kind in known if not options.kinds or kind in options.kinds.split(",")]
    profiles = options.profiles.split(",")
    results = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(one, options, kind, profile): (kind, profile) for kind in kinds for profile in profiles}
        for future in concurrent.futures.as_completed(futures):
            kind, profile = futures[future]
            verdict, detail, log = future.result()
            results[kind, profile] = (verdict, detail)
            print(f"{kind:42} {profile:12} {verdict:13} {detail}", flush=True)
            if options.log:
                options.log.mkdir(parents=True, exist_ok=True)
                (options.log / f"{kind}.{profile}").write_text("\n".join(log) + "\n")
    text = table(kinds, profiles, results)
    print("\n" + text)
    if options.write:
        # What was not measured now stays as it was measured before.
        before = rows_of(options.write, profiles)
        all_kinds = [kind for kind in known if kind in kinds or all((kind, profile) in before for profile in profiles)]
        replace_table(options.write, table(all_kinds, profiles, before | results))
    return 0


def table(kinds, profiles, results):
    lines = ["| resource | " + " | ".join(profiles) + " |", "|---" * (len(profiles) + 1) + "|"]
    notes = []
    for kind in kinds:
        cells = []
        for profile in profiles:
            verdict, detail = results[kind, profile]
            if detail:
                if detail not in notes:
                    notes.append(detail)
                verdict += f" [{notes.index(detail) + 1}]"
            cells.append(verdict)
        lines.append(f"| {kind.replace('-', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines + [""] + [f"{number}. {note}" for number, note in enumerate(notes, 1)]) + "\n"


BEGIN, END = "<!-- measured by make fidelity -->", "<!-- end -->"


def rows_of(document, profiles):
    """The rows of a document's table, if it has these columns."""
    lines = document.read_text().split(BEGIN)[1].split(END)[0].splitlines()
    notes = {match[1]: match[2] for line in lines if (match := re.match(r"(\d+)\. (.*)", line))}
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    if not rows or rows[0][1:] != profiles:
        return {}
    results = {}
    for name, *cells in rows[1:]:
        for profile, cell in zip(profiles, cells):
            verdict, note = re.match(r"([^\[]*?)(?: \[(\d+)\])?$", cell).groups()
            results[name.replace(" ", "-"), profile] = (verdict, notes.get(note, ""))
    return results


def replace_table(document, text):
    head, rest = document.read_text().split(BEGIN)
    document.write_text(head + BEGIN + "\n\n" + text + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    sys.exit(main())
