//! Lazy restore: the workload runs before its memory has arrived (docs/lazy-restore.md).
//!
//! CRIU restores everything but the pages that may come later, and hands over a userfaultfd for each process.
//! Whatever the workload touches before it is there is answered from the repository; the rest is filled in beside it.

mod collapse;
mod fill;
#[cfg(test)]
mod fixture;
mod hindrance;
pub mod hot;
mod huge;
mod images;
mod keeper;
mod missing;
mod plan;
mod recent;
mod serve;
mod space;
mod uffd;

pub use fill::{Filling, Manner};
pub use hindrance::hindrance;
pub use images::stage;
pub use plan::Plan;
pub use recent::Recent;
pub use uffd::{available, tells_all};

/// Bytes of a page, as everywhere in checkpoints.
const PAGE: u64 = crate::repository::block::PAGE as u64;
