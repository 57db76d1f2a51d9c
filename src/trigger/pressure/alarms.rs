//! The kernel's own alarms about memory, where it gives them: PSI of version 2, thresholds and pressure levels of
//! version 1. They end the pause between two looks; they decide nothing.

use super::stall;
use crate::trigger::Noticed;
use crate::workload::cgroup::Group;
use crate::workload::cgroup::event_control::{Bell, Pressure};
use std::io;
use std::time::{Duration, Instant};

/// However often the kernel rings, there is at least this between two looks.
const SHORTEST: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Default)]
pub struct Alarms {
    stalls: stall::Alarm,
    node_stalls: stall::Alarm,
    group: Option<Group>,
    /// At this use, in bytes.
    use_at: Option<(u64, io::Result<Bell>)>,
    medium: Option<Bell>,
    critical: Option<io::Result<Bell>>,
    /// When one of them rang last.
    rang: Option<Instant>,
}

impl Alarms {
    /// Of the container with this group for memory. To be called inside the runtime.
    pub fn of_this_container(group: Option<Group>) -> Self {
        // Version 2 has no such file.
        let group = group.filter(|group| !group.unified);
        let level = |pressure| group.as_ref().map(|group| Bell::at_pressure(&group.folder, pressure));
        Self {
            stalls: stall::Alarm::of_this_container(),
            node_stalls: stall::Alarm::of_the_node(),
            use_at: None,
            medium: level(Pressure::Medium).and_then(Result::ok),
            critical: level(Pressure::Critical),
            rang: None,
            group,
        }
    }

    /// The bell is to ring at this use of memory, in bytes: the threshold moves when the limit does.
    pub fn ring_at(&mut self, bytes: u64) {
        let Some(group) = self.group.as_ref().filter(|_| self.use_at.as_ref().is_none_or(|(at, _)| *at != bytes))
        else {
            return;
        };
        self.use_at = Some((bytes, Bell::at_use(&group.folder, bytes)));
    }

    /// How often the kernel has found next to nothing to free, since the last look. None where it does not tell.
    pub fn take_critical(&self) -> Option<u64> {
        Some(self.critical.as_ref()?.as_ref().ok()?.take())
    }

    /// How a change of the memory in use is noticed.
    pub fn of_memory(&self) -> Noticed {
        match &self.use_at {
            Some((_, Ok(_))) => Noticed::Told,
            Some((_, Err(error))) => Noticed::Looked { why: refused(error) },
            None => Noticed::default(),
        }
    }

    /// How a stall of the container is noticed.
    pub fn of_stalls(&self) -> Noticed {
        of_psi(&self.stalls)
    }

    /// How a stall of the node is noticed.
    pub fn of_node_stalls(&self) -> Noticed {
        of_psi(&self.node_stalls)
    }

    /// Returns when one of them rings, never where there is none.
    pub async fn ring(&mut self) {
        let thresholds = self.use_at.iter().filter_map(|(_, bell)| bell.as_ref().ok());
        let critical = self.critical.iter().filter_map(|bell| bell.as_ref().ok());
        let bells: Vec<&Bell> = thresholds.chain(&self.medium).chain(critical).collect();
        let any = async {
            if bells.is_empty() {
                return std::future::pending().await;
            }
            drop(futures::future::select_all(bells.into_iter().map(|bell| Box::pin(bell.rings()))).await);
        };
        tokio::select! {
            () = any => {}
            () = self.stalls.rings() => {}
            () = self.node_stalls.rings() => {}
        }
        // A timer only where they ring: an idle PID 1 is to sleep.
        if let Some(early) = self.rang.and_then(|at| SHORTEST.checked_sub(at.elapsed())) {
            tokio::time::sleep(early).await;
        }
        self.rang = Some(Instant::now());
        // What is critical is counted by its gauge.
        for bell in self.use_at.iter().filter_map(|(_, bell)| bell.as_ref().ok()).chain(&self.medium) {
            bell.take();
        }
    }
}

fn of_psi(alarm: &stall::Alarm) -> Noticed {
    match alarm.refused() {
        None => Noticed::Told,
        Some(error) => Noticed::Looked { why: format!("the pressure file: {error}") },
    }
}

fn refused(error: &io::Error) -> String {
    format!("cgroup.event_control: {error}")
}
