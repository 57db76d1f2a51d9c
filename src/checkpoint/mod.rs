//! Save and restore as pipelines between CRIU and the repository.
//!
//! | module | holds |
//! |---|---|
//! | [`protocol`] | what PID 1 and the engine say to each other |
//! | [`engine`] | the engine process: one request in, events out |
//! | `begin` | taking the job, and restoring it or not |
//! | `save`, `precopy`, `intake`, `injected` | from a running tree to a durable generation |
//! | `foresight` | what stands in the way of a save, before anything is frozen |
//! | `restore`, `outlet`, `inherited_fd` | from a durable generation to a running tree |
//! | [`clock`] | whether the workload's monotonic clock goes on |
//! | [`files`], `side_effects` | the files that belong to the state |
//! | `finish` | recording how the workload ended |
//! | [`record`], [`compatibility`] | what a manifest remembers besides images, and whether it fits this container |
//! | [`oci`] | a generation as an OCI image archive |
//! | [`rehearsal`] | what a restore would do, without doing it |
//! | `job_store`, `store_place` | the job's repository, and whether it outlives the container |
//! | `images_dir`, `told` | a directory for CRIU; progress |

mod begin;
pub mod clock;
pub mod compare;
pub mod compatibility;
pub mod engine;
pub mod files;
mod finish;
pub mod foresight;
mod images_dir;
mod inherited_fd;
mod injected;
mod intake;
mod job_store;
pub mod lazy;
pub mod needs;
pub mod oci;
mod outlet;
mod precopy;
pub mod protocol;
pub mod recalled;
pub mod record;
pub mod rehearsal;
mod restore;
mod save;
mod side_effects;
mod store_place;
mod told;
