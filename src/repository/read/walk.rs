//! An image's recipe from front to back, for those who compare and do not read.

use super::error::ReadError;
use super::{Inner, Opened};
use crate::repository::index::Recipe;
use crate::repository::recipe::{Entry, Location};
use std::ops::Range;

impl Opened {
    /// Calls `each` with every entry of an image's recipe, in order. Nothing but leaves is read.
    pub fn each_entry(&self, name: &str, mut each: impl FnMut(&Entry)) -> Result<(), ReadError> {
        let inner: &Inner = &self.inner;
        match &inner.find(name)?.recipe {
            Recipe::Inline(entries) => entries.iter().for_each(each),
            Recipe::Leaves(leaves) => {
                for leaf in leaves {
                    inner.with_loader(|loader| inner.leaf(loader, leaf))?.iter().for_each(&mut each);
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with every part of an image, in order, and where it is stored; none for zeros, and for the whole of a
    /// leaf that lies where `look_into` does not want to look. Ends as soon as `each` says false.
    pub fn each_part(
        &self,
        name: &str,
        look_into: impl Fn(&Location) -> bool,
        mut each: impl FnMut(Range<u64>, Option<&Location>) -> bool,
    ) -> Result<(), ReadError> {
        let inner: &Inner = &self.inner;
        let mut end = 0;
        let mut entry = |entry: &Entry| {
            let start = end;
            end += entry.len();
            match entry {
                Entry::Zero(_) => each(start..end, None),
                Entry::Chunk { at, .. } => each(start..end, Some(at)),
            }
        };
        match &inner.find(name)?.recipe {
            Recipe::Inline(entries) => {
                entries.iter().all(entry);
            }
            Recipe::Leaves(leaves) => {
                for leaf in leaves {
                    let goes_on = if look_into(&leaf.at) {
                        inner.with_loader(|loader| inner.leaf(loader, leaf))?.iter().all(&mut entry)
                    } else {
                        entry(&Entry::Zero(leaf.covers))
                    };
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
