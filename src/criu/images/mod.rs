//! Reading the few CRIU images that we need to understand. Pure: bytes in, messages out.
//!
//! An image is a magic number or two, then entries: a little-endian `u32` length and a protobuf.
//! Messages hold only the fields that we read; unknown ones are skipped, so newer CRIUs stay
//! readable. Images may come from a damaged or hostile store: every length is checked before use.

mod error;
mod framing;
mod messages;
mod read;
mod timers;

pub use error::ImageError;
pub use messages::{
    Core, DumpStats, FdInfo, FdType, File, Inventory, Mm, PagemapEntry, PipeFile, Process, RegularFile, TaskCore,
    TtyFile, TtyInfo, Vma,
};
pub use read::{Pagemap, core, dump_stats, fdinfo, files, inventory, mm, pagemap, pstree, tty_info};
pub use timers::ring_overdue;
