//! The OCI runtime configuration of a container.

use super::cache;
use super::container::Container;
use serde_json::{Value, json};
use std::path::Path;

/// What runc reads as `config.json`.
pub fn config(container: &Container, root: &Path) -> Value {
    let capabilities: Vec<_> = container.capabilities.iter().map(|name| format!("CAP_{name}")).collect();
    // What a runtime does: an ordinary user has them in the bounding set only.
    let effective = if container.user.0 == 0 || container.ambient { capabilities.clone() } else { Vec::new() };
    let ambient = if container.ambient { capabilities.clone() } else { Vec::new() };
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": container.tty,
            "user": { "uid": container.user.0, "gid": container.user.1 },
            "args": container.arguments(),
            "env": environment(container),
            "cwd": container.directory,
            "capabilities": { "bounding": capabilities, "effective": effective, "permitted": effective,
                "inheritable": ambient, "ambient": ambient },
            "noNewPrivileges": container.no_new_privileges,
        },
        "root": { "path": root, "readonly": container.read_only_root },
        "hostname": container.hostname,
        "mounts": mounts(container),
        "linux": linux(container),
    })
}

fn environment(container: &Container) -> Vec<String> {
    let path = "PATH=/opt/revenant/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let own = container.environment.iter().map(|(name, value)| format!("{name}={value}"));
    [path.to_owned(), "HOME=/root".to_owned()].into_iter().chain(own).collect()
}

fn mounts(container: &Container) -> Vec<Value> {
    let private = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": private }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": private }),
        sys(container),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", if container.writable_groups { "rw" } else { "ro" }] }),
        bind(&cache::revenant(), "/opt/revenant/bin/revenant", true),
        bind(&cache::criu(), "/opt/revenant/criu", true),
        bind(&cache::workloads(), "/workloads", true),
    ];
    mounts.extend(container.mounts.iter().map(|mount| match &mount.source {
        Some(source) => bind(source, &mount.destination, mount.read_only),
        None => {
            let size = mount.size.map(|size| format!("size={size}"));
            let inodes = mount.inodes.map(|inodes| format!("nr_inodes={inodes}"));
            let options: Vec<String> =
                ["nosuid", "nodev", "mode=1777"].map(ToOwned::to_owned).into_iter().chain(size).chain(inodes).collect();
            json!({ "destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
    }));
    mounts
}

/// A new sysfs belongs to its network namespace; with the host's network it can only be the host's.
fn sys(container: &Container) -> Value {
    if container.own_network {
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"] })
    } else {
        json!({ "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] })
    }
}

fn bind(source: &Path, destination: &str, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", access] })
}

fn linux(container: &Container) -> Value {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if container.own_network {
        namespaces.push("network");
    }
    let namespaces: Vec<_> = namespaces.into_iter().map(|kind| json!({ "type": kind })).collect();
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(limit) = container.memory_limit {
        resources["memory"] = json!({ "limit": limit });
    }
    if let Some(most) = container.pids_limit {
        resources["pids"] = json!({ "limit": most });
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "resources": resources,
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    if let Some(seccomp) = &container.seccomp {
        linux["seccomp"] = seccomp.clone();
    }
    linux
}

/// Forbids little, but is a filter, and a filter is what CRIU cannot work under.
pub fn seccomp_filter() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["acct", "kexec_load", "swapon"], "action": "SCMP_ACT_ERRNO" }],
    })
}
