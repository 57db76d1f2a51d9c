//! revenant: a container entrypoint that lets a long-running workload outlive its container.
//!
//! Each folder is a room with one purpose. Data flows one way, workload → CRIU → chunks →
//! packs → store, and back. `docs/architecture.md` shows how the rooms fit together.

pub mod checkpoint;
pub mod cli;
pub mod criu;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod failpoint;
pub mod job;
pub mod kubernetes;
pub mod observe;
pub mod repository;
pub mod store;
pub mod supervisor;
pub mod trigger;
pub mod workload;
