//! The messages, with the field numbers of CRIU's `images/*.proto`, as far as we read them.
//!
//! Names of files and processes are bytes: the kernel does not promise UTF-8.

use prost::Message;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `inventory_entry`: the dump as a whole.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Inventory {
    /// Version of the image format; 2 is CRIU's v1.1, the only one that 4.x writes.
    #[prost(uint32, tag = "1")]
    pub image_version: u32,
    /// Monotonic clock of the dumped system, in microseconds; 0 if it was not recorded.
    #[prost(uint64, tag = "8")]
    pub uptime_us: u64,
}

/// `pstree_entry`: one process.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Process {
    /// Its PID.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// PID of its parent; 0 for the root.
    #[prost(uint32, tag = "2")]
    pub ppid: u32,
    /// Its process group.
    #[prost(uint32, tag = "3")]
    pub pgid: u32,
    /// Its session.
    #[prost(uint32, tag = "4")]
    pub sid: u32,
    /// The IDs of all its threads, its own PID among them.
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    pub threads: Vec<u32>,
}

/// What a descriptor refers to (`fd_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs)] // The names are CRIU's and the kernel's.
pub enum FdType {
    Undefined = 0,
    Regular = 1,
    Pipe = 2,
    Fifo = 3,
    InetSocket = 4,
    UnixSocket = 5,
    EventFd = 6,
    EventPoll = 7,
    Inotify = 8,
    SignalFd = 9,
    PacketSocket = 10,
    Tty = 11,
    Fanotify = 12,
    NetlinkSocket = 13,
    Namespace = 14,
    Tun = 15,
    External = 16,
    TimerFd = 17,
    MemFd = 18,
    BpfMap = 19,
    PidFd = 20,
}

/// `fdinfo_entry`: one descriptor of a process.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FdInfo {
    /// The [`File`] that it refers to.
    #[prost(uint32, tag = "1")]
    pub file: u32,
    /// `FD_CLOEXEC` or 0.
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    /// The file's type.
    #[prost(enumeration = "FdType", tag = "3")]
    pub kind: i32,
    /// The descriptor's number.
    #[prost(uint32, tag = "4")]
    pub fd: u32,
}

/// `file_entry`: one open file description. Only the parts that we read.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct File {
    /// Its type.
    #[prost(enumeration = "FdType", tag = "1")]
    pub kind: i32,
    /// Its number within the dump; unique per type of [`FdInfo::kind`].
    #[prost(uint32, tag = "2")]
    pub id: u32,
    /// A regular file, directory or device.
    #[prost(message, optional, tag = "3")]
    pub regular: Option<RegularFile>,
    /// A pipe.
    #[prost(message, optional, tag = "18")]
    pub pipe: Option<PipeFile>,
    /// A terminal.
    #[prost(message, optional, tag = "19")]
    pub tty: Option<TtyFile>,
}

/// `reg_file_entry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegularFile {
    /// Flags of `open(2)`.
    #[prost(uint32, tag = "2")]
    pub flags: u32,
    /// Position, in bytes.
    #[prost(uint64, tag = "3")]
    pub position: u64,
    /// Path, relative to the root (no leading slash on shared mounts).
    #[prost(bytes = "vec", tag = "6")]
    pub name: Vec<u8>,
    /// Size at the dump, in bytes; a restore refuses another one.
    #[prost(uint64, optional, tag = "8")]
    pub size: Option<u64>,
    /// Type and permissions as in `stat(2)`.
    #[prost(uint32, optional, tag = "10")]
    pub mode: Option<u32>,
}

/// `pipe_entry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PipeFile {
    /// The pipe's inode number: `pipe:[N]`.
    #[prost(uint32, tag = "2")]
    pub pipe_id: u32,
    /// Flags of `open(2)`: which end.
    #[prost(uint32, tag = "3")]
    pub flags: u32,
}

/// `tty_file_entry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TtyFile {
    /// The [`TtyInfo`] that it refers to.
    #[prost(uint32, tag = "2")]
    pub tty_info: u32,
    /// Flags of `open(2)`.
    #[prost(uint32, tag = "3")]
    pub flags: u32,
}

/// `tty_info_entry`: one terminal.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TtyInfo {
    /// Its number within the dump.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Session that it controls; 0 for none.
    #[prost(uint32, tag = "6")]
    pub sid: u32,
    /// Foreground process group.
    #[prost(uint32, tag = "7")]
    pub pgrp: u32,
    /// Its device number.
    #[prost(uint32, tag = "8")]
    pub rdev: u32,
    /// Device number of the file system that it is on.
    #[prost(uint32, optional, tag = "13")]
    pub dev: Option<u32>,
}

