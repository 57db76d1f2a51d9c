"""A real OCI container by runc: a fresh root file system over a read-only one, least capabilities."""

import json
import pathlib
import shutil
import subprocess
import threading
import time

# What containers have by default, and the two that a checkpoint needs.
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT "
        "CHECKPOINT_RESTORE SYS_PTRACE"
    ).split()
]


def oci_config(args, env, mounts, capabilities=CAPABILITIES, cwd="/work", terminal=False, memory=None, user=0):
    """The OCI runtime configuration: own namespaces but for the network, no seccomp filter, not privileged."""
    bind = [
        {"destination": to, "source": str(source), "type": "bind", "options": ["rbind", mode]} for source, to, mode in mounts
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": terminal,
            "user": {"uid": user, "gid": user},
            "args": args,
            "cwd": cwd,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] + [f"{k}={v}" for k, v in env.items()],
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "assembly",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]},
            {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]},
        ]
        + bind,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": True, "access": "rwm"}]} | ({"memory": {"limit": memory}} if memory else {}),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }  # fmt: skip


class Container:
    """Runs until it ends by itself or is told to stop. Use as a context manager: leaves nothing behind."""

    def __init__(self, name, base_root, scratch, args, env=None, mounts=(), on_line=None, **config):
        self.name, self.base_root, self.dir = name, base_root, pathlib.Path(scratch) / name
        self.args, self.env, self.mounts, self.on_line = args, env or {}, list(mounts), on_line
        self.config, self.lines = config, []

    def __enter__(self):
        upper, work, root = (self.dir / part for part in ("upper", "work", "rootfs"))
        for part in (upper, work, root):
            part.mkdir(parents=True)
        options = f"lowerdir={self.base_root},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
        (self.dir / "config.json").write_text(json.dumps(oci_config(self.args, self.env, self.mounts, **self.config)))
        self.process = subprocess.Popen(
            ["runc", "run", "--bundle", self.dir, self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def _read(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            self.lines.append(line)
            if self.on_line:
                self.on_line(line)

    def signal(self, name):
        subprocess.run(["runc", "kill", self.name, name], check=True)

    def wait(self, timeout):
        """The exit code; ends the container and fails when it takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not end within {timeout} s; last lines: {self.lines[-5:]}")
            time.sleep(0.05)
        self.reader.join(timeout=10)
        return self.process.returncode

    def __exit__(self, *_):
        if self.process.poll() is None:
            subprocess.run(["runc", "kill", self.name, "KILL"], stderr=subprocess.DEVNULL)
            self.process.wait()
        subprocess.run(["runc", "delete", "-f", self.name], stderr=subprocess.DEVNULL)
        subprocess.run(["umount", self.dir / "rootfs"], check=True)
        shutil.rmtree(self.dir)
