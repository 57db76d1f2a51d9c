//! One open descriptor, from `/proc/PID/fd` and `/proc/PID/fdinfo` (see `proc_pid_fd(5)`).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a descriptor refers to, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A kernel object without a file: `eventfd`, `io_uring`, …
    Anonymous(String),
    /// A socket, by its inode, and the kernel's name of its protocol (`TCP`, `UNIX-STREAM`, `ALG`, …).
    Socket {
        /// As in the tables of `/proc/net`.
        inode: u64,
        /// The `system.sockprotoname` attribute; empty if it cannot be read.
        protocol: String,
    },
    /// A device.
    Device {
        /// A block device, else a character device.
        block: bool,
        /// Its number.
        major: u64,
        /// Its number.
        minor: u64,
    },
    /// A regular file whose name was removed.
    Nameless {
        /// Bytes.
        size: u64,
        /// Names that it still has elsewhere.
        links: u64,
        /// It lies on overlayfs: the container's own layer.
        overlay: bool,
    },
    /// A POSIX message queue.
    MessageQueue,
    /// Anything else: files with names, pipes, terminals.
    Ordinary,
}

/// An open descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// Its link text.
    pub link: String,
    /// What it refers to.
    pub object: Object,
    /// Inodes and devices (as the kernel prints them in fdinfo) that an inotify descriptor watches.
    pub watches: Vec<Watch>,
}

/// One inotify watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watch {
    /// Inode.
    pub inode: u64,
    /// Device, in the kernel's own packing: major << 20 | minor.
    pub device: u64,
}

/// Every descriptor of a process; none if it may not be looked into or has ended.
pub fn of(pid: i32) -> Vec<Descriptor> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| read(pid, &entry.path())).collect()
}

fn read(pid: i32, path: &Path) -> Option<Descriptor> {
    let number: i32 = path.file_name()?.to_str()?.parse().ok()?;
    let link = fs::read_link(path).ok()?;
    let link = String::from_utf8_lossy(link.as_os_str().as_bytes()).into_owned();
    let object = match kind_of(&link) {
        Link::Anonymous(name) => Object::Anonymous(name),
        Link::Socket(inode) => Object::Socket { inode, protocol: protocol(path) },
        Link::Other => of_file(path)?,
    };
    let is_watch = matches!(&object, Object::Anonymous(name) if name == "inotify");
    let info = is_watch.then(|| fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()).flatten();
    let watches = info.as_deref().map(watches).unwrap_or_default();
    Some(Descriptor { number, link, object, watches })
}

fn of_file(path: &Path) -> Option<Object> {
    let status = fs::metadata(path).ok()?;
    let kind = status.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        let device = status.rdev();
        return Some(Object::Device {
            block: kind.is_block_device(),
            major: u64::from(libc::major(device)),
            minor: u64::from(libc::minor(device)),
        });
    }
    let link = fs::read_link(path).ok()?;
    // The name of a queue is a single one (`mq_overview(7)`); other files at the root are few.
    let at_root = link.parent() == Some(Path::new("/"));
    if kind.is_file() && at_root && lies_on(path, MESSAGE_QUEUES) {
        return Some(Object::MessageQueue);
    }
    let nameless = kind.is_file() && link.as_os_str().as_bytes().ends_with(b" (deleted)");
    // A memfd is a deleted file by its looks; CRIU knows it.
    let is_memory = link.as_os_str().as_bytes().starts_with(b"/memfd:");
    Some(if nameless && !is_memory {
        Object::Nameless { size: status.size(), links: status.nlink(), overlay: lies_on(path, OVERLAY) }
    } else {
        Object::Ordinary
    })
}

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAY: u64 = 0x794c_7630;
/// `MQUEUE_MAGIC` of ipc/mqueue.c.
const MESSAGE_QUEUES: u64 = 0x1980_0202;

fn lies_on(path: &Path, kind: u64) -> bool {
    rustix::fs::statfs(path).is_ok_and(|system| u64::try_from(system.f_type).is_ok_and(|magic| magic == kind))
}

enum Link {
    Anonymous(String),
    Socket(u64),
    Other,
}

fn kind_of(link: &str) -> Link {
    if let Some(name) = link.strip_prefix("anon_inode:") {
        return Link::Anonymous(name.trim_matches(['[', ']']).to_owned());
    }
    let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    inode.map_or(Link::Other, Link::Socket)
}

/// The name of a socket's protocol, as `lsof` finds it.
fn protocol(path: &Path) -> String {
    let mut buffer = [0_u8; 64];
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut buffer).unwrap_or(0);
    let name = buffer.get(..length).unwrap_or_default();
    String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
}

/// The lines `inotify wd:1 ino:9 sdev:2d mask:…` of fdinfo, numbers in hexadecimal.
fn watches(info: &str) -> Vec<Watch> {
    let field = |line: &str, name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned)?;
        u64::from_str_radix(&value, 16).ok()
    };
    let lines = info.lines().filter(|line| line.starts_with("inotify "));
    lines.filter_map(|line| Some(Watch { inode: field(line, "ino:")?, device: field(line, "sdev:")? })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsRawFd;

    fn mine(fd: i32) -> Descriptor {
        let pid = i32::try_from(std::process::id()).unwrap();
        of(pid).into_iter().find(|descriptor| descriptor.number == fd).unwrap()
    }

    #[test]
    fn names_the_protocol_of_a_socket() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let seen = mine(socket.as_raw_fd());
        assert!(matches!(&seen.object, Object::Socket { protocol, .. } if protocol == "UDP"), "{seen:?}");
    }

    #[test]
    fn tells_a_file_without_a_name_from_others() {
        let mut nameless = tempfile::tempfile().unwrap();
        nameless.write_all(b"1234").unwrap();
        assert_eq!(mine(nameless.as_raw_fd()).object, Object::Nameless { size: 4, links: 0, overlay: false });
        let named = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(mine(named.as_file().as_raw_fd()).object, Object::Ordinary);
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(mine(null.as_raw_fd()).object, Object::Device { block: false, major: 1, minor: 3 });
    }

    #[test]
    fn reads_what_an_inotify_watches() {
        let info = "pos:\t0\nflags:\t00\nmnt_id:\t15\nino:\t2058\n\
                    inotify wd:2 ino:a0b1 sdev:2d mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:b1a0\n";
        assert_eq!(watches(info), [Watch { inode: 0xa0b1, device: 0x2d }]);
    }

    #[test]
    fn kernel_objects_lose_their_brackets() {
        assert!(matches!(kind_of("anon_inode:[io_uring]"), Link::Anonymous(name) if name == "io_uring"));
        assert!(matches!(kind_of("anon_inode:inotify"), Link::Anonymous(name) if name == "inotify"));
        assert!(matches!(kind_of("socket:[4711]"), Link::Socket(4711)));
    }
}
