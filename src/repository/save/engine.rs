//! What the threads of a save share: the queue of work, the known chunks, the open packs, the
//! first failure.

use super::assembly::{Assembly, Draft};
use super::error::SaveError;
use super::memento;
use super::pace::Pace;
use super::recognizer::{Piece, Recognizer};
use super::recollection::{Recollection, Remembered, Seen};
use super::uploads::Uploads;
use super::{SaveOptions, SaveProgress, Stored};
use crate::failpoint;
use crate::repository::block::{Block, BlockPool};
use crate::repository::chunker::Chunking;
use crate::repository::codec::{Compressed, Compression, Compressor, bound};
use crate::repository::crypto::{ChunkId, ObjectId, ObjectKind};
use crate::repository::index::{Index, NAME_LIMIT, PackUse};
use crate::repository::layout;
use crate::repository::lookup::Lookup;
use crate::repository::neighbours::Neighbours;
use crate::repository::open::Repository;
use crate::repository::pack::PackBuilder;
use crate::repository::read::{Opened, ReadError};
use crate::repository::recipe::{Entry, Location};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Blocks are this large at least: a huge page.
const BLOCK: usize = 2 << 20;
/// Packs of data that are filled at a time, at most; more threads share them.
const MAX_OPEN_PACKS: usize = 4;
/// A pack of recipes and small images is closed at this size.
const SMALL_PACK: usize = 4 << 20;
/// After hashing so many blocks in a row, one chunk is packed, however long the pipe's queue is: the
/// recipe behind a chunk that has no place yet would grow without bound.
const MAX_SKIPS: u32 = 1024;
/// The part of memory that what was stored ahead is remembered in.
const RECOLLECTION: usize = 16;
/// When CRIU is silent for this long, packing goes on although there is room.
const PATIENCE: Duration = Duration::from_millis(3);

/// Where a chunk is or will be.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Known(Location),
    Pending(Arc<OnceLock<Location>>),
}

impl Place {
    pub fn location(&self) -> Option<Location> {
        match self {
            Self::Known(at) => Some(*at),
            Self::Pending(cell) => cell.get().copied(),
        }
    }
}

/// What a stream is for.
#[derive(Debug)]
pub(super) enum Target {
    /// An image; the number of the next piece.
    Image(Arc<Assembly>, u64),
    /// Nothing yet: stored ahead. The number of the stream, and of the next piece.
    Ahead(u64, u64),
}

/// Where a piece of a stream belongs.
#[derive(Debug)]
enum Belongs {
    Image(Arc<Assembly>, u64),
    Ahead(u64, u64),
}

impl Target {
    pub fn image(assembly: Arc<Assembly>) -> Self {
        Self::Image(assembly, 0)
    }
}

#[derive(Debug)]
struct HashTask {
    /// These come first. They are known, and stored, or zeros.
    settled: Vec<Piece>,
    /// These lie in the block, one after the other.
    pieces: Vec<Piece>,
    block: Option<Arc<Block>>,
    /// From here on.
    start: usize,
    belongs: Belongs,
}

/// A piece with its name; none for zeros.
#[derive(Debug)]
struct Named {
    id: Option<ChunkId>,
    length: usize,
    /// Where it lies in the block, if it needs one.
    range: Option<Range<usize>>,
}

#[derive(Debug)]
struct PackTask {
    id: ChunkId,
    content: Content,
    cell: Arc<OnceLock<Location>>,
}

#[derive(Debug)]
enum Content {
    /// A part of a block, which stays in use until it is packed.
    Block(Arc<Block>, Range<usize>),
    /// A recipe's leaf or a small image.
    Small(Vec<u8>),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Block(block, range) => &block[range.clone()],
            Self::Small(bytes) => bytes,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    hash: VecDeque<HashTask>,
    pack: VecDeque<PackTask>,
    running: usize,
    skips: u32,
    closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub image: AtomicU64,
    pub warmed: AtomicU64,
    pub new: AtomicU64,
    pub stored: AtomicU64,
    pub packed: AtomicU64,
    pub uploaded: AtomicU64,
}

