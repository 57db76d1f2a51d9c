//! A generation, opened: any byte of any image, in any order, or a whole image into a pipe.
//!
//! Nothing is used that no seal covered: the index, every leaf and every chunk open only if their
//! 128-bit tag matches their content, their object and their place in it (see `crypto`).

mod error;
mod fetch;
mod leaves;
mod plan;
mod send;
mod shelf;
mod walk;
mod window;

pub use error::ReadError;
pub use shelf::SENDERS;

use super::block::PAGE;
use super::crypto::{ChunkId, ObjectId, ObjectKind};
use super::index::{INDEX_LIMIT, Image, Index, Leaf, PackUse, Recipe};
use super::layout;
use super::open::Repository;
use super::recipe::{Entry, Location};
use fetch::{Fetcher, Loader};
use leaves::LeafCache;
use shelf::Shelf;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Content of one batch: large enough for one good request, small enough to keep all loaders busy.
const BLOCK: usize = 2 << 20;

/// A generation's images. Cheap to clone; used from many threads at once.
///
/// But for [`Opened::open`] the methods block: call them outside the runtime's own threads.
#[derive(Debug, Clone)]
pub struct Opened {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fetcher: Fetcher,
    index: Index,
    /// Where each leaf of an image begins, for images that have leaves.
    starts: HashMap<String, Vec<u64>>,
    leaves: LeafCache,
    /// For random access: decompression tables, reused.
    loaders: Mutex<Vec<Loader>>,
    /// For whole images; made when the first is asked for.
    shelf: Mutex<Option<Arc<Shelf>>>,
    /// Most pages in a chunk, as the repository's format says.
    max_chunk: usize,
}

impl Opened {
    /// Reads the index of a generation. `index` and `length` come from the manifest.
    pub async fn open(
        repository: &Repository,
        index: ObjectId,
        length: u64,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, ReadError> {
        let key = layout::index(&index);
        if length > INDEX_LIMIT {
            return Err(ReadError::damaged(&key, "the manifest promises an index of an impossible size"));
        }
        let bytes = repository.store.get(&key, length).await?;
        if bytes.len() as u64 != length {
            return Err(ReadError::damaged(&key, "it is not as long as the manifest says"));
        }
        let mut bytes = Vec::from(bytes);
        let object = repository.crypt.for_object(ObjectKind::Index, &index);
        object.open(0, &[], &mut bytes).map_err(|error| ReadError::damaged(&key, error))?;
        let index = Index::decode(&bytes).map_err(|error| ReadError::damaged(&key, error))?;
        Ok(Self::from_index(repository, index, runtime))
    }

    fn from_index(repository: &Repository, index: Index, runtime: &tokio::runtime::Handle) -> Self {
        let starts = index.images.iter().filter_map(|(name, image)| match &image.recipe {
            Recipe::Inline(_) => None,
            Recipe::Leaves(leaves) => {
                let starts = leaves.iter().scan(0u64, |end, leaf| {
                    let start = *end;
                    *end += leaf.covers;
                    Some(start)
                });
                Some((name.clone(), starts.collect()))
            }
        });
        Self {
            inner: Arc::new(Inner {
                fetcher: Fetcher::new(repository, &index.packs, runtime),
                starts: starts.collect(),
                leaves: LeafCache::default(),
                loaders: Mutex::default(),
                shelf: Mutex::default(),
                max_chunk: repository.format.chunking.max_bytes(),
                index,
            }),
        }
    }

    /// The length of an image in bytes; none when the generation has no such image.
    pub fn image(&self, name: &str) -> Option<u64> {
        self.inner.index.images.get(name).map(|image| image.length)
    }

    /// Names and lengths of all images, by name.
    pub fn images(&self) -> impl Iterator<Item = (&str, u64)> {
        self.inner.index.images.iter().map(|(name, image)| (name.as_str(), image.length))
    }

    /// Where everything is.
    pub(in crate::repository) fn index(&self) -> &Index {
        &self.inner.index
    }

    /// The packs that the generation needs.
    pub fn packs(&self) -> &[PackUse] {
        &self.inner.index.packs
    }

    /// Fills `buffer` from an image, from `offset` on. Returns the bytes read: fewer than asked for
    /// only at the end of the image. Reads the leaf and the chunks concerned, nothing before them.
    pub fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.inner.with_loader(|loader| self.inner.read_at(loader, name, offset, buffer))
    }

