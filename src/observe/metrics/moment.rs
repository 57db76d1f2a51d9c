//! What is so at the moment of the scrape: gauges, from the status.

use super::since_1970;
use crate::supervisor::control::{Phase, Status};
use crate::supervisor::out_of_memory::OutOfMemory;
use crate::trigger::board::Snapshot;
use crate::trigger::{self, Reading};
use crate::workload::resources::{Effect, Finding};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

type Number = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EffectLabels {
    effect: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadingLabels {
    source: &'static str,
    of: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProgressLabels {
    phase: String,
}

pub(super) fn register(registry: &mut Registry, status: &Status) {
    let phases = Family::<StateLabels, Gauge>::default();
    for phase in Phase::ALL {
        phases.get_or_create(&StateLabels { state: phase.name() }).set(i64::from(phase == status.phase));
    }
    registry.register("state", "1 for the state that the entrypoint is in", phases);
    let whole = |value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        gauge
    };
    registry.register("frozen", "1 while the workload is frozen for a save", whole(i64::from(status.frozen)));
    seconds(registry, "uptime", "Since when this container runs", ms(status.uptime_ms));
    bytes(registry, "resident_memory", "Memory of the entrypoint itself", status.resident_bytes);
    if let Some(held) = status.triggers.most_held {
        bytes(registry, "container_memory_held_max", "The most memory that the container was seen to hold", held);
    }
    if let Some(used) = status.cpu_ms {
        seconds(registry, "container_cpu", "Processor time that the container has used", ms(used));
    }
    if let Some(generation) = status.generation {
        let epoch = i64::try_from(generation.epoch.0).unwrap_or(i64::MAX);
        let sequence = i64::try_from(generation.sequence).unwrap_or(i64::MAX);
        registry.register("generation_epoch", "Newest durable generation: its claim", whole(epoch));
        registry.register("generation_sequence", "Newest durable generation: its number in the claim", whole(sequence));
    }
    if let Some(at) = status.saved_at {
        let help = "When the newest durable save was committed";
        seconds(registry, "last_durable_save_timestamp", help, since_1970(at));
    }
    seconds(registry, "unsaved_work", "Work that would be lost if the container died now", ms(status.unsaved_ms));
    seconds(registry, "grace_period", "From SIGTERM until the container is killed", ms(status.grace_ms));
    if let Some(saved) = &status.last_save {
        seconds(registry, "last_save_duration", "From request to durable, of the last save", ms(saved.total_ms));
        seconds(registry, "last_save_frozen", "For how long the last save froze the workload", ms(saved.frozen_ms));
        bytes(registry, "last_save_image", "Size of all images of the last save", saved.image_bytes);
        bytes(registry, "last_save_stored", "New to the store by the last save", saved.stored_bytes);
    }
    if let Some(progress) = &status.progress {
        let done = Family::<ProgressLabels, Number>::default();
        let labels = ProgressLabels { phase: progress.phase.clone() };
        done.get_or_create(&labels).set(float(progress.done_bytes));
        registry.register_with_unit("progress", "Handled so far by what is under way", Unit::Bytes, done);
        if let Some(total) = progress.total_bytes {
            let expected = Family::<ProgressLabels, Number>::default();
            expected.get_or_create(&labels).set(float(total));
            registry.register_with_unit("progress_expected", "Size of what is under way", Unit::Bytes, expected);
        }
    }
    not_carried(registry, &status.not_carried);
    triggers(registry, &status.triggers);
}

/// Always all three, so that an alert sees it end.
fn not_carried(registry: &mut Registry, findings: &[Finding]) {
    let counts = Family::<EffectLabels, Gauge>::default();
    for effect in Effect::ALL {
        let count = findings.iter().filter(|finding| finding.effect == effect).count();
        counts.get_or_create(&EffectLabels { effect: effect.name() }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    let help =
        "What the workload holds and a checkpoint cannot carry: prevents or spoils every save, or is lost by a restore";
    registry.register("not_carried", help, counts);
}

fn triggers(registry: &mut Registry, triggers: &Snapshot) {
    let counted = |counts: &BTreeMap<crate::trigger::Source, u64>| {
        let family = Family::<SourceLabels, Counter>::default();
        for (source, count) in counts {
            family.get_or_create(&SourceLabels { source: source.name() }).inc_by(*count);
        }
        family
    };
    registry.register("triggers", "Saves that were asked for, by source", counted(&triggers.fired));
    let help = "Saves that were asked for, but held back because one had just been made";
    registry.register("triggers_held_back", help, counted(&triggers.held_back));
    let oom = Counter::<u64>::default();
    oom.inc_by(triggers.restored_after_oom);
    registry.register("restored_after_oom", "Restores in this container after the workload was OOM-killed", oom);
    if let Some(killed) = &triggers.last_oom {
        out_of_memory(registry, killed);
    }
    if let Some(at) = triggers.next_scheduled {
        seconds(registry, "next_save_timestamp", "When the next scheduled save is due", since_1970(at));
    }
    if let Some(notice) = &triggers.notice {
        let help = "When the workload will be gone, as was announced";
        seconds(registry, "announced_end_timestamp", help, since_1970(notice.deadline));
    }
    readings(registry, &triggers.readings, trigger::Unit::Ratio, &Unit::Other("ratio".to_owned()));
    readings(registry, &triggers.readings, trigger::Unit::Bytes, &Unit::Bytes);
}

/// One metric for each unit: what is added up or compared must be of one kind.
fn readings(registry: &mut Registry, all: &[Reading], counts: trigger::Unit, unit: &Unit) {
    let (values, thresholds) = (Family::<ReadingLabels, Number>::default(), Family::<ReadingLabels, Number>::default());
    for reading in all.iter().filter(|reading| reading.unit == counts) {
        let labels = ReadingLabels { source: reading.source.name(), of: reading.of.clone() };
        values.get_or_create(&labels).set(reading.value);
        thresholds.get_or_create(&labels).set(reading.threshold);
    }
    registry.register_with_unit("pressure", "The latest value of what is watched", unit.clone(), values);
    registry.register_with_unit("pressure_threshold", "Where it makes revenant save", unit.clone(), thresholds);
}

fn out_of_memory(registry: &mut Registry, killed: &OutOfMemory) {
    seconds(registry, "oom_timestamp", "When the workload was killed for want of memory last", since_1970(killed.at));
    if let Some(limit) = killed.limit {
        bytes(registry, "oom_limit", "The memory limit at that kill", limit);
    }
    if let Some(peak) = killed.peak_with_swap.max(killed.peak) {
        bytes(registry, "oom_peak", "The most memory that the container had used until then, with swap", peak);
    }
    if let Some(excess) = killed.excess {
        let help = "By how much the workload exceeded the limit, estimated where it was not swapped out";
        bytes(registry, "oom_excess", help, excess.bytes);
    }
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Number::default();
    gauge.set(value);
    registry.register_with_unit(name, help, Unit::Seconds, gauge);
}

fn bytes(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Number::default();
    gauge.set(float(value));
    registry.register_with_unit(name, help, Unit::Bytes, gauge);
}

#[allow(clippy::cast_precision_loss)] // Prometheus knows floats only; they are exact up to 8 PiB.
fn float(count: u64) -> f64 {
    count as f64
}

fn ms(count: u64) -> f64 {
    std::time::Duration::from_millis(count).as_secs_f64()
}
