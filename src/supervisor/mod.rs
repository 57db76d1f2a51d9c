//! The life of the workload as a state machine, and the duties of PID 1.
//!
//! [`state`] decides, [`life`] carries out. Everything else is one duty each.

mod clock;
pub mod control;
mod effort;
mod ending;
mod engine;
pub mod hook;
pub mod lease;
pub mod life;
pub mod out_of_memory;
pub mod settings;
pub mod signals;
pub mod state;
pub mod status;
mod termination;
pub mod words;

use crate::checkpoint::protocol::Event;

/// What reaches PID 1's loop besides signals and alarms.
#[derive(Debug)]
pub enum Input {
    /// The engine says something.
    Engine {
        /// Which engine: one that was given up may still speak.
        id: u64,
        /// What.
        event: Box<Event>,
    },
    /// The engine says nothing more.
    EngineClosed {
        /// Which engine.
        id: u64,
    },
    /// Somebody asks on the control socket.
    Asked(control::Asked),
    /// A trigger's source says something.
    Heard(crate::trigger::Heard),
    /// The claim was lost to another container.
    Fenced,
}