/// Shared by all threads of a save.
#[derive(Debug)]
pub(super) struct Engine {
    pub repository: Repository,
    pub runtime: tokio::runtime::Handle,
    pub pool: BlockPool,
    pub workers: usize,
    pub counters: Counters,
    /// Readable once the save has failed.
    pub stopped: EventFd,
    pub uploads: Uploads,
    /// What [`Compression::Auto`] does.
    pub pace: Pace,
    /// Images that are being read.
    pub readers: AtomicUsize,
    /// Streams that were stored ahead.
    pub streams_ahead: AtomicU64,
    /// What was stored ahead, while it is being taken in.
    recollection: OnceLock<Option<Recollection>>,
    /// And once it is complete.
    remembered: OnceLock<Option<Arc<Remembered>>>,
    /// What an earlier save had read, until this one has read its own.
    recalled: Mutex<Option<Arc<Remembered>>>,
    /// The most memory for these, in bytes.
    recollection_limit: usize,
    compression: Compression,
    lookup: Lookup,
    /// What the parent has beyond the table's bound.
    neighbours: OnceLock<Neighbours>,
    table: usize,
    /// Chunks on their way into a pack.
    pending: Mutex<HashMap<ChunkId, Arc<OnceLock<Location>>>>,
    queue: Mutex<Queue>,
    work: Condvar,
    idle: Condvar,
    open: Vec<Mutex<Option<PackBuilder>>>,
    pack_size: usize,
    images: Mutex<BTreeMap<String, Arc<Assembly>>>,
    sizes: Mutex<HashMap<ObjectId, u64>>,
    used: Mutex<HashMap<ObjectId, u64>>,
    new_packs: Mutex<Vec<ObjectId>>,
    learned: Mutex<bool>,
    taught: Condvar,
    failure: Mutex<Option<SaveError>>,
    failed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub fn new(
        repository: &Repository,
        has_parent: bool,
        options: &SaveOptions,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, SaveError> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let workers = if options.workers == 0 { cores } else { options.workers };
        let memory = options.memory_limit.max(64 << 20);
        let block_size = BLOCK.max(4 * repository.format.chunking.max_bytes());
        let pool = BlockPool::new((memory / 4 / block_size).max(4), block_size)
            .map_err(|error| SaveError::system("map memory for blocks", error))?;
        let table = if options.table_limit == 0 { memory / 5 } else { options.table_limit };
        let open_packs = workers.min(MAX_OPEN_PACKS);
        let uploads = options.uploads.max(1);
        // Being filled (one of them with recipes and small images), being uploaded, and one on the way from
        // here to there.
        let buffers = open_packs + 1 + uploads + 1;
        // And those that come back from the spool.
        let read_back = if options.spool.is_some() { uploads } else { 0 };
        let largest = bound(repository.format.chunking.max_bytes());
        let pack_size = (memory * 3 / 8 / (buffers + read_back)).clamp((4 << 20).max(2 * largest), 64 << 20);
        let capacity = pack_size + pack_size / 32;
        Ok(Self {
            repository: repository.clone(),
            runtime: runtime.clone(),
            pool,
            workers,
            counters: Counters::default(),
            stopped: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(|errno| SaveError::system("make an eventfd", errno.into()))?,
            uploads: Uploads::new(buffers, capacity, uploads, options.spool.as_ref())?,
            pace: Pace::new(workers, uploads),
            readers: AtomicUsize::new(0),
            streams_ahead: AtomicU64::new(0),
            recollection: OnceLock::new(),
            remembered: OnceLock::new(),
            recalled: Mutex::default(),
            recollection_limit: memory / RECOLLECTION,
            compression: options.compression,
            lookup: Lookup::new(table),
            neighbours: OnceLock::new(),
            table,
            pending: Mutex::default(),
            queue: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            open: (0..=open_packs).map(|_| Mutex::new(None)).collect(),
            pack_size,
            images: Mutex::default(),
            sizes: Mutex::default(),
            used: Mutex::default(),
            new_packs: Mutex::default(),
            learned: Mutex::new(!has_parent),
            taught: Condvar::new(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
        })
    }

    pub fn chunking(&self) -> Chunking {
        self.repository.format.chunking
    }

    pub fn progress(&self) -> SaveProgress {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (packed, uploaded) = (get(&self.counters.packed), get(&self.counters.uploaded));
        SaveProgress {
            image_bytes: get(&self.counters.image),
            warmed_bytes: get(&self.counters.warmed),
            new_bytes: get(&self.counters.new),
            stored_bytes: get(&self.counters.stored),
            uploaded_bytes: uploaded,
            buffered_bytes: packed.saturating_sub(uploaded),
        }
    }

    // ── failure ────────────────────────────────────────────────────────────────────────────────

    /// The first failure counts. Wakes everybody who waits for anything. Returns the first failure.
    pub fn fail(&self, error: SaveError) -> SaveError {
        let first = lock(&self.failure).get_or_insert(error).clone();
        self.failed.store(true, Ordering::SeqCst);
        self.pool.close();
        self.uploads.close();
        lock(&self.queue).closed = true;
        self.work.notify_all();
        self.idle.notify_all();
        drop(lock(&self.learned));
        self.taught.notify_all();
        // Fails only when the counter is at its end: readable all the same.
        let _ = self.stopped.write(1);
        first
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub fn failure(&self) -> SaveError {
        lock(&self.failure).clone().unwrap_or(SaveError::Aborted)
    }

    // ── the previous generation ────────────────────────────────────────────────────────────────

    /// Takes in what the parent has. A parent that cannot be read makes this a full save, no failure.
    pub fn learn(&self, parent: &Opened) {
        if let Err(error) = self.learn_chunks(parent) {
            tracing::warn!(%error, "the previous generation cannot be read; what it holds is stored again");
        }
        *lock(&self.learned) = true;
        self.taught.notify_all();
    }

    fn learn_chunks(&self, parent: &Opened) -> Result<(), ReadError> {
        // Nothing is referred to that is not there: a pack that was lost is written anew.
        let listed = self.runtime.block_on(self.repository.store.list(layout::PACKS))?;
        let listed: HashMap<ObjectId, u64> =
            listed.iter().filter_map(|object| Some((layout::parse_pack(&object.key)?, object.size))).collect();
        let (there, lost): (Vec<&PackUse>, Vec<&PackUse>) =
            parent.packs().iter().partition(|pack| listed.get(&pack.id) == Some(&pack.size));
        if !lost.is_empty() {
            tracing::warn!(packs = lost.len(), "the previous generation has lost packs; their content is stored again");
        }
        let there: HashMap<ObjectId, u64> = there.iter().map(|pack| (pack.id, pack.size)).collect();
        lock(&self.sizes).extend(&there);
        let neighbours = Neighbours::new(parent, self.table / 8);
        let result = parent.each_chunk(|id, at, leaf| {
            if there.contains_key(&at.pack)
                && !self.lookup.insert_old(id, at)
                && let Some(leaf) = leaf
            {
                neighbours.hook(id, leaf);
            }
            !self.has_failed()
        });
        if !neighbours.is_empty() {
            let _ = self.neighbours.set(neighbours);
        }
        result
    }

    /// Where the parent has a chunk that the table had no room for.
    fn find_neighbour(&self, id: &ChunkId) -> Option<Location> {
        // A pack that the parent has lost is in no table of sizes.
        self.neighbours.get()?.find(id).filter(|at| lock(&self.sizes).contains_key(&at.pack))
    }

    /// Waits until the parent's chunks are known.
    pub fn wait_learned(&self) {
        let mut learned = lock(&self.learned);
        while !*learned && !self.has_failed() {
            learned = self.taught.wait(learned).unwrap_or_else(PoisonError::into_inner);
        }
    }

    // ── images ─────────────────────────────────────────────────────────────────────────────────

    pub fn add_image(&self, name: &str) -> Result<Arc<Assembly>, SaveError> {
        if self.has_failed() {
            return Err(self.failure());
        }
        if name.is_empty() || name.len() > NAME_LIMIT {
            return Err(SaveError::Name(name.chars().take(NAME_LIMIT).collect()));
        }
        let assembly = Arc::new(Assembly::default());
        let mut images = lock(&self.images);
        if images.contains_key(name) {
            return Err(SaveError::Twice(name.to_owned()));
        }
        images.insert(name.to_owned(), Arc::clone(&assembly));
        Ok(assembly)
    }

    #[cfg(test)]
    pub fn has_image(&self, name: &str) -> bool {
        lock(&self.images).contains_key(name)
    }

    /// Hands a block to the workers, filled with these pieces from the given place on, and what came before them and
    /// needs none (see [`Engine::is_stored`]).
    pub fn submit(
        &self,
        settled: Vec<Piece>,
        pieces: Vec<Piece>,
        block: Option<(Block, usize)>,
        target: &mut Target,
    ) -> Result<(), SaveError> {
        let belongs = match target {
            Target::Ahead(stream, next) => {
                *next += 1;
                Belongs::Ahead(*stream, *next - 1)
            }
            Target::Image(assembly, next) => {
                *next += 1;
                Belongs::Image(Arc::clone(assembly), *next - 1)
            }
        };
        let (block, start) = block.map_or((None, 0), |(block, start)| (Some(Arc::new(block)), start));
        self.push(|queue| queue.hash.push_back(HashTask { settled, pieces, block, start, belongs }))
    }

    /// A stream that is stored ahead.
    pub fn ahead(&self) -> Target {
        self.recollection.get_or_init(|| {
            let key = lock(&self.recalled).as_ref().map(|recalled| Arc::clone(&recalled.key));
            Recollection::new(self.recollection_limit, key)
        });
        Target::Ahead(self.streams_ahead.fetch_add(1, Ordering::Relaxed), 0)
    }

    /// The end of what is stored ahead: waits until it is named and packed.
    pub fn settle(&self) -> Result<(), SaveError> {
        self.wait_learned();
        self.wait_idle()?;
        self.remembered.get_or_init(|| {
            let recollection = self.recollection.get()?.as_ref()?;
            // What is known from before was met again, or is no more.
            *lock(&self.recalled) = None;
            Some(Arc::new(recollection.close()))
        });
        Ok(())
    }

    /// Takes in what an earlier save of this container has handed on.
    pub fn recall(&self, memento: &[u8]) -> bool {
        let recalled = memento::read(memento, self.repository.format.repository).map(Arc::new);
        let whether = recalled.is_some();
        *lock(&self.recalled) = recalled;
        whether
    }

    /// Whether there is something from an earlier save.
    pub fn recalls(&self) -> bool {
        lock(&self.recalled).is_some()
    }

    /// What this save hands on: what it has read ahead.
    pub fn memento(&self) -> Option<Zeroizing<Vec<u8>>> {
        let remembered = self.remembered.get()?.as_ref()?;
        Some(memento::write(remembered, self.repository.format.repository))
    }

    /// What recognizes chunks that were read before, if any were: of an image those that were stored ahead of it, else
    /// those of an earlier save.
    pub fn recognizer(&self, target: &Target) -> Option<Recognizer> {
        let ahead = self.remembered.get().and_then(Option::as_ref).filter(|_| matches!(target, Target::Image(..)));
        ahead.cloned().or_else(|| lock(&self.recalled).clone()).map(Recognizer::new)
    }

    /// Stores an image that lies in memory, cut at the largest chunk.
    pub fn store_small(&self, assembly: &Assembly, bytes: &[u8]) -> Result<(), SaveError> {
        self.wait_learned();
        let mut drafts = Vec::new();
        for chunk in bytes.chunks(self.chunking().max_bytes()) {
            let id = self.repository.crypt.chunk_id(chunk);
            let place = self.place(id, || Some(Content::Small(chunk.to_vec())))?;
            drafts.push(Draft::Chunk { id, length: u32::try_from(chunk.len()).unwrap_or(u32::MAX), place });
        }
        assembly.add(self, 0, drafts)
    }

    /// Stores a leaf of a recipe.
    pub fn place_recipe(&self, bytes: Vec<u8>) -> Result<(ChunkId, Place), SaveError> {
        let id = self.repository.crypt.chunk_id(&bytes);
        Ok((id, self.place(id, || Some(Content::Small(bytes)))?))
    }

    /// Whether the chunk is known, and stays so: then its content is needed no more.
    pub fn is_stored(&self, id: &ChunkId) -> bool {
        self.lookup.find(id).is_some()
    }

    /// Where the chunk is, or will be: unknown ones are queued to be packed.
    fn place(&self, id: ChunkId, content: impl FnOnce() -> Option<Content>) -> Result<Place, SaveError> {
        if let Some(at) = self.lookup.find(&id).or_else(|| self.find_neighbour(&id)) {
            return Ok(Place::Known(at));
        }
        let cell = {
            let mut pending = lock(&self.pending);
            if let Some(cell) = pending.get(&id) {
                return Ok(Place::Pending(Arc::clone(cell)));
            }
            // It may have been packed since: it enters the table before it leaves `pending`.
            if let Some(at) = self.lookup.find(&id) {
                return Ok(Place::Known(at));
            }
            let cell = Arc::new(OnceLock::new());
            pending.insert(id, Arc::clone(&cell));
            cell
        };
        let content = content().ok_or(SaveError::Internal("the content of a chunk got lost"))?;
        self.counters.new.fetch_add(content.bytes().len() as u64, Ordering::Relaxed);
        let task = PackTask { id, content, cell: Arc::clone(&cell) };
        self.push(|queue| queue.pack.push_back(task))?;
        Ok(Place::Pending(cell))
    }

    /// Notes which packs these entries need.
    pub fn count_use(&self, entries: &[Entry]) {
        let mut used = lock(&self.used);
        for entry in entries {
            if let Entry::Chunk { at, .. } = entry {
                *used.entry(at.pack).or_default() += u64::from(at.stored);
            }
        }
    }

    // ── work ───────────────────────────────────────────────────────────────────────────────────

    fn push(&self, add: impl FnOnce(&mut Queue)) -> Result<(), SaveError> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue);
            return Err(self.failure());
        }
        add(&mut queue);
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    /// The life of a worker thread: hash first, because the workload may be frozen; pack when there
    /// is nothing to hash, which is also when all blocks wait to be packed.
    pub fn work(self: &Arc<Self>, number: usize) {
        let guard = PanicGuard(self);
        self.wait_learned();
        match Compressor::new(self.chunking().max_bytes()) {
            Ok(mut compressor) => {
                while let Some(result) = self.work_once(number, &mut compressor) {
                    if let Err(error) = result {
                        self.fail(error);
                    }
                }
            }
            Err(error) => {
                self.fail(SaveError::system("prepare a compressor", error));
            }
        }
        std::mem::forget(guard);
    }

