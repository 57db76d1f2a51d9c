//! New packs that are being filled, one after the other.

use super::{RepackError, Work};
use crate::repository::codec::bound;
use crate::repository::crypto::ObjectId;
use crate::repository::layout;
use crate::repository::pack::PackBuilder;
use crate::repository::recipe::Location;
use std::collections::HashMap;

/// A pack is closed at this size.
const SIZE: usize = 16 << 20;

/// The pack that takes what comes.
pub(super) struct Filling<'a> {
    work: &'a Work,
    open: Option<PackBuilder>,
    /// Sizes of the packs that were stored.
    sizes: HashMap<ObjectId, u64>,
}

impl<'a> Filling<'a> {
    pub fn new(work: &'a Work) -> Self {
        Self { work, open: None, sizes: HashMap::new() }
    }

    /// Takes a chunk as it was stored (codec byte and payload), opened. It is sealed for its new place.
    pub fn push(&mut self, stored: &[u8], plain: usize) -> Result<Location, RepackError> {
        Ok(self.pack(stored.len())?.push(stored, plain))
    }

    /// Takes a chunk as it is.
    pub fn push_raw(&mut self, plain: &[u8]) -> Result<Location, RepackError> {
        Ok(self.pack(plain.len())?.push_raw(plain))
    }

    fn pack(&mut self, length: usize) -> Result<&mut PackBuilder, RepackError> {
        if self.open.as_ref().is_some_and(|pack| pack.len() + bound(length) + 64 > SIZE && !pack.is_empty()) {
            self.close()?;
        }
        Ok(self.open.get_or_insert_with(|| PackBuilder::new(&self.work.repository.crypt, Vec::new())))
    }

    /// Stores the pack that is open, if there is one.
    pub fn close(&mut self) -> Result<(), RepackError> {
        let Some(pack) = self.open.take() else { return Ok(()) };
        let (id, bytes) = (pack.id(), pack.finish());
        self.sizes.insert(id, bytes.len() as u64);
        // Its name is random: "already exists" is an earlier try of this very put.
        let _ = self.work.wait(self.work.repository.store.put_new(&layout::pack(&id), bytes.into()))?;
        crate::failpoint!("repack.pack.stored");
        Ok(())
    }

    /// The size of a pack that was stored here.
    pub fn size(&self, pack: &ObjectId) -> Option<u64> {
        self.sizes.get(pack).copied()
    }
}
