//! Between the repository and CRIU's restore: every image that CRIU asks for comes from a generation.

use crate::criu::images;
use crate::criu::stream::{ImageSource, Offer, StreamError};
use crate::repository::read::{Opened, ReadError};
use crate::workload::subreaper;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Images up to this many bytes are sent from memory.
const WHOLE: u64 = 256 * 1024;

/// CRIU's table of open files, which is corrected on its way.
pub const FILES_IMAGE: &str = "files.img";

/// A hundred thousand open files: what a process may have at most by usual limits.
pub const FILES_IMAGE_LIMIT: u64 = 64 << 20;

/// Gives the images of one generation.
#[derive(Debug)]
pub struct Outlet<'a> {
    opened: &'a Opened,
    sent: AtomicU64,
    /// The root of the tree, and the image for which it asks itself. None for the init of a PID namespace: everybody
    /// in it falls to that one anyway.
    root: Option<(i32, String)>,
}

/// Why an image could not be given.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// The conversation with CRIU broke.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The repository could not give it: damaged, missing, or out of reach.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl<'a> Outlet<'a> {
    /// For this generation, whose tree has this root.
    pub fn new(opened: &'a Opened, root: Option<i32>) -> Self {
        let root = root.map(|root| (root, format!("pagemap-{root}.img")));
        Self { opened, sent: AtomicU64::new(0), root }
    }

    /// Bytes of images given so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl ImageSource for Outlet<'_> {
    type Error = OutletError;

    fn offer(&self, name: &str) -> Result<Offer, OutletError> {
        if let Some((root, _)) = self.root.as_ref().filter(|(_, image)| name == image) {
            // It waits for our answer now. If this fails, what falls out of the tree is noticed before it runs.
            match subreaper::make(*root) {
                Ok(()) => tracing::debug!(root, "made a subreaper"),
                Err(error) => tracing::debug!(root, %error, "not made a subreaper"),
            }
        }
        Ok(match self.opened.image(name) {
            None => Offer::Missing,
            Some(length) if length <= WHOLE || (name == FILES_IMAGE && length <= FILES_IMAGE_LIMIT) => {
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                self.opened.read_at(name, 0, &mut bytes)?;
                if name == FILES_IMAGE {
                    images::ring_overdue(&mut bytes);
                }
                self.sent.fetch_add(length, Ordering::Relaxed);
                Offer::Whole(bytes.into())
            }
            Some(length) => Offer::Streamed { length: Some(length) },
        })
    }

    fn stream(&self, name: &str, pipe: OwnedFd) -> Result<(), OutletError> {
        self.opened.send(name, pipe.as_fd())?;
        self.sent.fetch_add(self.opened.image(name).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}
