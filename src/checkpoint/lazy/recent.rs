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
    let mut parts = Parts { found: Vec::new(), whole: true };
    let each = |part: Range<u64>, at: Option<&Location>| {
        parts.take(part, at.is_some_and(|at| new.contains(&at.pack))) && !over()
    };
    // What cannot be read here is found by who needs it.
    let read = opened.each_part(image, |leaf| new.contains(&leaf.pack), each);
    if read.is_err() || parts.whole { Vec::new() } else { parts.found }
}

/// Those that have changed.
#[derive(Debug)]
struct Parts {
    found: Vec<Range<u64>>,
    /// Nothing else was seen.
    whole: bool,
}

impl Parts {
    /// Whether there is room for more.
    fn take(&mut self, part: Range<u64>, has_changed: bool) -> bool {
        match self.found.last_mut() {
            _ if !has_changed => self.whole = false,
            Some(last) if part.start <= last.end + NEAR => last.end = part.end,
            _ => self.found.push(part),
        }
        self.found.len() < MOST
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // Some lists of ranges have one.
mod tests {
    use super::super::PAGE;
    use super::super::fixture::{IMAGE, Job, PAGES, generation};
    use super::*;
    use crate::repository::layout;
    use std::cell::Cell;

    impl Job {
        fn recent(&self) -> Option<Recent> {
            Recent::of(&self.repository, &self.saved.last().unwrap().0, self.runtime.handle())
        }

        /// What has changed since the save before the last one, in pages.
        fn changed(&self, over: impl Fn() -> bool) -> Vec<Range<u64>> {
            let packs = self.recent().unwrap().new_packs();
            let parts = changed(&self.saved.last().unwrap().1, IMAGE, &packs, over);
            parts.into_iter().map(|part| part.start / PAGE..part.end / PAGE).collect()
        }
    }

    #[test]
    fn what_the_last_save_has_changed_is_found_and_neighbours_are_one() {
        let mut job = Job::new();
        job.save(&[]);
        assert!(job.recent().is_none(), "a first generation, where all is new");
        job.save(&[10, 11, 27, 45, 1023]);
        // 15 pages between them are less than NEAR, 17 are more.
        assert_eq!(job.changed(|| false), [10..28, 45..46, 1023..1024]);
        // What was changed back is new too: the generation before does not have it.
        job.save(&[500]);
        assert_eq!(job.changed(|| false), [10..28, 45..46, 500..501, 1023..1024]);
    }

    #[test]
    fn an_image_that_is_wholly_new_or_has_not_changed_tells_nothing() {
        let mut job = Job::new();
        job.save(&[]);
        job.save(&(0..PAGES).collect::<Vec<_>>());
        assert!(!job.recent().unwrap().new_packs().is_empty());
        assert_eq!(job.changed(|| false), []);
    }

    #[test]
    fn a_base_that_is_gone_tells_nothing() {
        let mut job = Job::new();
        job.save(&[]);
        job.save(&[10]);
        assert_eq!(job.changed(|| false), [10..11]);
        let manifest = layout::manifest(generation(1));
        job.runtime.block_on(job.repository.store.delete(&manifest)).unwrap();
        assert_eq!(job.changed(|| false), []);
    }

    #[test]
    fn it_ends_as_soon_as_nobody_wants_to_know() {
        let mut job = Job::new();
        job.save(&[]);
        job.save(&[10, 500]);
        let seen = Cell::new(0);
        let until = |page: u64| {
            seen.set(0);
            job.changed(|| seen.replace(seen.get() + 1) == page)
        };
        assert_eq!((until(100), seen.get()), (vec![10..11], 101));
        assert_eq!((until(0), seen.get()), (vec![], 1));
    }

    #[test]
    fn parts_join_across_less_than_a_stretch_and_not_across_more() {
        let mut parts = Parts { found: Vec::new(), whole: true };
        parts.take(0..100, true);
        assert!(parts.whole);
        parts.take(100..100 + NEAR, false);
        assert!(!parts.whole);
        parts.take(100 + NEAR..200 + NEAR, true);
        assert_eq!(parts.found, [0..200 + NEAR]);
        parts.take(201 + 2 * NEAR..202 + 2 * NEAR, true);
        assert_eq!(parts.found, [0..200 + NEAR, 201 + 2 * NEAR..202 + 2 * NEAR]);
    }

    #[test]
    fn there_are_never_more_parts_than_the_most() {
        let mut parts = Parts { found: Vec::new(), whole: true };
        let far = |number: u64| number * 2 * NEAR..number * 2 * NEAR + PAGE;
        let taken = (0..2 * MOST as u64).take_while(|number| parts.take(far(*number), true)).count();
        assert_eq!((taken + 1, parts.found.len()), (MOST, MOST));
    }
}
