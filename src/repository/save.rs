//! A save in progress: streams of image bytes in, packs and an index out.
//!
//! ```text
//! pipe ─read→ block ─cut→ spans ─hash→ known?  ── yes ──────────────────→ recipe ─→ leaves
//!                                        └ no ─→ compress ─seal→ pack ─→ upload │ spool ─→ upload
//! ```
//!
//! Readers run on the caller's threads, hashing and packing on worker threads, uploads on the
//! runtime. Every stage is bounded by the buffers it needs; whoever is behind holds up the pipe in
//! front of it. The first failure anywhere closes all of it, so that readers return at once.
//! `docs/hot-path.md` accounts for the costs.

mod assembly;
mod engine;
mod error;
mod intake;
mod memento;
mod pace;
mod recognizer;
mod recollection;
mod relay;
mod spool;
mod uploads;

pub use error::SaveError;
pub use intake::{Correction, WarmStream};

use super::chunker::Chunking;
use super::codec::Compression;
use super::crypto::ObjectId;
use super::index::PackUse;
use super::open::Repository;
use super::read::Opened;
use engine::Engine;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use zeroize::Zeroizing;

/// How a save goes about it.
#[derive(Debug, Clone)]
pub struct SaveOptions {
    /// How new chunks are compressed.
    pub compression: Compression,
    /// The most memory that the save takes, in bytes: buffers, tables, recipes. At least 64 MiB.
    pub memory_limit: usize,
    /// Where new chunks go when memory is full and the store is slow.
    pub spool: Option<Spool>,
    /// Threads that hash, compress and encrypt. 0: one for each core that this process may use.
    pub workers: usize,
    /// Packs that are uploaded at the same time.
    pub uploads: usize,
    /// The most memory for the table of known chunks, part of `memory_limit`; 0: a fifth of it.
    pub table_limit: usize,
}

/// A local directory that takes packs until they are uploaded. They are sealed as in the store; the
/// files have no name, so nothing of them outlives the process.
#[derive(Debug, Clone)]
pub struct Spool {
    /// The directory.
    pub dir: PathBuf,
    /// The most bytes that are there at a time.
    pub limit: u64,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Auto,
            memory_limit: 200 << 20,
            spool: None,
            workers: 0,
            uploads: 3,
            table_limit: 0,
        }
    }
}

/// How far a save is. All in bytes, all growing but `buffered_bytes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaveProgress {
    /// Of images, taken in so far (zeros included).
    pub image_bytes: u64,
    /// Read ahead of the images.
    pub warmed_bytes: u64,
    /// Content that the repository did not have.
    pub new_bytes: u64,
    /// The same, compressed and sealed.
    pub stored_bytes: u64,
    /// Of packs, durable in the store.
    pub uploaded_bytes: u64,
    /// Of packs, waiting in memory or in the spool.
    pub buffered_bytes: u64,
}

/// What a finished save has put into the store. Nothing refers to it until a manifest does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The index object: its identity.
    pub index: ObjectId,
    /// Length of the index object, in bytes.
    pub index_length: u64,
    /// Every pack that the generation needs, new and old, sorted by identity.
    pub packs: Vec<PackUse>,
    /// The packs that this save wrote.
    pub new_packs: Vec<ObjectId>,
    /// Names and lengths of the images, in bytes.
    pub images: Vec<(String, u64)>,
    /// Final figures. `stored_bytes` counts chunks and recipes, not the index object.
    pub progress: SaveProgress,
}

/// A save in progress.
///
/// The runtime must have threads of its own: the methods here block.
#[derive(Debug)]
pub struct Save {
    engine: Arc<Engine>,
    workers: Vec<JoinHandle<()>>,
}

/// Looks on while a save goes about it.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Engine>);

impl Watch {
    /// How far the save is.
    pub fn progress(&self) -> SaveProgress {
        self.0.progress()
    }

    /// What the save hands to the next one of this container, once it has [settled](Save::settle): see
    /// [`Save::recall`]. It holds a secret and the names of chunks. None where nothing was stored ahead.
    pub fn memento(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.0.memento()
    }
}

