//! Everything that knows CRIU: arguments, the image-streaming protocol, images, log explanations.
//!
//! | module | holds |
//! |---|---|
//! | [`binary`] | where CRIU lies, how its bundle is run, which version it is |
//! | [`hook`] | holding the tree at the end of a dump until we say what becomes of it |
//! | [`options`] | what a dump or restore is asked to do, as CRIU's arguments |
//! | [`run`] | the CRIU process: clean descriptors, its end, what its failure leaves behind |
//! | [`lazy_pages`] | what a restore says whose pages come later |
//! | [`preload`] | what CRIU's C library is made to answer otherwise |
//! | [`stream`] | the image-streaming protocol, both directions |
//! | [`images`] | reading the images that we need to understand |
//! | [`explain`] | turning CRIU's log into an error that a person can act on |
//! | [`probe`] | whether CRIU can work in this container, and how well |
//!
//! The measured facts behind this room are in `docs/criu-streaming.md` and `docs/criu-failures.md`.

pub mod binary;
mod error;
pub mod explain;
pub mod hook;
pub mod images;
pub mod lazy_pages;
pub mod options;
pub mod preload;
pub mod probe;
pub mod run;
pub mod stream;

pub use binary::{Criu, Version};
pub use error::CriuError;
