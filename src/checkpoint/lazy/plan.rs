//! What of a checkpoint may come later: decided by CRIU at the dump, page by page (`PE_LAZY` in the pagemaps).

use super::PAGE;
use super::missing::{Missing, Piece};
use crate::criu::images::{self, PagemapEntry};
use crate::repository::read::Opened;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// The longest pagemap that is read: a run takes some 20 bytes, so several million runs.
const LONGEST_PAGEMAP: u64 = 256 << 20;

/// `PE_LAZY`
const LAZY: u32 = 2;

/// One generation's pages, those that come later apart from those that CRIU wants.
#[derive(Debug, Default)]
pub struct Plan {
    /// By PID as in the checkpoint.
    pub tasks: HashMap<i32, Task>,
    /// What CRIU reads of the images of pages, in order.
    pub eager: BTreeMap<String, Vec<Range<u64>>>,
    /// Bytes that come later.
    pub lazy_bytes: u64,
    /// Bytes of pages that CRIU reads.
    pub eager_bytes: u64,
}

/// What comes later of one process.
#[derive(Debug)]
pub struct Task {
    /// The image of its pages.
    pub image: Arc<str>,
    /// They.
    pub missing: Missing,
}

impl Plan {
    /// Reads the pagemaps. None when they are not what is expected: an eager restore will say what is wrong.
    pub fn read(opened: &Opened) -> Option<Self> {
        let mut plan = Self::default();
        let names: Vec<&str> = opened.images().map(|(name, _)| name).collect();
        for name in names {
            let Some(owner) = name.strip_prefix("pagemap-").and_then(|rest| rest.strip_suffix(".img")) else {
                continue;
            };
            let bytes = opened.read(name, LONGEST_PAGEMAP).ok()?;
            let pagemap = images::pagemap(&bytes).ok()?;
            let image = format!("pages-{}.img", pagemap.pages_id);
            let (missing, eager) = split(&pagemap.runs);
            let length = pagemap.present_pages().checked_mul(PAGE)?;
            // A pagemap without pages has no image.
            if opened.image(&image).unwrap_or(0) != length {
                return None;
            }
            plan.lazy_bytes += missing.bytes();
            plan.eager_bytes += eager.iter().map(|range| range.end - range.start).sum::<u64>();
            if plan.eager.insert(image.clone(), eager).is_some() && length > 0 {
                return None;
            }
            match owner.parse() {
                Ok(pid) => {
                    plan.tasks.insert(pid, Task { image: image.into(), missing });
                }
                // Shared memory, which no page of may come later.
                Err(_) if missing.is_empty() => {}
                Err(_) => return None,
            }
        }
        Some(plan)
    }
}

/// Pages that come later, and the ranges of the image that do not.
fn split(runs: &[PagemapEntry]) -> (Missing, Vec<Range<u64>>) {
    let (mut missing, mut eager): (Missing, Vec<Range<u64>>) = (Missing::default(), Vec::new());
    let mut offset = 0;
    for run in runs.iter().filter(|run| run.is_present()) {
        let length = run.pages().saturating_mul(PAGE);
        if run.flags & LAZY != 0 {
            missing.add(Piece { address: run.address, length, offset });
        } else {
            match eager.last_mut() {
                Some(last) if last.end == offset => last.end += length,
                _ => eager.push(offset..offset + length),
            }
        }
        offset += length;
    }
    (missing, eager)
}
