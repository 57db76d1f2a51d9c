//! The trusted store of checkpoints: chunks, packs, index, generations, claims.

pub mod archive;
pub mod block;
pub mod chunker;
pub mod claim;
mod claims;
pub mod codec;
pub mod completion;
pub mod crypto;
pub mod document;
pub mod fingerprint;
pub mod format;
pub mod generations;
pub mod index;
pub mod keys;
pub mod layout;
pub mod lookup;
pub mod manifest;
pub mod neighbours;
pub mod open;
pub mod pack;
pub mod read;
pub mod recipe;
pub mod repack;
pub mod retention;
pub mod save;
pub mod saves;
pub(crate) mod timestamp;
pub mod user_key;
pub mod verify;
mod wire;

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod interleave;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod verify_tests;
#[cfg(test)]
mod whole_save_tests;
