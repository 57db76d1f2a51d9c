//! revenant and Kubernetes: reviewing and writing manifests of long jobs, moving a job to larger nodes,
//! watching the pod and its node.

pub mod lint;
pub mod manifest;
pub mod promote;
pub mod usage;
pub mod watch;
