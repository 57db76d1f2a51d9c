//! Which paths are the container's own and die with it, and which are volumes that live on.
//! Read from `/proc/PID/mountinfo` (see `proc_pid_mountinfo(5)`).

use super::path::RelPath;
use std::fs;
use std::io;

/// To whom a path belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The container's writable layer, a private tmpfs or an emptyDir: travels with the checkpoint.
    Layer,
    /// Storage that outlives the container: recorded, and rolled back where possible.
    Volume,
    /// The kernel's, the runtime's, or read-only: never touched.
    Apart,
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    id: u32,
    parent: u32,
    device: String,
    root: Vec<u8>,
    /// Where it is mounted.
    pub point: RelPath,
    options: String,
    kind: String,
    super_options: String,
}

/// Every mount that the workload sees.
#[derive(Debug, Clone, Default)]
pub struct Mounts {
    mounts: Vec<(Mount, Place)>,
}

/// File systems whose files are the kernel's view of something.
const PSEUDO: &[&str] = &[
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// What container runtimes and the kubelet mount into every container.
const RUNTIME_OWNED: &[&str] = &[
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "dev/termination-log",
    "dev/console",
    "run/.containerenv",
    "run/secrets",
    "var/run/secrets",
];

/// The kubelet's directory for emptyDir volumes, which end with the pod.
const EMPTY_DIR: &[u8] = b"/kubernetes.io~empty-dir/";

impl Mounts {
    /// The mounts of a process.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self::parse(&fs::read(format!("/proc/{pid}/mountinfo"))?))
    }

    /// The mounts of the caller.
    pub fn here() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    /// Parses mountinfo; lines that do not follow its format are left out.
    pub fn parse(text: &[u8]) -> Self {
        let mounts: Vec<Mount> = text.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect();
        let places: Vec<Place> = mounts.iter().map(|mount| place_of(mount, &mounts)).collect();
        Self { mounts: mounts.into_iter().zip(places).collect() }
    }

    /// A root without any other mount, all of it the container's own.
    pub fn only_root() -> Self {
        Self::parse(b"1 0 0:1 / / rw - unknown none rw")
    }

    /// The mount on which a path lies: the last of those with the longest mount point.
    fn covering(&self, path: &RelPath) -> Option<&(Mount, Place)> {
        self.mounts
            .iter()
            .filter(|(mount, _)| path.is_within(&mount.point))
            .max_by_key(|(mount, _)| mount.point.depth())
    }

    /// To whom a path belongs.
    pub fn place(&self, path: &RelPath) -> Place {
        self.covering(path).map_or(Place::Layer, |(_, place)| *place)
    }

    /// The mount point of the file system on which a path lies.
    pub fn point_of(&self, path: &RelPath) -> RelPath {
        self.covering(path).map_or_else(RelPath::root, |(mount, _)| mount.point.clone())
    }

    /// Whether a path lies on a file system that shows the kernel's own state.
    pub fn is_kernels(&self, path: &RelPath) -> bool {
        self.covering(path).is_some_and(|(mount, _)| mount.is_pseudo())
    }

    /// Whether something is mounted exactly here.
    pub fn is_point(&self, path: &RelPath) -> bool {
        self.mounts.iter().any(|(mount, _)| mount.point == *path)
    }

    /// Whether something is mounted below this path or on it, other than the root.
    pub fn any_within(&self, path: &RelPath) -> bool {
        self.mounts.iter().any(|(mount, _)| !mount.point.is_root() && mount.point.is_within(path))
    }

    /// Where the container's own file systems start, each once, the root first.
    pub fn layers(&self) -> Vec<RelPath> {
        let mut points: Vec<RelPath> = self
            .mounts
            .iter()
            .map(|(mount, _)| &mount.point)
            .filter(|p| self.place(p) == Place::Layer)
            .cloned()
            .collect();
        points.sort_by_key(|point| (point.depth(), point.clone()));
        points.dedup();
        points
    }

    /// Where volumes are mounted.
    pub fn volumes(&self) -> impl Iterator<Item = &RelPath> {
        self.mounts
            .iter()
            .filter(|(mount, place)| *place == Place::Volume && !mount.point.is_root())
            .map(|(m, _)| &m.point)
    }

    /// Whether a change below a directory of this mount always shows in the directory's own change
    /// time, so that unchanged directories need not be entered. True for overlayfs, where the first
    /// change of a file copies it and all its directories up; with `index=on` a second name of a
    /// file changes without its directory.
    pub fn shows_changes_upwards(&self, point: &RelPath) -> bool {
        self.covering(point).is_some_and(|(mount, _)| {
            mount.kind == "overlay" && !mount.super_options.split(',').any(|option| option == "index=on")
        })
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        let mut next = || fields.next();
        let id = text(next()?).parse().ok()?;
        let parent = text(next()?).parse().ok()?;
        let device = text(next()?);
        let root = decode(next()?);
        let point = decode(next()?);
        let options = text(next()?);
        while next()? != b"-" {}
        let kind = text(next()?);
        let _source = next()?;
        let super_options = next().map(text).unwrap_or_default();
        let point = RelPath::from_absolute(std::path::Path::new(
            <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&point),
        ))
        .ok()?;
        Some(Self { id, parent, device, root, point, options, kind, super_options })
    }

    fn is_pseudo(&self) -> bool {
        PSEUDO.contains(&self.kind.as_str())
    }

    fn is_read_only(&self) -> bool {
        let has_ro = |options: &str| options.split(',').any(|option| option == "ro");
        has_ro(&self.options) || has_ro(&self.super_options)
    }
}