    fn work_once(self: &Arc<Self>, number: usize, compressor: &mut Compressor) -> Option<Result<(), SaveError>> {
        let mut queue = lock(&self.queue);
        let mut idle = false;
        let (hash, pack) = loop {
            if queue.closed {
                return None;
            }
            let overdue = queue.skips >= MAX_SKIPS;
            let hash = if overdue && !queue.pack.is_empty() { None } else { queue.hash.pop_front() };
            if hash.is_some() {
                queue.skips = if queue.pack.is_empty() { 0 } else { queue.skips + 1 };
                break (hash, None);
            }
            // While CRIU feeds us and there is room, the cores belong to it and to hashing.
            if !overdue && !idle && !queue.pack.is_empty() && self.has_room() {
                let waited = self.work.wait_timeout(queue, PATIENCE).unwrap_or_else(PoisonError::into_inner);
                (queue, idle) = (waited.0, waited.1.timed_out());
                continue;
            }
            queue.skips = 0;
            if let Some(task) = queue.pack.pop_front() {
                break (None, Some(task));
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.running += 1;
        drop(queue);
        let result = match (hash, pack) {
            (Some(task), _) => self.hash(task),
            (_, Some(task)) => self.pack(number, task, compressor),
            _ => Ok(()),
        };
        let mut queue = lock(&self.queue);
        queue.running -= 1;
        if queue.running == 0 && queue.hash.is_empty() && queue.pack.is_empty() {
            self.idle.notify_all();
        }
        Some(result)
    }

    /// Whether images are being read and less than half of the blocks are in use.
    fn has_room(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0 && self.pool.in_use() * 2 < self.pool.count()
    }

    /// Whether more waits to be compressed than all workers have at hand.
    pub fn has_backlog(&self) -> bool {
        lock(&self.queue).pack.len() > self.workers
    }

    fn wait_idle(&self) -> Result<(), SaveError> {
        let mut queue = lock(&self.queue);
        while !queue.closed && (queue.running > 0 || !queue.hash.is_empty() || !queue.pack.is_empty()) {
            queue = self.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed { Err(self.failure()) } else { Ok(()) }
    }

    fn hash(&self, task: HashTask) -> Result<(), SaveError> {
        let named = self.name(&task);
        if let Some(neighbours) = self.neighbours.get() {
            let unknown = named.iter().filter_map(|named| named.id.as_ref()).filter(|id| !self.is_stored(id));
            if let Err(error) = neighbours.meet(unknown) {
                tracing::debug!(%error, "a recipe of the previous generation cannot be read; its content is stored again");
            }
        }
        let mut drafts = Vec::with_capacity(named.len());
        for Named { id, length, range } in named {
            match id {
                None => drafts.push(Draft::Zero(length as u64)),
                Some(id) => {
                    let content = || Some(Content::Block(Arc::clone(task.block.as_ref()?), range?));
                    let place = self.place(id, content)?;
                    drafts.push(Draft::Chunk { id, length: u32::try_from(length).unwrap_or(u32::MAX), place });
                }
            }
        }
        drop(task.block);
        match task.belongs {
            Belongs::Image(assembly, number) => assembly.add(self, number, drafts),
            Belongs::Ahead(..) => Ok(()),
        }
    }

    /// The chunks of a block by their names, and its zeros. What is stored ahead is remembered.
    fn name(&self, task: &HashTask) -> Vec<Named> {
        let ahead = match task.belongs {
            Belongs::Image(..) => None,
            Belongs::Ahead(stream, number) => {
                let recollection = self.recollection.get().and_then(Option::as_ref);
                recollection.map(|recollection| (recollection, stream, number))
            }
        };
        let mut named = Vec::with_capacity(task.settled.len() + task.pieces.len());
        let mut seen = Vec::new();
        let mut at = task.start;
        let settled = task.settled.iter().map(|piece| (piece, None));
        let in_block = task.pieces.iter().map(|piece| {
            at += piece.len();
            (piece, Some(at - piece.len()..at))
        });
        for (piece, range) in settled.chain(in_block) {
            let id = match *piece {
                Piece::Zero(_) => None,
                Piece::Known(known) => {
                    if ahead.is_some() {
                        seen.push(known);
                    }
                    Some(known.id)
                }
                Piece::Unnamed(length) => {
                    let place = task.block.as_deref().zip(range.clone());
                    let content = place.and_then(|(block, range)| block.get(range)).unwrap_or_default();
                    let recalled = ahead.and_then(|(recollection, ..)| {
                        let fingerprint = recollection.key().of(content)?;
                        Some((fingerprint, recollection.find(&fingerprint)))
                    });
                    let id = recalled.and_then(|(_, id)| id).unwrap_or_else(|| self.repository.crypt.chunk_id(content));
                    if let Some((fingerprint, _)) = recalled {
                        seen.push(Seen { fingerprint, id, length: u32::try_from(length).unwrap_or(u32::MAX) });
                    }
                    Some(id)
                }
            };
            named.push(Named { id, length: piece.len(), range });
        }
        if let Some((recollection, stream, number)) = ahead {
            recollection.add(stream, number, &seen);
        }
        named
    }

    fn pack(self: &Arc<Self>, worker: usize, task: PackTask, compressor: &mut Compressor) -> Result<(), SaveError> {
        let plain = task.content.bytes();
        let compression = match self.compression {
            Compression::Auto => self.pace.compression(),
            fixed => fixed,
        };
        let started = Instant::now();
        let compressed = compressor.compress(plain, compression);
        let stored = if let Compressed::Smaller(bytes) = &compressed { bytes.len() } else { plain.len() };
        self.pace.compressed(plain.len(), stored, started.elapsed());
        let small = matches!(task.content, Content::Small(_));
        let slots = self.open.len() - 1;
        let (slot, limit) =
            if small { (slots, SMALL_PACK.min(self.pack_size)) } else { (worker % slots, self.pack_size) };
        let needed = bound(plain.len()) + 64;
        let mut full = None;
        let at = {
            let mut open = lock(&self.open[slot]);
            if open.as_ref().is_some_and(|pack| pack.len() + needed > limit) {
                full = open.take();
            }
            let pack = if let Some(pack) = &mut *open {
                pack
            } else {
                let buffer = self.uploads.buffer().ok_or_else(|| self.failure())?;
                open.insert(PackBuilder::new(&self.repository.crypt, buffer))
            };
            match compressed {
                Compressed::Smaller(stored) => pack.push(stored, plain.len()),
                Compressed::Raw => pack.push_raw(plain),
            }
        };
        self.counters.stored.fetch_add(u64::from(at.stored), Ordering::Relaxed);
        // First the table, then the cell, then out of `pending`: whoever looks finds it in one of them.
        self.lookup.insert(&task.id, &at);
        let _ = task.cell.set(at);
        lock(&self.pending).remove(&task.id);
        drop(task);
        full.map_or(Ok(()), |pack| self.ship(pack))
    }

    fn ship(self: &Arc<Self>, pack: PackBuilder) -> Result<(), SaveError> {
        let id = pack.id();
        let bytes = pack.finish();
        failpoint!("save.pack.sealed");
        lock(&self.sizes).insert(id, bytes.len() as u64);
        lock(&self.new_packs).push(id);
        self.counters.packed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        super::uploads::submit(self, id, bytes)
    }

    // ── the end ────────────────────────────────────────────────────────────────────────────────

    /// Stores what is left, waits until it is durable, writes the index.
    pub fn finish(self: &Arc<Self>) -> Result<Stored, SaveError> {
        self.wait_learned();
        self.wait_idle()?;
        failpoint!("save.images.packed");
        let images = lock(&self.images).clone();
        for assembly in images.values() {
            assembly.complete(self)?;
        }
        self.wait_idle()?;
        failpoint!("save.recipes.packed");
        for slot in &self.open {
            let pack = lock(slot).take();
            if let Some(pack) = pack {
                self.ship(pack)?;
            }
        }
        self.uploads.wait_empty().ok_or_else(|| self.failure())?;
        failpoint!("save.packs.durable");
        self.write_index(&images)
    }

    fn write_index(&self, images: &BTreeMap<String, Arc<Assembly>>) -> Result<Stored, SaveError> {
        let mut index = Index::default();
        for (name, assembly) in images {
            let image = assembly.image(|entry| self.count_use(std::slice::from_ref(entry)))?;
            index.images.insert(name.clone(), image);
        }
        let sizes = lock(&self.sizes);
        let used: BTreeMap<ObjectId, u64> = lock(&self.used).iter().map(|(id, used)| (*id, *used)).collect();
        for (id, used) in used {
            let size = *sizes.get(&id).ok_or(SaveError::Internal("a pack has no size"))?;
            // A chunk that several images share counts for each of them.
            index.packs.push(PackUse { id, size, used: used.min(size) });
        }
        drop(sizes);
        let mut bytes = index.encode();
        let id = ObjectId::random();
        self.repository.crypt.for_object(ObjectKind::Index, &id).seal(0, &[], &mut bytes);
        let index_length = bytes.len() as u64;
        let _ = self.runtime.block_on(self.repository.store.put_new(&layout::index(&id), bytes.into()))?;
        failpoint!("save.index.durable");
        Ok(Stored {
            index: id,
            index_length,
            packs: index.packs,
            new_packs: lock(&self.new_packs).clone(),
            images: index.images.into_iter().map(|(name, image)| (name, image.length)).collect(),
            progress: self.progress(),
        })
    }
}

/// Fails the save when its worker panics, so that nobody waits for it.
struct PanicGuard<'a>(&'a Engine);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.0.fail(SaveError::Internal("a worker panicked"));
    }
}