impl Save {
    /// Starts a save. Returns before the parent's index is loaded, so that CRIU can start at once.
    ///
    /// Chunks of the parent are not stored again. The caller vouches that no prune removes the
    /// parent's packs before this save is committed.
    pub fn begin(
        repository: &Repository,
        parent: Option<&Opened>,
        options: &SaveOptions,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, SaveError> {
        let engine = Arc::new(Engine::new(repository, parent.is_some(), options, runtime)?);
        let mut save = Self { engine, workers: Vec::new() };
        if let Some(parent) = parent {
            let (engine, parent) = (Arc::clone(&save.engine), parent.clone());
            save.spawn("save-parent", move || engine.learn(&parent))?;
        }
        for number in 0..save.engine.workers {
            let engine = Arc::clone(&save.engine);
            save.spawn("save-worker", move || engine.work(number))?;
        }
        Ok(save)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), SaveError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.workers.push(thread.map_err(|error| SaveError::system("start a thread", error))?);
        Ok(())
    }

    /// Takes in what an earlier save of the same container has handed on ([`Watch::memento`]), so that what has not
    /// changed since need not be named again. To be called before anything is stored. False when it is of no use.
    pub fn recall(&self, memento: &[u8]) -> bool {
        self.engine.recall(memento)
    }

    /// Whether it knows what an earlier save has read.
    pub fn recalls(&self) -> bool {
        self.engine.recalls()
    }

    /// Takes an image in from a pipe (or file), until its end. Blocks; one thread for each image.
    /// Returns the image's length in bytes.
    pub fn store_pages(&self, name: &str, pipe: BorrowedFd<'_>) -> Result<u64, SaveError> {
        intake::read(&self.engine, name, &[], pipe, None)
    }

    /// The same for an image whose `beginning` was read already, with a correction of its pages.
    pub fn store_stream(
        &self,
        name: &str,
        beginning: &[u8],
        pipe: BorrowedFd<'_>,
        correction: Option<Correction<'_>>,
    ) -> Result<u64, SaveError> {
        intake::read(&self.engine, name, beginning, pipe, correction)
    }

    /// Takes a whole image in.
    pub fn store_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
        intake::store(&self.engine, name, bytes)
    }

    /// How memory is cut.
    pub fn chunking(&self) -> Chunking {
        self.engine.chunking()
    }

    /// A stream of memory that is stored ahead, before the images that will hold it: for each run of
    /// contiguous pages, in the order in which the pages image will have them.
    pub fn warm(&self) -> Result<WarmStream, SaveError> {
        WarmStream::new(&self.engine)
    }

    /// The end of what is stored ahead: waits until it has been named and packed, so that the images
    /// find buffers and cores free, and recognize what has not changed since. Packs may still be on
    /// their way to the store.
    pub fn settle(&self) -> Result<(), SaveError> {
        self.engine.settle()
    }

    /// How far it is.
    pub fn progress(&self) -> SaveProgress {
        self.engine.progress()
    }

    /// Tells how far it is, also while it is being finished.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.engine))
    }

    /// Stores the rest: waits until all packs and the index are durable. The caller commits the manifest.
    pub async fn finish(mut self) -> Result<Stored, SaveError> {
        let engine = Arc::clone(&self.engine);
        let finishing = engine.runtime.clone().spawn_blocking(move || {
            let stored = engine.finish();
            self.stop(&SaveError::Aborted);
            stored
        });
        finishing.await.map_err(|_| SaveError::Internal("finishing a save was interrupted"))?
    }

    /// Gives up. What was uploaded is garbage that prune cleans.
    pub fn abort(mut self) {
        self.stop(&SaveError::Aborted);
    }

    fn stop(&mut self, why: &SaveError) {
        self.engine.fail(why.clone());
        for worker in self.workers.drain(..) {
            // A worker that panicked has failed the save already.
            let _ = worker.join();
        }
    }
}

impl Drop for Save {
    fn drop(&mut self) {
        self.stop(&SaveError::Aborted);
    }
}

#[cfg(test)]
mod tests;
