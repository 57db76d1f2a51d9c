//! One function per image.

use super::error::ImageError;
use super::framing::{Kind, entries};
use super::messages::{
    Core, DumpStats, FdInfo, File, Inventory, Mm, PagemapEntry, PagemapHead, Process, Stats, TtyInfo,
};
use prost::Message;

/// A whole pagemap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pagemap {
    /// N in `pages-N.img`, which holds the present pages in this order and nothing else.
    pub pages_id: u32,
    /// The runs of pages, by address.
    pub runs: Vec<PagemapEntry>,
}

impl Pagemap {
    /// Pages in `pages-N.img`.
    pub fn present_pages(&self) -> u64 {
        self.runs.iter().filter(|run| run.is_present()).fold(0, |sum, run| sum.saturating_add(run.pages()))
    }
}

/// Reads `inventory.img`.
pub fn inventory(image: &[u8]) -> Result<Inventory, ImageError> {
    entries(image, Kind::INVENTORY)?.one()
}

/// Reads `pstree.img`: all processes, parents before their children.
pub fn pstree(image: &[u8]) -> Result<Vec<Process>, ImageError> {
    let mut processes: Vec<Process> = all(image, Kind::PSTREE)?;
    // CRIU 4.2.1 never fills in the only thread of a zombie, and writes what happens to be in its memory.
    for process in &mut processes {
        if let [only] = process.threads.as_mut_slice() {
            *only = process.pid;
        }
    }
    Ok(processes)
}

/// Reads `files.img`.
pub fn files(image: &[u8]) -> Result<Vec<File>, ImageError> {
    all(image, Kind::FILES)
}

/// Reads `fdinfo-N.img`.
pub fn fdinfo(image: &[u8]) -> Result<Vec<FdInfo>, ImageError> {
    all(image, Kind::FDINFO)
}

/// Reads `mm-PID.img`.
pub fn mm(image: &[u8]) -> Result<Mm, ImageError> {
    entries(image, Kind::MM)?.one()
}

/// Reads `core-TID.img`.
pub fn core(image: &[u8]) -> Result<Core, ImageError> {
    entries(image, Kind::CORE)?.one()
}

/// Reads `tty-info.img`.
pub fn tty_info(image: &[u8]) -> Result<Vec<TtyInfo>, ImageError> {
    all(image, Kind::TTY_INFO)
}

/// Reads `pagemap-PID.img` or `pagemap-shmem-N.img`.
pub fn pagemap(image: &[u8]) -> Result<Pagemap, ImageError> {
    let mut head = entries::<PagemapHead>(image, Kind::PAGEMAP)?;
    let pages_id = head.one()?.pages_id;
    Ok(Pagemap { pages_id, runs: head.then().collect::<Result<_, _>>()? })
}

/// Reads `stats-dump`, which CRIU writes as a file even when it streams.
pub fn dump_stats(image: &[u8]) -> Result<DumpStats, ImageError> {
    entries::<Stats>(image, Kind::STATS)?.one()?.dump.ok_or(ImageError::Empty)
}

