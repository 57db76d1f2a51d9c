//! Prometheus metrics of one run. Names and units follow Prometheus' conventions: base units (seconds,
//! bytes), `_total` for what only grows, timestamps as seconds since 1970.
//!
//! What only PID 1's loop sees when it happens is counted here as it happens; everything else is
//! taken from the [`Status`] of the moment when somebody scrapes.

mod moment;

use crate::checkpoint::protocol::Saved;
use crate::job::JobName;
use crate::supervisor::control::Status;
use crate::supervisor::hook::Moment;
use crate::trigger::Source;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::time::{Duration, SystemTime};

/// Upper bounds in seconds. Saves take from tens of milliseconds to hours.
const SECONDS: [f64; 16] =
    [0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 10800.0];

/// The label that names the job. Not `job`, which Prometheus itself sets.
const JOB: &str = "revenant_job";

/// A part of a save or restore.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: &'static str,
}

/// How a save ended, and why it was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SaveLabels {
    result: &'static str,
    source: &'static str,
}

/// Which hook, and how it ended: `ok`, `failed`, `timeout`, `skipped`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    hook: &'static str,
    result: &'static str,
}

/// How the container began.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BeginLabels {
    outcome: &'static str,
}

/// The metrics of a run. Cheap to clone: the clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    job: JobName,
    save_seconds: Family<Phase, Histogram, fn() -> Histogram>,
    frozen_seconds: Histogram,
    saves: Family<SaveLabels, Counter>,
    image_bytes: Counter,
    stored_bytes: Counter,
    last_failed: Gauge<f64, std::sync::atomic::AtomicU64>,
    begins: Family<BeginLabels, Counter>,
    restore_seconds: Family<Phase, Histogram, fn() -> Histogram>,
    restore_bytes: Counter,
    lost_work: Gauge<f64, std::sync::atomic::AtomicU64>,
    hooks: Family<HookLabels, Counter>,
    store_retries: Counter,
    store_errors: Counter,
    warnings: Counter,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    /// Of a job's run that begins now.
    pub fn new(job: JobName) -> Self {
        Self {
            job,
            save_seconds: Family::new_with_constructor(histogram),
            frozen_seconds: histogram(),
            saves: Family::default(),
            image_bytes: Counter::default(),
            stored_bytes: Counter::default(),
            last_failed: Gauge::default(),
            begins: Family::default(),
            restore_seconds: Family::new_with_constructor(histogram),
            restore_bytes: Counter::default(),
            lost_work: Gauge::default(),
            hooks: Family::default(),
            store_retries: Counter::default(),
            store_errors: Counter::default(),
            warnings: Counter::default(),
        }
    }

    /// A save is durable. `prepare` is the time from the request until the workload was frozen.
    pub fn saved(&self, saved: &Saved, prepare: Duration, source: Option<Source>) {
        let (total, frozen) = (Duration::from_millis(saved.total_ms), Duration::from_millis(saved.frozen_ms));
        let store = total.saturating_sub(prepare).saturating_sub(frozen);
        for (phase, time) in [("prepare", prepare), ("dump", frozen), ("store", store), ("total", total)] {
            self.save_seconds.get_or_create(&Phase { phase }).observe(time.as_secs_f64());
        }
        self.frozen_seconds.observe(frozen.as_secs_f64());
        self.image_bytes.inc_by(saved.image_bytes);
        self.stored_bytes.inc_by(saved.stored_bytes);
        self.saves.get_or_create(&SaveLabels { result: "durable", source: name(source) }).inc();
    }

    /// A save has failed.
    pub fn save_failed(&self, source: Option<Source>) {
        self.last_failed.set(since_1970(SystemTime::now()));
        self.saves.get_or_create(&SaveLabels { result: "failed", source: name(source) }).inc();
    }

    /// A hook has ended: `ok`, `failed`, `timeout`, or was `skipped`.
    pub fn hook_ended(&self, moment: Moment, result: &'static str) {
        self.hooks.get_or_create(&HookLabels { hook: moment.name(), result }).inc();
    }

    /// How the container began: `restored`, `resumed`, `fresh`, `complete` or `failed`.
    pub fn began(&self, outcome: &'static str) {
        self.begins.get_or_create(&BeginLabels { outcome }).inc();
    }

    /// A restore is over: `total` since the container began or went back, `took` of it since the generation was chosen.
    pub fn restored(&self, took: Duration, total: Duration, bytes: u64) {
        let prepare = total.saturating_sub(took);
        for (phase, time) in [("prepare", prepare), ("restore", took), ("total", prepare + took)] {
            self.restore_seconds.get_or_create(&Phase { phase }).observe(time.as_secs_f64());
        }
        self.restore_bytes.inc_by(bytes);
    }

    /// How much work the end of the container before has cost.
    pub fn lost_work(&self, lost: Duration) {
        self.lost_work.set(lost.as_secs_f64());
    }

    /// Operations of the store that failed for good, and attempts that were repeated.
    pub fn store_trouble(&self, errors: u64, retries: u64) {
        self.store_errors.inc_by(errors);
        self.store_retries.inc_by(retries);
    }

    /// Something went wrong that did not stop the work.
    pub fn warned(&self) {
        self.warnings.inc();
    }

    /// Everything as text, in the `OpenMetrics` format.
    pub fn text(&self, status: &Status) -> String {
        let mut registry =
            Registry::with_prefix_and_labels("revenant", std::iter::once((JOB.into(), self.job.to_string().into())));
        self.register(&mut registry);
        moment::register(&mut registry, status);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }

    fn register(&self, registry: &mut Registry) {
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of revenant", version);
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "save_duration",
            "Time of durable saves: prepare until the workload is frozen, dump while it is, store until durable",
            seconds(),
            self.save_seconds.clone(),
        );
        registry.register_with_unit(
            "save_frozen",
            "For how long saves have frozen the workload",
            seconds(),
            self.frozen_seconds.clone(),
        );
        registry.register(
            "saves",
            "Saves that have ended, by result and by what they were made for",
            self.saves.clone(),
        );
        registry.register_with_unit(
            "save_image",
            "Size of all images of durable saves",
            Unit::Bytes,
            self.image_bytes.clone(),
        );
        registry.register_with_unit(
            "save_stored",
            "New to the store by durable saves, after compression",
            Unit::Bytes,
            self.stored_bytes.clone(),
        );
        registry.register_with_unit(
            "last_failed_save_timestamp",
            "When a save of this container failed last; 0 if none has",
            seconds(),
            self.last_failed.clone(),
        );
        registry.register("begins", "How this container began", self.begins.clone());
        registry.register_with_unit(
            "restore_duration",
            "Time of successful restores: prepare until the job is ours and a generation is chosen, restore until the workload runs",
            seconds(),
            self.restore_seconds.clone(),
        );
        registry.register_with_unit("restore", "Images given to restores", Unit::Bytes, self.restore_bytes.clone());
        registry.register_with_unit(
            "lost_work",
            "Work that the end of the container before has cost, as far as its last sign of life shows",
            seconds(),
            self.lost_work.clone(),
        );
        registry.register("hooks", "Hooks that have ended, by result", self.hooks.clone());
        registry.register("store_errors", "Operations of the store that failed for good", self.store_errors.clone());
        registry.register("store_retries", "Attempts at the store that were repeated", self.store_retries.clone());
        registry.register("warnings", "Troubles that did not stop the work", self.warnings.clone());
    }
}

fn name(source: Option<Source>) -> &'static str {
    source.map_or("none", Source::name)
}

/// Seconds since 1970; 0 for what was before.
fn since_1970(moment: SystemTime) -> f64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
