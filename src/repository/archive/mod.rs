//! Generations as one file: a tar archive that standard tools can read, written and read as a stream.
//!
//! Stored objects travel as they are, sealed: an encrypted job stays encrypted and its key opens the
//! archive too, every byte can be checked on the way, and nothing is compressed or encrypted twice.
//! The price is that a pack travels whole, even where the generation needs only a part of it.
//!
//! ```text
//! <job>/revenant-export.json     what this is: job, repository, generations
//! <job>/format.json              as in the store
//! <job>/started.json             if the job has one
//! <job>/keys/<slot>.json         if the job is encrypted
//! <job>/index/<id>               of each generation
//! <job>/packs/<2 hex>/<id>       each that some generation needs, once
//! <job>/generations/<generation>.manifest
//! <job>/SHA256SUMS               of all that came before; an archive without it is cut off
//! ```
//!
//! An import gives the generations new numbers under a claim of its own and commits them as a save
//! does. So an import is fenced like any writer, and what the job has already stays as it is.

mod contents;
mod error;
mod export;
mod import;
mod intake;
mod member;
mod reader;
mod writer;

pub use error::ArchiveError;
pub use export::{Exported, export};
pub use import::{ImportTerms, Imported, Renamed, import};

#[cfg(test)]
mod tests;

/// Members of an archive, at most: two million packs of 16 MiB hold 32 TB.
const MOST_MEMBERS: usize = 2 << 20;
/// All manifests of an archive together: they are kept in memory until the end of an import.
const MANIFESTS_LIMIT: u64 = 128 << 20;
