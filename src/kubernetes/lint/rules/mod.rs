//! The rules, one file for each kind of death.

mod ending;
mod entrypoint;
mod eviction;
mod identity;
mod image;
mod privileges;
mod probes;
mod resources;
mod store;

use super::finding::Finding;
use super::workload::{Manifests, Workload};

/// A rule.
pub type Rule = fn(&Workload, &Manifests) -> Vec<Finding>;

/// All of them.
pub const ALL: &[Rule] = &[
    entrypoint::replaced,
    entrypoint::unseen,
    privileges::seccomp,
    privileges::capabilities,
    privileges::clock,
    privileges::privileged,
    store::ephemeral,
    store::secrets,
    identity::unstable,
    identity::shared,
    ending::grace,
    ending::deadline,
    ending::pre_stop,
    ending::retries,
    ending::policy,
    ending::restart,
    resources::memory_limit,
    resources::memory_request,
    resources::cpu_limit,
    resources::ephemeral_storage,
    eviction::priority,
    eviction::budget,
    eviction::autoscaler,
    probes::liveness,
    image::moving,
];
