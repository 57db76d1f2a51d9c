//! Things that run out: looked at every few seconds, more often when memory runs out fast.
//!
//! All gauges are read in one go, so that PID 1 wakes up once for all of them.

pub mod alarms;
pub mod disk;
mod gauge;
pub mod growth;
pub mod level;
pub mod node;
pub mod pace;
pub mod pause;
pub mod stall;

use super::hysteresis::Band;
use super::watching::Watching;
use super::{Heard, SharedBoard, Source, Unit};
use crate::supervisor::words;
use crate::workload::asked;
use crate::workload::cgroup;
use crate::workload::cgroup::memory::Memory;
use alarms::Alarms;
use gauge::{Gauge, Probe};
use pace::Pace;
use pause::Pause;
use std::time::Instant;
use tokio::sync::mpsc::Sender;

/// Stalls: the part of the last ten seconds in which nothing of the group could go on for want of memory.
const STALLED: Band = Band { fire: 0.2, rearm: 0.1 };
/// Version 1's word for the same: the part of the last ten seconds in which next to nothing could be freed.
const CRITICAL: Band = Band { fire: 0.5, rearm: 0.1 };
/// The kubelet evicts at 15 % of the bytes where containers write (`imagefs.available<15%`; `nodefs.available<10%` where
/// images lie elsewhere) and 5 % of the inodes (`nodefs.inodesFree<5%`):
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#hard-eviction-thresholds>.
const DISK: Band = Band { fire: 0.17, rearm: 0.20 };
const INODES: Band = Band { fire: 0.07, rearm: 0.10 };
/// A save itself needs processes and threads.
const PIDS: Band = Band { fire: 0.85, rearm: 0.75 };
/// From this part of the limit on, it is looked at what the processes have asked for: they may get no further.
const FILLING: f64 = 0.5;
/// Of a container with more processes, only so many are asked: it is for an estimate.
const MOST_PROCESSES: usize = 256;
/// A recovered gauge is this far below the memory threshold.
const MEMORY_BAND: f64 = 0.1;

/// Watches for as long as it is polled.
pub async fn watch(watching: Watching, board: SharedBoard, heard: Sender<Heard>) {
    let memory = Memory::here();
    let mut alarms = Alarms::of_this_container(memory.as_ref().map(|memory| memory.group().clone()));
    let mut gauges = gauges(&watching, memory.clone());
    let (mut pace, mut pause) = (Pace::default(), Pause::of_the_kernel());
    let mut asked_at = 0;
    loop {
        if let Some(limit) = memory.as_ref().and_then(Memory::look).and_then(|seen| seen.limit) {
            alarms.ring_at(part(limit, watching.memory_threshold));
        }
        for gauge in &mut gauges {
            let Some((reading, said)) = gauge.look(&alarms) else { continue };
            board.borrow_mut().read(reading);
            if let Some(said) = said
                && heard.send(said).await.is_err()
            {
                return;
            }
        }
        if let Some(kills) = memory.as_ref().and_then(Memory::kills) {
            board.borrow_mut().killed(kills, Instant::now());
        }
        let seen = memory.as_ref().and_then(Memory::look);
        if let Some(seen) = seen {
            // What was asked for is looked at again when more of it has come.
            let more = seen.limit.is_some_and(|limit| seen.held.abs_diff(asked_at) > limit / 100);
            let filling = more && seen.ratio().is_some_and(|ratio| ratio >= FILLING);
            let asked = filling.then(|| asked::private_bytes(MOST_PROCESSES));
            if filling {
                asked_at = seen.held;
            }
            board.borrow_mut().held(Instant::now(), seen.held, asked);
        }
        let long = pace.after(Instant::now(), seen.and_then(|seen| Some((seen.held, seen.limit?))));
        tokio::select! {
            () = pause.of(long) => {}
            () = alarms.ring() => {}
        }
    }
}

/// What there is to see in this container.
fn gauges(watching: &Watching, memory: Option<Memory>) -> Vec<Gauge> {
    let mut gauges = Vec::new();
    if let Some(memory) = memory {
        let band = Band { fire: watching.memory_threshold, rearm: watching.memory_threshold - MEMORY_BAND };
        let probe = Probe::Memory(memory);
        gauges.push(Gauge::new(Source::Memory, "", Unit::Ratio, band, probe, |value, _| {
            format!("the container holds {:.0} % of its memory limit", value * 100.0)
        }));
    }
    if let Some(folder) = cgroup::with_stalls() {
        let probe = Probe::Stall(folder.join("memory.pressure"));
        gauges.push(Gauge::new(Source::MemoryStall, "", Unit::Ratio, STALLED, probe, |value, _| {
            format!("the container waits for memory {:.0} % of the time", value * 100.0)
        }));
    }
    gauges.push(Gauge::new(
        Source::MemoryPressure,
        "",
        Unit::Ratio,
        CRITICAL,
        Probe::Level(level::Seconds::new(Instant::now())),
        |value, _| {
            let seconds = level::Seconds::span().as_secs_f64();
            format!(
                "the kernel could hardly free any memory of the container in {:.0} of the last {seconds} seconds",
                value * seconds
            )
        },
    ));
    if let Some(group) = cgroup::of("pids") {
        gauges.push(Gauge::new(Source::Pids, "", Unit::Ratio, PIDS, Probe::Pids(group.folder), |value, _| {
            format!("the container has {:.0} % of the processes and threads that it may have", value * 100.0)
        }));
    }
    let node = node::Memory::default();
    if let Some(band) = node.band(watching.eviction_memory) {
        gauges.push(Gauge::new(Source::NodeMemory, "", Unit::Bytes, band, Probe::Node(node), |value, _| {
            format!("the node has {} of memory left, near the kubelet's eviction threshold", words::bytes(whole(value)))
        }));
    }
    let probe = Probe::Stall(stall::NODE.into());
    gauges.push(Gauge::new(Source::NodeStall, "", Unit::Ratio, STALLED, probe, |value, _| {
        format!("the node waits for memory {:.0} % of the time", value * 100.0)
    }));
    for folder in watching.folders.iter().filter(|folder| disk::is_local(folder)) {
        let name = folder.display().to_string();
        gauges.push(Gauge::new(Source::Disk, &name, Unit::Ratio, DISK, Probe::Disk(folder.clone()), |value, of| {
            format!("{of} has {:.0} % of its space left", value * 100.0)
        }));
        gauges.push(Gauge::new(
            Source::Inodes,
            &name,
            Unit::Ratio,
            INODES,
            Probe::Inodes(folder.clone()),
            |value, of| format!("{of} has {:.0} % of its inodes left", value * 100.0),
        ));
    }
    gauges
}

/// A part of so many bytes.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn part(bytes: u64, of: f64) -> u64 {
    (bytes as f64 * of) as u64
}

/// For reading, not for counting.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