/// `mm_entry`: the memory layout of one process.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mm {
    /// An address in the main thread's stack.
    #[prost(uint64, tag = "5")]
    pub start_stack: u64,
    /// The [`File`] that it executes.
    #[prost(uint32, tag = "12")]
    pub exe_file: u32,
    /// Its mappings, by address.
    #[prost(message, repeated, tag = "14")]
    pub vmas: Vec<Vma>,
}

/// `vma_entry`: one mapping.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Vma {
    /// First address.
    #[prost(uint64, tag = "1")]
    pub start: u64,
    /// Address behind the last.
    #[prost(uint64, tag = "2")]
    pub end: u64,
    /// Offset in the mapped file, in bytes.
    #[prost(uint64, tag = "3")]
    pub file_offset: u64,
    /// The mapped [`File`], or the shared memory's number; 0 for private anonymous memory.
    #[prost(uint64, tag = "4")]
    pub file: u64,
    /// `PROT_…`
    #[prost(uint32, tag = "5")]
    pub protection: u32,
    /// `MAP_…`
    #[prost(uint32, tag = "6")]
    pub flags: u32,
    /// CRIU's `VMA_…` bits (`criu/include/image.h`).
    #[prost(uint32, tag = "7")]
    pub status: u32,
    /// A bit for each `MADV_…` that holds for it.
    #[prost(uint64, tag = "9")]
    pub advice: u64,
}

/// `pagemap_head`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct PagemapHead {
    /// N in `pages-N.img`.
    #[prost(uint32, tag = "1")]
    pub pages_id: u32,
}

/// `pagemap_entry`: a run of pages.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PagemapEntry {
    /// Address of the first.
    #[prost(uint64, tag = "1")]
    pub address: u64,
    /// How many, as CRIU before 4.1 writes it.
    #[prost(uint32, tag = "2")]
    pub(super) short_pages: u32,
    /// `PE_PRESENT` 4, `PE_LAZY` 2, `PE_PARENT` 1.
    #[prost(uint32, tag = "4")]
    pub flags: u32,
    /// How many, as newer CRIUs write it.
    #[prost(uint64, optional, tag = "5")]
    pub(super) long_pages: Option<u64>,
}

/// `core_entry`: one thread. Only the task's part.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Core {
    /// Present for the main thread of a process.
    #[prost(message, optional, tag = "3")]
    pub task: Option<TaskCore>,
}

/// `task_core_entry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskCore {
    /// 1 alive, 2 dead (a zombie), 3 stopped (`compel/task-state.h`).
    #[prost(uint32, tag = "1")]
    pub state: u32,
    /// The wait status of a zombie.
    #[prost(uint32, tag = "2")]
    pub exit_code: u32,
    /// The process's name, at most 15 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub name: Vec<u8>,
}

/// `stats_entry`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Stats {
    #[prost(message, optional, tag = "1")]
    pub dump: Option<DumpStats>,
}

/// `dump_stats_entry`: what CRIU measured, in the file `stats-dump` of the images directory.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DumpStats {
    /// How long stopping the tree took, in microseconds.
    #[prost(uint32, tag = "1")]
    pub freezing_us: u32,
    /// For how long it was stopped, in microseconds.
    #[prost(uint32, tag = "2")]
    pub frozen_us: u32,
    /// Collecting memory, in microseconds.
    #[prost(uint32, tag = "3")]
    pub memory_dump_us: u32,
    /// Writing memory, in microseconds.
    #[prost(uint32, tag = "4")]
    pub memory_write_us: u32,
    /// Pages looked at.
    #[prost(uint64, tag = "5")]
    pub pages_scanned: u64,
    /// Pages written.
    #[prost(uint64, tag = "7")]
    pub pages_written: u64,
}

impl PagemapEntry {
    /// How many pages the run has.
    pub fn pages(&self) -> u64 {
        self.long_pages.unwrap_or_else(|| self.short_pages.into())
    }

    /// Whether the pages are in this dump's `pages-N.img` (as opposed to a parent dump, or absent).
    pub fn is_present(&self) -> bool {
        self.flags & 4 != 0
    }
}

impl RegularFile {
    /// The path.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.name))
    }
}

impl Vma {
    /// Length, in bytes.
    pub fn length(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}
