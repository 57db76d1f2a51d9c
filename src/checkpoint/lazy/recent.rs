//! What the workload had changed between the last two saves: it will probably touch that again soon.
//!
//! A save stores what is new in packs of its own, and refers to those of generations before for the rest. So the
//! parts of an image that lie in packs which the generation before does not use are what has changed.

use crate::job::Generation;
use crate::repository::crypto::ObjectId;
use crate::repository::generations;
use crate::repository::manifest::Manifest;
use crate::repository::open::Repository;
use crate::repository::read::Opened;
use crate::repository::recipe::Location;
use std::collections::HashSet;
use std::ops::Range;
use tokio::runtime::Handle;

/// Changed parts with less than this between them are one, in bytes.
const NEAR: u64 = 64 << 10;
/// The most parts that are told of one image.
const MOST: usize = 1 << 16;

/// How to find out.
#[derive(Debug, Clone)]
pub struct Recent {
    repository: Repository,
    runtime: Handle,
    base: Generation,
    packs: HashSet<ObjectId>,
}

impl Recent {
    /// Of the generation with this manifest; none of a first one, where all is new. Nothing is read yet.
    pub fn of(repository: &Repository, manifest: &Manifest, runtime: &Handle) -> Option<Self> {
        let packs = manifest.packs.iter().map(|pack| pack.id).collect();
        Some(Self { repository: repository.clone(), runtime: runtime.clone(), base: manifest.base?, packs })
    }

    /// The packs that only this generation uses. Costs one request; a base that is gone tells nothing.
    pub(super) fn new_packs(&self) -> HashSet<ObjectId> {
        let base = self.runtime.block_on(generations::load(&self.repository, self.base));
        let Ok(base) = base else { return HashSet::new() };
        let old: HashSet<ObjectId> = base.packs.iter().map(|pack| pack.id).collect();
        self.packs.difference(&old).copied().collect()
    }
}

/// Where an image lies in these packs, in order; nothing where that is all of it, which says nothing. Given up as
/// soon as `over` says so.
pub(super) fn changed(
    opened: &Opened,
    image: &str,
    new: &HashSet<ObjectId>,
    over: impl Fn() -> bool,
) -> Vec<Range<u64>> {
    if new.is_empty() {
        return Vec::new();
    }
    let (mut parts, mut whole) = (Vec::<Range<u64>>::new(), true);
    let each = |part: Range<u64>, at: Option<&Location>| {
        match (at, parts.last_mut()) {
            (Some(at), _) if !new.contains(&at.pack) => whole = false,
            (None, _) => whole = false,
            (_, Some(last)) if part.start <= last.end + NEAR => last.end = part.end,
            _ => parts.push(part),
        }
        parts.len() < MOST && !over()
    };
    // What cannot be read here is found by who needs it.
    let read = opened.each_part(image, |leaf| new.contains(&leaf.pack), each);
    if read.is_err() || whole { Vec::new() } else { parts }
}
