//! The processes of one generation and their memory, as its images show them.

use super::extent::{Extents, Known, extents};
use super::{CompareError, image};
use crate::criu::images::{self, File, Vma};
use crate::repository::read::Opened;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub range: Range<u64>,
    pub what: String,
}

/// A process.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub name: String,
    pub mappings: Vec<Mapping>,
    /// Pages that the generation holds.
    pub present: Extents,
    /// Those that the other generation does not know.
    pub new: Extents,
}

/// Memory that processes share: not addresses but offsets in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared {
    pub present: Extents,
    pub new: Extents,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub processes: BTreeMap<u32, Process>,
    pub shared: BTreeMap<u64, Shared>,
}

impl Tree {
    /// Reads a generation; with `known`, also what of it is not known.
    pub fn read(opened: &Opened, known: Option<&Known>) -> Result<Self, CompareError> {
        let mut tree = Self::default();
        let files = image(opened, "files.img", images::files)?.unwrap_or_default();
        let paths: HashMap<u64, String> = files.iter().filter_map(path).collect();
        for process in image(opened, "pstree.img", images::pstree)?.unwrap_or_default() {
            let pid = process.pid;
            let core = image(opened, &format!("core-{pid}.img"), images::core)?;
            let name = core.and_then(|core| core.task).map(|task| task.name).unwrap_or_default();
            let mut found = Process {
                name: String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned(),
                ..Process::default()
            };
            // A zombie has neither.
            if let Some(mm) = image(opened, &format!("mm-{pid}.img"), images::mm)? {
                found.mappings = mm.vmas.iter().map(|vma| mapping(vma, mm.start_stack, &paths)).collect();
            }
            if let Some(pagemap) = image(opened, &format!("pagemap-{pid}.img"), images::pagemap)? {
                (found.present, found.new) = extents(opened, &pagemap, known)?;
            }
            tree.processes.insert(pid, found);
        }
        let names: Vec<String> = opened.images().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let number = name.strip_prefix("pagemap-shmem-").and_then(|rest| rest.strip_suffix(".img")?.parse().ok());
            let Some(number) = number else { continue };
            if let Some(pagemap) = image(opened, &name, images::pagemap)? {
                let (present, new) = extents(opened, &pagemap, known)?;
                tree.shared.insert(number, Shared { present, new });
            }
        }
        Ok(tree)
    }

    pub fn bytes(&self) -> u64 {
        self.sum(|process| process.present.total(), |shared| shared.present.total())
    }

    pub fn new_bytes(&self) -> u64 {
        self.sum(|process| process.new.total(), |shared| shared.new.total())
    }

    fn sum(&self, process: impl Fn(&Process) -> u64, shared: impl Fn(&Shared) -> u64) -> u64 {
        self.processes.values().map(process).sum::<u64>() + self.shared.values().map(shared).sum::<u64>()
    }
}

fn path(file: &File) -> Option<(u64, String)> {
    let regular = file.regular.as_ref()?;
    let path = regular.path().display().to_string();
    Some((file.id.into(), if path.starts_with('/') { path } else { format!("/{path}") }))
}

/// CRIU's bits of `vma_entry.status` (`criu/include/image.h`).
mod status {
    pub const STACK: u32 = 1 << 1;
    pub const VDSO: u32 = 1 << 3;
    pub const HEAP: u32 = 1 << 5;
    pub const FILE: u32 = 1 << 6 | 1 << 7;
    pub const ANON_SHARED: u32 = 1 << 8;
    pub const SYSV: u32 = 1 << 10;
    pub const VVAR: u32 = 1 << 12;
    pub const MEMFD: u32 = 1 << 14;
}

fn mapping(vma: &Vma, stack: u64, paths: &HashMap<u64, String>) -> Mapping {
    let is = |bits: u32| vma.status & bits != 0;
    let what = match () {
        () if is(status::HEAP) => "heap".to_owned(),
        () if is(status::STACK) || (vma.start..vma.end).contains(&stack) => "stack".to_owned(),
        () if is(status::VDSO | status::VVAR) => "vdso".to_owned(),
        () if is(status::ANON_SHARED | status::SYSV | status::MEMFD) => format!("shared memory {}", vma.file),
        () if is(status::FILE) => paths.get(&vma.file).cloned().unwrap_or_else(|| format!("file {}", vma.file)),
        () => "anonymous".to_owned(),
    };
    Mapping { range: vma.start..vma.end, what }
}
