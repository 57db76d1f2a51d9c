//! What the kernel offers, by the files that it shows only when it does.

use super::Check;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::workload::pid_cursor;
use nix::sys::utsname::uname;
use std::path::Path;

/// Shown with `CONFIG_CHECKPOINT_RESTORE` only (`kernel/pid_namespace.c`).
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Shown with `CONFIG_PROC_CHILDREN` only (`fs/proc/base.c`).
const CHILDREN: &str = "/proc/self/task";

pub(super) fn checks() -> Vec<Check> {
    vec![features(), cursor()]
}

fn features() -> Check {
    let release = uname().map_or_else(|_| "unknown".into(), |name| name.release().to_string_lossy().into_owned());
    let lacking: Vec<&str> =
        [(Path::new(LAST_PID).exists(), "CONFIG_CHECKPOINT_RESTORE"), (has_children_file(), "CONFIG_PROC_CHILDREN")]
            .into_iter()
            .filter_map(|(there, name)| (!there).then_some(name))
            .collect();
    if lacking.is_empty() {
        return Check::good("kernel", format!("{release}, with what checkpoints need"));
    }
    Check::bad(
        "kernel",
        &Problem::new(
            Exit::CriuUnusable,
            format!("{release}, without {}", lacking.join(", ")),
            "the node's kernel was built without what checkpoints need, or /proc is not mounted as usual",
            "use a node with a distribution's kernel; mount /proc in the container",
        ),
    )
}

fn has_children_file() -> bool {
    let thread = nix::unistd::gettid();
    Path::new(CHILDREN).join(thread.to_string()).join("children").exists()
}

/// Pushing the cursor is what `revenant run` does before it starts the workload.
fn cursor() -> Check {
    match pid_cursor::push() {
        Ok(at) => {
            Check::good("PID cursor", format!("at {at}, above the {} that restores keep free", pid_cursor::RESERVED))
        }
        Err(error) => Check::limited(
            "PID cursor",
            error.to_string(),
            "a restore may find PIDs of the workload taken by revenant's own processes",
            "mount /proc in the container as usual",
        ),
    }
}