    /// The same, where what follows will be asked for soon: it is fetched ahead from a store that takes its time.
    pub fn read_on(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.inner.with_loader(|loader| self.inner.read_at(loader.in_order(true), name, offset, buffer))
    }

    /// How many threads keep the store busy.
    pub fn parallelism(&self) -> usize {
        self.inner.fetcher.parallelism()
    }

    /// Whether chunks come from a directory, without a server in between.
    pub fn is_local(&self) -> bool {
        self.inner.fetcher.is_local()
    }

    /// A whole image of at most `limit` bytes, for the small ones.
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let length = self.image(name).ok_or_else(|| ReadError::NoSuchImage(name.to_owned()))?;
        if length > limit {
            return Err(ReadError::TooLarge { name: name.to_owned(), length, limit });
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.read_at(name, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Streams a whole image into a pipe (or file), reading ahead on all cores. Returns the bytes
    /// sent: all, unless the reader closed the pipe before.
    pub fn send(&self, name: &str, pipe: BorrowedFd<'_>) -> Result<u64, ReadError> {
        send::send(&self.inner, name, pipe)
    }

    /// Calls `each` with every chunk of every image, and every leaf, until it says false. The number
    /// is that of the leaf in [`Opened::leaves`], if the chunk is listed in one.
    pub fn each_chunk(&self, mut each: impl FnMut(&ChunkId, &Location, Option<u32>) -> bool) -> Result<(), ReadError> {
        self.inner.with_loader(|loader| {
            let mut first = 0;
            for image in self.inner.index.images.values() {
                if !self.inner.each_chunk(loader.in_order(true), image, first, &mut each)? {
                    break;
                }
                if let Recipe::Leaves(leaves) = &image.recipe {
                    first += u32::try_from(leaves.len()).unwrap_or(u32::MAX);
                }
            }
            Ok(())
        })
    }

    /// The leaves of all recipes, image after image.
    pub fn leaves(&self) -> Vec<Leaf> {
        let recipes = self.inner.index.images.values().map(|image| &image.recipe);
        recipes
            .filter_map(|recipe| match recipe {
                Recipe::Leaves(leaves) => Some(leaves),
                Recipe::Inline(_) => None,
            })
            .flatten()
            .copied()
            .collect()
    }

    /// The entries of a leaf.
    pub fn leaf_entries(&self, leaf: &Leaf) -> Result<Arc<Vec<Entry>>, ReadError> {
        self.inner.with_loader(|loader| self.inner.leaf(loader, leaf))
    }
}

impl Inner {
    fn find(&self, name: &str) -> Result<&Image, ReadError> {
        self.index.images.get(name).ok_or_else(|| ReadError::NoSuchImage(name.to_owned()))
    }

    fn with_loader<T>(&self, body: impl FnOnce(&mut Loader) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let idle = self.loaders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut loader = match idle {
            Some(loader) => loader,
            None => Loader::new()?,
        };
        let result = body(loader.in_order(false));
        self.loaders.lock().unwrap_or_else(PoisonError::into_inner).push(loader);
        result
    }

    /// The blocks that all images of this generation are decoded into.
    fn shelf(&self) -> Result<Arc<Shelf>, ReadError> {
        let mut kept = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*kept {
            return Ok(Arc::clone(made));
        }
        let large = self.index.images.values().filter(|image| image.length > BLOCK as u64).count();
        // Each loader has one at work and one ahead; the pipe holds on to a MiB; the sender has one.
        let wanted = 2 * self.fetcher.parallelism() + 4;
        let made = Shelf::new(large, wanted, BLOCK.max(self.max_chunk + PAGE))
            .map_err(|error| ReadError::system("map memory for blocks", error))?;
        Ok(Arc::clone(kept.insert(Arc::new(made))))
    }
}
