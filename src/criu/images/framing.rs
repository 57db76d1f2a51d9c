//! Magic numbers and length-prefixed entries (CRIU's `criu/include/magic.h` names the numbers).

use super::error::ImageError;
use prost::Message;
use std::marker::PhantomData;

/// In front of every image's own magic number, but for the inventory.
const COMMON: u32 = 0x5456_4319;
/// The same for files that are no images, such as statistics.
const SERVICE: u32 = 0x5510_5940;

/// Longest entry that we decode. The longest that occur list a process's mappings: about 60 bytes
/// each, and more than a million of them would be needed.
const LONGEST_ENTRY: usize = 64 << 20;

/// A kind of image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub name: &'static str,
    pub magic: u32,
    lead: Option<u32>,
}

impl Kind {
    pub const INVENTORY: Self = Self { name: "inventory", magic: 0x5831_3116, lead: None };
    pub const PSTREE: Self = Self::common("process tree", 0x5027_3030);
    pub const FDINFO: Self = Self::common("descriptor", 0x5621_3732);
    pub const FILES: Self = Self::common("file", 0x5630_3138);
    pub const MM: Self = Self::common("memory layout", 0x5749_2820);
    pub const PAGEMAP: Self = Self::common("pagemap", 0x5608_4025);
    pub const CORE: Self = Self::common("core", 0x5505_3847);
    pub const TTY_INFO: Self = Self::common("terminal", 0x5945_3036);
    pub const STATS: Self = Self { name: "statistics", magic: 0x5709_3306, lead: Some(SERVICE) };

    const fn common(name: &'static str, magic: u32) -> Self {
        Self { name, magic, lead: Some(COMMON) }
    }

    /// The bytes in front of the first entry.
    #[cfg(test)]
    pub fn header(self) -> Vec<u8> {
        self.lead.into_iter().chain([self.magic]).flat_map(u32::to_le_bytes).collect()
    }
}

/// The entries of an image, decoded one by one. After an error there is no further one.
pub(super) struct Entries<'a, M> {
    image: &'a [u8],
    at: usize,
    message: PhantomData<M>,
}

/// Checks the magic numbers.
pub(super) fn entries<M: Message + Default>(image: &[u8], kind: Kind) -> Result<Entries<'_, M>, ImageError> {
    let mut at = 0;
    for expected in kind.lead.into_iter().chain([kind.magic]) {
        let found = number(image, at).ok_or(ImageError::Truncated { at })?;
        if found != expected {
            return Err(ImageError::WrongKind { expected: kind.name, found });
        }
        at += 4;
    }
    Ok(Entries { image, at, message: PhantomData })
}

impl<'a, M: Message + Default> Entries<'a, M> {
    /// The same place in the image, for entries of another type.
    pub fn then<N>(self) -> Entries<'a, N> {
        Entries { image: self.image, at: self.at, message: PhantomData }
    }

    /// The next entry, which must exist.
    pub fn one(&mut self) -> Result<M, ImageError> {
        self.next().unwrap_or(Err(ImageError::Empty))
    }

    fn decode(&mut self) -> Result<M, ImageError> {
        let at = self.at;
        let length = number(self.image, at).ok_or(ImageError::Truncated { at })? as usize;
        if length > LONGEST_ENTRY {
            return Err(ImageError::EntryTooLong { at, length });
        }
        let start = at + 4;
        let entry = self.image.get(start..start + length).ok_or(ImageError::Truncated { at })?;
        self.at = start + length;
        M::decode(entry).map_err(|error| ImageError::Undecodable { at, reason: error.to_string() })
    }
}

impl<M: Message + Default> Iterator for Entries<'_, M> {
    type Item = Result<M, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.image.len() {
            return None;
        }
        let entry = self.decode();
        if entry.is_err() {
            self.at = self.image.len();
        }
        Some(entry)
    }
}

fn number(image: &[u8], at: usize) -> Option<u32> {
    let bytes = image.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}
