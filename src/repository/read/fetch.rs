//! Ranges of packs, opened and decompressed into place.

use super::error::ReadError;
use super::window::Windows;
use crate::repository::codec::Decompressor;
use crate::repository::crypto::{Crypt, ObjectId, ObjectKind};
use crate::repository::index::PackUse;
use crate::repository::layout;
use crate::repository::open::Repository;
use crate::repository::recipe::Location;
use crate::store::{Store, StoreError};
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Chunks in one pack whose gap is at most this are fetched by one request.
const GAP: u64 = 32 << 10;
/// The most bytes of one request, which each loader keeps room for; eight images have forty loaders at most.
const REQUEST: u64 = 1 << 20;
/// Pack files that are kept open.
const OPEN_FILES: usize = 32;

/// A chunk and where its content goes in a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub at: Location,
    pub into: Range<usize>,
}

/// Gets ranges of packs from the store: by pread where the store is a directory.
#[derive(Debug)]
pub(super) struct Fetcher {
    store: Store,
    crypt: Crypt,
    runtime: tokio::runtime::Handle,
    local: Option<PathBuf>,
    files: Mutex<VecDeque<(ObjectId, Arc<File>)>>,
    windows: Windows,
}

impl Fetcher {
    pub fn new(repository: &Repository, packs: &[PackUse], runtime: &tokio::runtime::Handle) -> Self {
        Self {
            store: repository.store.clone(),
            crypt: repository.crypt.clone(),
            runtime: runtime.clone(),
            local: repository.store.is_local().map(PathBuf::from),
            files: Mutex::default(),
            windows: Windows::new(&repository.store, runtime, packs),
        }
    }

    /// Whether the store is a directory.
    pub fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// What was read of this pack does not open. Whether it may do when it is read again, from the store itself.
    fn forget(&self, pack: &ObjectId) -> bool {
        if self.local.is_some() || !self.store.forget(&layout::pack(pack)) {
            return false;
        }
        self.windows.forget_pack(pack);
        true
    }

    /// How many loaders keep this store busy: cores for a directory, more where answers take their time.
    pub fn parallelism(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        if self.local.is_some() { cores } else { (2 * cores).clamp(8, 32) }
    }

    fn file(&self, pack: &ObjectId) -> Result<Option<Arc<File>>, ReadError> {
        let Some(directory) = &self.local else { return Ok(None) };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = files.iter().position(|(id, _)| id == pack) {
            let found = files.remove(place);
            files.extend(found.clone());
            return Ok(found.map(|(_, file)| file));
        }
        let key = layout::pack(pack);
        let file = match File::open(directory.join(&key)) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ReadError::damaged(&key, "it is gone"));
            }
            Err(error) => return Err(out_of_reach(&key, &error)),
        };
        if files.len() == OPEN_FILES {
            files.pop_front();
        }
        files.push_back((*pack, Arc::clone(&file)));
        Ok(Some(file))
    }

    fn range(&self, pack: &ObjectId, range: Range<u64>, ahead: bool, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if let Some(file) = self.file(pack)? {
            // Reused memory: only a longer request than any before touches new pages.
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            buffer.truncate(length);
            return match file.read_exact_at(buffer, range.start) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Err(ReadError::damaged(&layout::pack(pack), "it is cut off"))
                }
                other => other.map_err(|error| out_of_reach(&layout::pack(pack), &error)),
            };
        }
        if self.windows.read(pack, &range, ahead, buffer)? {
            return Ok(());
        }
        let bytes = self.runtime.block_on(self.store.get_range(&layout::pack(pack), range))?;
        if bytes.len() != length {
            return Err(ReadError::damaged(&layout::pack(pack), "the store answered with another length"));
        }
        buffer.clear();
        buffer.extend_from_slice(&bytes);
        Ok(())
    }
}

/// A volume that does not answer (a stale mount, an input error) is a store out of reach, not damage.
fn out_of_reach(key: &str, error: &std::io::Error) -> ReadError {
    StoreError::Unreachable {
        store: "the store's volume".to_owned(),
        reason: format!("{key}: {error}"),
        tried: Duration::ZERO,
    }
    .into()
}

/// One thread's buffers and tables.
#[derive(Debug)]
pub(super) struct Loader {
    decompressor: Decompressor,
    sealed: Vec<u8>,
    /// It goes through an image, so what follows will be wanted.
    ahead: bool,
}

impl Loader {
    /// Whether what is loaded next lies behind what is loaded now.
    pub fn in_order(&mut self, ahead: bool) -> &mut Self {
        self.ahead = ahead;
        self
    }

    pub fn new() -> Result<Self, ReadError> {
        let decompressor = Decompressor::new().map_err(|error| ReadError::system("prepare a decompressor", error))?;
        Ok(Self { decompressor, sealed: Vec::new(), ahead: false })
    }

    /// Fills the wanted places of `out`. Neighbours in a pack are fetched together.
    pub fn load(&mut self, fetcher: &Fetcher, wanted: &[Wanted], out: &mut [u8]) -> Result<(), ReadError> {
        let mut rest = wanted;
        while let Some(first) = rest.first() {
            let start = u64::from(first.at.offset);
            let mut end = start + u64::from(first.at.stored);
            let mut count = 1;
            for next in &rest[1..] {
                let offset = u64::from(next.at.offset);
                let near = next.at.pack == first.at.pack && offset >= end && offset - end <= GAP;
                let last = offset + u64::from(next.at.stored);
                if !near || last - start > REQUEST {
                    break;
                }
                (end, count) = (last, count + 1);
            }
            let (group, after) = rest.split_at(count);
            self.load_group(fetcher, group, start..end, out)?;
            rest = after;
        }
        Ok(())
    }

    fn load_group(
        &mut self,
        fetcher: &Fetcher,
        group: &[Wanted],
        range: Range<u64>,
        out: &mut [u8],
    ) -> Result<(), ReadError> {
        let Some(pack) = group.first().map(|wanted| wanted.at.pack) else { return Ok(()) };
        match self.open_group(fetcher, &pack, group, range.clone(), out) {
            // A cache is never trusted: what it holds may be damaged, and the store whole.
            Err(error) if error.is_damage() && fetcher.forget(&pack) => {
                self.open_group(fetcher, &pack, group, range, out)
            }
            result => result,
        }
    }

    fn open_group(
        &mut self,
        fetcher: &Fetcher,
        pack: &ObjectId,
        group: &[Wanted],
        range: Range<u64>,
        out: &mut [u8],
    ) -> Result<(), ReadError> {
        let start = range.start;
        fetcher.range(pack, range, self.ahead, &mut self.sealed)?;
        let object = fetcher.crypt.for_object(ObjectKind::Pack, pack);
        for wanted in group {
            let damaged = |reason: &dyn std::fmt::Display| {
                let at = wanted.at.offset;
                ReadError::damaged(&layout::pack(pack), format_args!("{reason} (chunk at {at})"))
            };
            let from = usize::try_from(u64::from(wanted.at.offset) - start).unwrap_or(usize::MAX);
            let sealed = self.sealed.get_mut(from..).and_then(|rest| rest.get_mut(..wanted.at.stored as usize));
            let sealed = sealed.ok_or_else(|| damaged(&"it is cut off"))?;
            let stored =
                object.open_slice(u64::from(wanted.at.offset), &[], sealed).map_err(|error| damaged(&error))?;
            let place = out.get_mut(wanted.into.clone()).ok_or(ReadError::Aborted)?;
            self.decompressor.decompress(stored, place).map_err(|error| damaged(&error))?;
        }
        Ok(())
    }
}
