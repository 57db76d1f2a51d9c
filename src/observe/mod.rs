//! What people and machines see of a run: metrics, probes, progress, and who speaks in the log.
//!
//! Nothing here decides anything about the workload. PID 1's loop tells [`Observed`] what happens; HTTP and
//! the control socket ask that loop for its [`Status`](crate::supervisor::control::Status).

pub mod http;
pub mod identity;
pub mod log_form;
pub mod metrics;
pub mod observed;
pub mod pace;
pub mod probe;

pub use metrics::Metrics;
pub use observed::Observed;
