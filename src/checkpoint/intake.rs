//! Between CRIU's dump and the repository: every image that CRIU writes goes into the save.

use super::injected;
use crate::criu::stream::{BulkImage, ImageSink, SmallImage, StreamError};
use crate::repository::save::{Correction, Save, SaveError};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, PoisonError, RwLock};

/// CRIU opens this image last, and writes nothing after it.
const LAST_IMAGE: &str = "inventory.img";

/// Images of memory, page after page.
const MEMORY: &str = "pages-";

/// Small images that the record is made from.
const REMEMBERED: &[&str] = &["pstree.img", "inventory.img"];

/// Takes the images of one dump.
#[derive(Debug)]
pub struct Intake {
    /// The root of the tree that is dumped.
    root: i32,
    /// None once the save is being finished.
    save: RwLock<Option<Save>>,
    count: Mutex<Count>,
    changed: Condvar,
    remembered: Mutex<BTreeMap<String, Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Count {
    open: usize,
    last_taken: bool,
    over: bool,
}

/// Why an image could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The conversation with CRIU broke.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The repository did not take it.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// An image came after the save was finished.
    #[error("CRIU wrote image {0} after the end of the dump")]
    Late(String),
}

impl Intake {
    /// For this save of the tree with this root.
    pub fn new(save: Save, root: i32) -> Self {
        Self {
            root,
            save: RwLock::new(Some(save)),
            count: Mutex::default(),
            changed: Condvar::new(),
            remembered: Mutex::default(),
        }
    }

    /// Uses the save, if it is still open.
    pub fn with_save<T>(&self, use_it: impl FnOnce(&Save) -> T) -> Option<T> {
        self.save.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(use_it)
    }

    /// Takes the save out, to finish or abort it. None when that was done before.
    pub fn take_save(&self) -> Option<Save> {
        self.save.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Blocks until every image of the dump has been taken; false when there will be no more
    /// before that.
    pub fn wait_for_all(&self) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let complete = |count: &Count| count.last_taken && count.open == 0;
        let count = self.changed.wait_while(count, |count| !complete(count) && !count.over);
        complete(&count.unwrap_or_else(PoisonError::into_inner))
    }

    /// No more images will come.
    pub fn over(&self) {
        self.update(|count| count.over = true);
    }

    /// A small image, as it was taken.
    pub fn remembered(&self, name: &str) -> Option<Vec<u8>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn update(&self, change: impl FnOnce(&mut Count)) {
        change(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn taken(&self, name: &str) {
        self.update(|count| {
            count.open = count.open.saturating_sub(1);
            count.last_taken |= name == LAST_IMAGE;
        });
    }
}

impl ImageSink for Intake {
    type Error = IntakeError;

    fn opened(&self, _name: &str) {
        self.update(|count| count.open += 1);
    }

    fn small(&self, image: SmallImage) -> Result<(), IntakeError> {
        let SmallImage { name, bytes } = image;
        self.with_save(|save| save.store_bytes(&name, &bytes)).ok_or_else(|| IntakeError::Late(name.clone()))??;
        self.taken(&name);
        if REMEMBERED.contains(&name.as_str()) {
            self.remembered.lock().unwrap_or_else(PoisonError::into_inner).insert(name, bytes);
        }
        Ok(())
    }

    fn bulk(&self, image: BulkImage) -> Result<(), IntakeError> {
        let BulkImage { name, beginning, pipe } = image;
        let put_back = |page: &mut [u8]| injected::put_back(self.root, page);
        let correction = Correction { mark: injected::INSTRUCTION, correct: &put_back };
        let correction = name.starts_with(MEMORY).then_some(correction);
        self.with_save(|save| save.store_stream(&name, &beginning, pipe.as_fd(), correction))
            .ok_or_else(|| IntakeError::Late(name.clone()))??;
        self.taken(&name);
        Ok(())
    }
}
