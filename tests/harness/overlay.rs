//! A root file system of its own for each container: an overlay on a Debian that is only read.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};

/// Mount a fresh writable view of `lower`, with everything that it needs below `scratch`.
/// Undone by [`unmount_below`].
pub fn mount_on(lower: &Path, scratch: &Path) -> PathBuf {
    let layers = scratch.join("layers");
    let merged = scratch.join("rootfs");
    std::fs::create_dir_all(&layers).unwrap();
    std::fs::create_dir_all(&merged).unwrap();
    if let Err(first) = try_mount(lower, &layers, &merged) {
        // The upper layer may not lie on another overlay, as it does when tests run in a container.
        let none: Option<&str> = None;
        mount(Some("tmpfs"), &layers, Some("tmpfs"), MsFlags::empty(), none)
            .and_then(|()| try_mount(lower, &layers, &merged))
            .unwrap_or_else(|second| {
                panic!("cannot mount an overlay: {first}; with tmpfs: {second}. Tests need root.")
            });
    }
    merged
}

fn try_mount(lower: &Path, layers: &Path, merged: &Path) -> nix::Result<()> {
    let (upper, work) = (layers.join("upper"), layers.join("work"));
    std::fs::create_dir_all(&upper).unwrap();
    std::fs::create_dir_all(&work).unwrap();
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
}

/// Unmount everything below a directory, the innermost first.
pub fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let below: Vec<_> = targets.filter(|target| target.starts_with(directory)).collect();
    for target in below.into_iter().rev() {
        let _ = umount2(target, MntFlags::MNT_DETACH);
    }
}
