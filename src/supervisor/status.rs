//! What the running entrypoint is doing, as it is told on the control socket and over HTTP.

use crate::checkpoint::protocol::{Progress, Saved};
use crate::job::{Generation, JobName};
use crate::observe::observed::Unsaved;
use crate::trigger::board::Snapshot;
use crate::workload::resources::Finding;
use serde::{Deserialize, Serialize};
#[cfg(test)]
use std::time::Duration;
use std::time::SystemTime;

/// What the running entrypoint is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The job.
    pub job: JobName,
    /// Store URL.
    pub store: Option<String>,
    /// Roughly what is going on, for machines.
    pub phase: Phase,
    /// The same in words: `beginning`, `running`, `saving`, `stopping`, …
    pub state: String,
    /// Whether the workload is frozen at this moment.
    pub frozen: bool,
    /// Since when this container runs, in milliseconds.
    pub uptime_ms: u64,
    /// PID of the workload's root (the reaper), if it runs.
    pub root_pid: Option<i32>,
    /// PID of the command, if it runs.
    pub command_pid: Option<i32>,
    /// The generation that this container continued from.
    pub restored_from: Option<Generation>,
    /// The newest durable save, of this container or restored by it.
    pub generation: Option<Generation>,
    /// When that was saved.
    pub saved_at: Option<SystemTime>,
    /// For how long the workload has worked since its last durable save, or since its start if there is
    /// none, in milliseconds: what would be lost if the container died now.
    #[serde(default)]
    pub unsaved_ms: u64,
    /// What the last save of this container cost.
    pub last_save: Option<Saved>,
    /// What could not be saved last, and why; none once a save has succeeded.
    #[serde(default)]
    pub unsaved: Option<Unsaved>,
    /// How far the save or restore under way is.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// What the end of the container before has cost, in milliseconds of work; none if nothing was restored.
    #[serde(default)]
    pub lost_work_ms: Option<u64>,
    /// From SIGTERM until the container is killed, in milliseconds.
    #[serde(default)]
    pub grace_ms: u64,
    /// Durable saves of this container.
    pub saves: u64,
    /// Failed saves of this container.
    pub failed_saves: u64,
    /// For how long the saves of this container have frozen the workload, in milliseconds.
    pub frozen_ms: u64,
    /// Bytes that the saves of this container have stored.
    pub stored_bytes: u64,
    /// Resident memory of this process, in bytes.
    pub resident_bytes: u64,
    /// Processor time that the container has used, in milliseconds; none where its control group is not to be seen.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// What the triggers show and have done.
    #[serde(default)]
    pub triggers: Snapshot,
    /// What the workload holds that cannot be saved, or will be lost, by the last look.
    #[serde(default)]
    pub not_carried: Vec<Finding>,
}

/// Roughly what an entrypoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It takes the claim and restores, or starts the workload.
    Beginning,
    /// The workload runs.
    Running,
    /// The workload is being saved, and runs on afterwards.
    Saving,
    /// The workload is on its way to its end, saved or not.
    Stopping,
    /// The workload has ended.
    Ending,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Beginning, Self::Running, Self::Saving, Self::Stopping, Self::Ending];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Beginning => "beginning",
            Self::Running => "running",
            Self::Saving => "saving",
            Self::Stopping => "stopping",
            Self::Ending => "ending",
        }
    }
}

#[cfg(test)]
#[allow(clippy::missing_panics_doc)]
impl Status {
    /// A workload that runs and was saved.
    pub fn example() -> Self {
        Self {
            job: "assembly".parse().unwrap(),
            store: Some("file:///checkpoints".into()),
            phase: Phase::Running,
            state: "running".into(),
            frozen: false,
            uptime_ms: 7_500_000,
            root_pid: Some(301),
            command_pid: Some(302),
            restored_from: "1-3".parse().ok(),
            generation: "2-1".parse().ok(),
            saved_at: Some(SystemTime::now() - Duration::from_secs(200)),
            unsaved_ms: 200_000,
            last_save: Some(Saved {
                generation: "2-1".parse().unwrap(),
                at: SystemTime::now() - Duration::from_secs(200),
                image_bytes: 13_314_398_618,
                stored_bytes: 325_058_560,
                frozen_ms: 1200,
                total_ms: 4100,
            }),
            unsaved: None,
            progress: Some(Progress {
                phase: "upload".into(),
                done_bytes: 5 << 20,
                total_bytes: Some(10 << 20),
                store_bytes: 1 << 20,
            }),
            lost_work_ms: Some(0),
            grace_ms: 30_000,
            triggers: Self::example_triggers(),
            not_carried: Vec::new(),
            saves: 2,
            failed_saves: 0,
            frozen_ms: 2400,
            stored_bytes: 425_058_560,
            resident_bytes: 9 << 20,
            cpu_ms: Some(57_000_000),
        }
    }

    fn example_triggers() -> Snapshot {
        use crate::trigger::{Reading, Source, Unit, board::Notice};
        let reading = |source, value, threshold, low, unit| Reading {
            source,
            of: String::new(),
            value,
            threshold,
            low,
            unit,
            at: SystemTime::now(),
            noticed: crate::trigger::Noticed::default(),
        };
        Snapshot {
            readings: vec![
                reading(Source::Memory, 0.71, 0.9, false, Unit::Ratio),
                reading(Source::Disk, 40e9, 1e9, true, Unit::Bytes),
            ],
            fired: [(Source::Schedule, 2)].into(),
            held_back: [(Source::Memory, 1)].into(),
            next_scheduled: Some(SystemTime::now() + Duration::from_secs(1500)),
            notice: Some(Notice {
                source: Source::Spot,
                reason: "the spot instance is taken away".into(),
                deadline: SystemTime::now() + Duration::from_secs(100),
            }),
            restored_after_oom: 0,
            last_oom: None,
            most_held: Some(12 << 30),
        }
    }
}
