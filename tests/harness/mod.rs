//! Real containers, real stores and real CRIU for integration tests.
//!
//! A test says what the container is and what its user would do to it, and looks at what the user
//! would see: lines, files, the exit code.
//!
//! ```ignore
//! let store = Store::local();
//! let first = Container::of("my-job").store(&store).workload("counter.py", &[]).start();
//! first.wait_for_line("tick 5 ");
//! first.signal(Signal::SIGTERM);
//! assert_eq!(first.wait(), 200);
//! ```
//!
//! Containers are made by `runc` from an OCI bundle: a fresh root file system each (an overlay on
//! a cached Debian), namespaces of their own, the capabilities that the documentation asks for,
//! and the revenant under test at `/opt/revenant`. Needs root, and what `make test-needs` makes.
//! Everything is removed when its value is dropped, and what a killed test run has left behind is
//! removed by the next one.

#![allow(dead_code, unused_imports, reason = "each test program uses its own part of the harness")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::struct_excessive_bools, reason = "a container has as many switches as it has")]

mod cache;
mod capture;
mod console;
mod container;
mod overlay;
mod running;
mod scratch;
mod spec;
mod store;
mod ticks;

pub use cache::{criu, rootfs};
pub use container::{Container, Reader};
pub use nix::sys::signal::Signal;
pub use running::{Exec, Output, Running};
pub use scratch::Scratch;
pub use store::Store;
pub use ticks::Ticks;

use std::time::Duration;

/// How long a wait lasts before the test fails. Generous: it is a bound on hanging, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(180);