fn all<M: Message + Default>(image: &[u8], kind: Kind) -> Result<Vec<M>, ImageError> {
    entries(image, kind)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image<M: Message>(kind: Kind, messages: &[M]) -> Vec<u8> {
        let mut image = kind.header();
        for message in messages {
            let entry = message.encode_to_vec();
            image.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
            image.extend(entry);
        }
        image
    }

    fn process(pid: u32, parent: u32) -> Process {
        Process { pid, ppid: parent, pgid: 300, sid: 300, threads: vec![pid, pid + 1] }
    }

    #[test]
    fn reads_a_tree_as_criu_writes_it() {
        // pstree.img of a two-process tree, written by CRIU 4.2.1.
        let bytes = b"\x19\x43\x56\x54\x30\x30\x27\x50\
            \x0a\x00\x00\x00\x08\x03\x10\x00\x18\x03\x20\x03\x28\x03\
            \x0a\x00\x00\x00\x08\x04\x10\x03\x18\x03\x20\x03\x28\x04";
        let tree = pstree(bytes).unwrap();
        assert_eq!(tree.iter().map(|p| (p.pid, p.ppid, p.sid)).collect::<Vec<_>>(), [(3, 0, 3), (4, 3, 3)]);
        assert_eq!(tree[0].threads, [3]);
    }

    #[test]
    fn a_zombie_has_one_thread_itself() {
        let zombie = Process { threads: vec![1_444_042_944], ..process(304, 303) };
        let tree = pstree(&image(Kind::PSTREE, &[process(303, 0), zombie])).unwrap();
        assert_eq!([&tree[0].threads[..], &tree[1].threads[..]].concat(), [303, 304, 304]);
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = image(Kind::PSTREE, &[process(300, 0), process(302, 300)]);
        let first_entry_ends = image(Kind::PSTREE, &[process(300, 0)]).len();
        for cut in 0..whole.len() {
            let result = pstree(&whole[..cut]);
            if cut == 8 || cut == first_entry_ends {
                continue; // Between entries a cut cannot be seen; the store's digests see it.
            }
            assert!(matches!(result, Err(ImageError::Truncated { .. })), "cut at {cut}: {result:?}");
        }
    }

    #[test]
    fn another_kind_is_refused_by_name() {
        let error = mm(&image(Kind::PSTREE, &[process(300, 0)])).unwrap_err();
        assert_eq!(error.to_string(), "is no memory layout image (it begins with 0x50273030)");
    }

    #[test]
    fn a_giant_entry_is_refused() {
        let mut bytes = Kind::FILES.header();
        bytes.extend(u32::MAX.to_le_bytes());
        assert!(matches!(files(&bytes), Err(ImageError::EntryTooLong { at: 8, .. })));
    }

    #[test]
    fn page_counts_are_read_in_both_spellings() {
        let runs = [
            PagemapEntry { address: 0x1000, short_pages: 3, flags: 4, long_pages: None },
            PagemapEntry { address: 0x9000, short_pages: 0, flags: 4, long_pages: Some(1 << 33) },
            PagemapEntry { address: 0x20_0000, short_pages: 7, flags: 1, long_pages: None },
        ];
        let mut bytes = image(Kind::PAGEMAP, &[PagemapHead { pages_id: 5 }]);
        bytes.extend(&image(Kind::PAGEMAP, &runs)[8..]);
        let map = pagemap(&bytes).unwrap();
        assert_eq!((map.pages_id, map.present_pages()), (5, 3 + (1 << 33)));
    }

    #[test]
    fn names_need_not_be_utf8() {
        let regular = RegularFile { name: b"data/\xff".to_vec(), ..Default::default() };
        let file = File { kind: 1, id: 9, regular: Some(regular), ..Default::default() };
        assert_eq!(files(&image(Kind::FILES, std::slice::from_ref(&file))).unwrap(), [file]);
    }

    use super::super::messages::RegularFile;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(magic in 0usize..9, tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let kinds = [Kind::INVENTORY, Kind::PSTREE, Kind::FDINFO, Kind::FILES, Kind::MM, Kind::PAGEMAP, Kind::CORE, Kind::TTY_INFO, Kind::STATS];
            let mut bytes = kinds[magic].header();
            bytes.extend(&tail);
            let _ = (inventory(&bytes), pstree(&bytes), files(&bytes), fdinfo(&bytes), mm(&bytes), pagemap(&bytes), core(&bytes));
            let _ = (tty_info(&bytes), dump_stats(&bytes), pstree(&tail));
        }

        #[test]
        fn processes_come_back_as_they_were(pids in proptest::collection::vec(1u32..1 << 22, 0..20)) {
            let tree: Vec<Process> = pids.iter().map(|pid| process(*pid, 1)).collect();
            prop_assert_eq!(pstree(&image(Kind::PSTREE, &tree)).unwrap(), tree);
        }
    }
}
