//! Reasons to save, and what they were read from: one file each, one stream of typed events.
//!
//! A source looks at one thing (a gauge of the container, a file, a cloud's notice, the cluster's API) and says
//! what it saw as [`Heard`]. It decides nothing: the [`book`] holds back what comes too often, and the
//! supervisor's state machine knows what a trigger means at this moment (docs/state-machine.md).

pub mod board;
pub mod book;
pub mod budget;
pub mod cloud;
pub mod file;
pub mod hysteresis;
pub mod interval;
pub mod outside;
pub mod pressure;
pub mod watching;

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// The board of this process, as its sources and the supervisor share it.
pub type SharedBoard = Rc<RefCell<board::Board>>;

/// Where a reason to save comes from. The names are those of metrics and of `revenant status --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A signal to revenant: the stop signal, or SIGUSR1.
    Signal,
    /// `revenant checkpoint`, or HTTP.
    Request,
    /// `--every`.
    Schedule,
    /// A file that somebody touched or wrote.
    File,
    /// Memory of the container's cgroup against its limit.
    Memory,
    /// Stalls for want of memory in the container's cgroup (PSI).
    MemoryStall,
    /// The kernel finds next to nothing to free in the container's cgroup (version 1's `memory.pressure_level`).
    MemoryPressure,
    /// Memory that the node has left.
    NodeMemory,
    /// Stalls for want of memory on the whole node (PSI).
    NodeStall,
    /// Bytes left where the container writes.
    Disk,
    /// Inodes left where the container writes.
    Inodes,
    /// Processes and threads of the container's cgroup against its limit.
    Pids,
    /// The pod is being deleted, evicted or preempted.
    Pod,
    /// The node is in trouble, tainted, cordoned or shutting down.
    Node,
    /// The cloud takes the machine away.
    Spot,
    /// The cloud expects to take the machine away.
    Rebalance,
    /// The cloud is going to stop, move or restart the machine.
    Maintenance,
}

impl Source {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Request => "request",
            Self::Schedule => "schedule",
            Self::File => "file",
            Self::Memory => "memory",
            Self::MemoryStall => "memory-stall",
            Self::MemoryPressure => "memory-pressure",
            Self::NodeMemory => "node-memory",
            Self::NodeStall => "node-stall",
            Self::Disk => "disk",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Spot => "spot",
            Self::Rebalance => "rebalance",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much a trigger matters, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// A save is due. It waits for its turn.
    Routine,
    /// Something is getting scarce: a save soon, but not one after the other.
    Pressing,
    /// The end is announced, or somebody has asked: now, whatever was saved before.
    Now,
}

/// One reason to save.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// From where.
    pub source: Source,
    /// How much it matters.
    pub urgency: Urgency,
    /// In words, for the log and the manifest: `spot instance is taken away`.
    pub reason: String,
    /// When the workload will be gone, where that is known.
    #[serde(default)]
    pub deadline: Option<SystemTime>,
}

/// What a gauge shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Of which source.
    pub source: Source,
    /// What exactly, where one source has several: a path, a node's condition. Empty otherwise.
    #[serde(default)]
    pub of: String,
    /// How much.
    pub value: f64,
    /// How much is too much (or too little, see `low`): where the trigger fires.
    pub threshold: f64,
    /// Fires below the threshold, not above.
    #[serde(default)]
    pub low: bool,
    /// What is counted.
    pub unit: Unit,
    /// When it was read.
    pub at: SystemTime,
    /// How a change is noticed.
    #[serde(default)]
    pub noticed: Noticed,
}

/// How it comes that a gauge is read at the right moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Noticed {
    /// It is looked at every few seconds, as there is no other way.
    #[default]
    Looking,
    /// The kernel rings, at once; and it is looked at besides.
    Told,
    /// The kernel could ring, but this container may not ask for it.
    Looked {
        /// What was refused.
        why: String,
    },
}

/// What a reading counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A part of the whole, from 0 to 1.
    Ratio,
}

/// What a source says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "heard", rename_all = "kebab-case")]
pub enum Heard {
    /// A reason to save.
    Trigger(Trigger),
    /// What a gauge shows now.
    Reading(Reading),
    /// What was announced will not happen.
    Withdrawn {
        /// By whom.
        source: Source,
    },
    /// What the pod says about the time between SIGTERM and SIGKILL.
    Grace {
        /// `terminationGracePeriodSeconds`.
        period: Duration,
    },
    /// The container will be killed at this moment, whatever happens before: a pod's grace period runs
    /// from its deletion, not from the SIGTERM.
    KilledAt {
        /// The moment.
        at: SystemTime,
    },
    /// One line that an operator wants to read.
    Note {
        /// The line.
        message: String,
    },
}