/// `\040` and the like: what the kernel escapes in mountinfo.
fn decode(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |digit: &u8| (b'0'..=b'7').contains(digit).then(|| u32::from(digit - b'0'));
        let escaped = match tail {
            [a, b, c, ..] if *first == b'\\' => {
                octal(a).zip(octal(b)).zip(octal(c)).and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

fn place_of(mount: &Mount, all: &[Mount]) -> Place {
    let is = |owned: &&str| RelPath::from_bytes(owned.as_bytes()).is_ok_and(|owned| mount.point.is_within(&owned));
    let covers = |upper: &Mount| upper.id == mount.parent && upper.id != mount.id;
    if mount.point.is_root() {
        return Place::Layer;
    }
    if mount.is_pseudo() || mount.is_read_only() || RUNTIME_OWNED.iter().any(is) {
        return Place::Apart;
    }
    // Masks over /proc and /sys.
    if all.iter().any(|upper| covers(upper) && upper.is_pseudo() && upper.kind != "devtmpfs") {
        return Place::Apart;
    }
    let is_whole_tmpfs = matches!(mount.kind.as_str(), "tmpfs" | "ramfs") && mount.root == b"/";
    let is_empty_dir = mount.root.windows(EMPTY_DIR.len()).any(|part| part == EMPTY_DIR);
    let is_same_overlay = mount.kind == "overlay" && all.iter().any(|m| m.point.is_root() && m.device == mount.device);
    if is_whole_tmpfs || is_empty_dir || is_same_overlay { Place::Layer } else { Place::Volume }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POD: &[u8] = b"\
600 500 0:90 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
601 600 0:91 / /proc rw,nosuid - proc proc rw
602 600 0:92 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
603 602 0:93 / /dev/pts rw - devpts devpts rw
604 602 0:94 / /dev/shm rw - tmpfs shm rw,size=65536k
605 602 8:1 /kubelet/pods/1/containers/c/2 /dev/termination-log rw - ext4 /dev/sda1 rw
606 600 8:1 /kubelet/pods/1/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw
607 600 8:1 /kubelet/pods/1/volumes/kubernetes.io~empty-dir/scratch /scratch rw - ext4 /dev/sda1 rw
608 600 0:95 / /data rw - nfs4 server:/export rw
609 600 0:96 / /run/secrets/kubernetes.io/serviceaccount ro - tmpfs tmpfs rw
610 601 0:92 /null /proc/kcore rw - tmpfs tmpfs rw
611 600 0:97 / /my\\040disk rw master:1 shared:2 - ext4 /dev/sdb rw
612 608 0:98 / /data/tmp rw - tmpfs tmpfs rw
613 600 0:99 /jobs/7 /hostshm rw - tmpfs tmpfs rw
";

    #[test]
    fn tells_the_layer_from_volumes() {
        let mounts = Mounts::parse(POD);
        let place = |path: &str| mounts.place(&RelPath::from_absolute(std::path::Path::new(path)).unwrap());
        for own in ["/", "/etc/passwd", "/tmp/x", "/dev/shm/y", "/scratch/z", "/data/tmp/q", "/database"] {
            assert_eq!(place(own), Place::Layer, "{own}");
        }
        for volume in ["/data", "/data/out/log", "/my disk/a", "/hostshm/x"] {
            assert_eq!(place(volume), Place::Volume, "{volume}");
        }
        for apart in [
            "/proc/1/maps",
            "/dev/pts/0",
            "/etc/hosts",
            "/dev/termination-log",
            "/proc/kcore",
            "/run/secrets/kubernetes.io/serviceaccount/token",
        ] {
            assert_eq!(place(apart), Place::Apart, "{apart}");
        }
        let layers: Vec<String> = mounts.layers().iter().map(ToString::to_string).collect();
        assert_eq!(layers, ["/", "/dev", "/scratch", "/data/tmp", "/dev/shm"]);
        assert!(mounts.shows_changes_upwards(&RelPath::root()));
        assert!(!mounts.shows_changes_upwards(&layers_path("scratch")));
    }

    fn layers_path(text: &str) -> RelPath {
        RelPath::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_overlay_with_an_index_is_walked_in_full() {
        let mounts = Mounts::parse(b"1 0 0:5 / / rw - overlay overlay rw,lowerdir=/a,index=on");
        assert!(!mounts.shows_changes_upwards(&RelPath::root()));
    }

    #[test]
    fn reads_this_machines_own() {
        assert_eq!(Mounts::here().unwrap().place(&layers_path("proc/self/maps")), Place::Apart);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_crash(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Mounts::parse(&text).layers();
        }

        #[test]
        fn damaged_lines_are_left_out(cut in 0usize..1200) {
            let mounts = Mounts::parse(&POD[..cut.min(POD.len())]);
            prop_assert!(mounts.mounts.len() <= 14);
        }
    }
}
