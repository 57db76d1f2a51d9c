//! What a run has used, read from what it told: its status as JSON, or its metrics as Prometheus scrapes them.

use std::time::Duration;

/// The metric of [`Usage::memory`].
pub const MEMORY_METRIC: &str = "revenant_container_memory_held_max_bytes";
/// The metric of [`Usage::cpu`].
pub const CPU_METRIC: &str = "revenant_container_cpu_seconds";
/// The metric of [`Usage::time`].
pub const TIME_METRIC: &str = "revenant_uptime_seconds";

/// What one container, or several of the same job, have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// The most memory at a time, in bytes.
    pub memory: u64,
    /// Processor time.
    pub cpu: Duration,
    /// For how long.
    pub time: Duration,
    /// How many containers.
    pub containers: u32,
}

impl Usage {
    /// Both: the higher peak, and the times together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            memory: self.memory.max(other.memory),
            cpu: self.cpu + other.cpu,
            time: self.time + other.time,
            containers: self.containers + other.containers,
        }
    }

    /// Busy cores, on average.
    pub fn cores(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.cpu.as_secs_f64() / self.time.as_secs_f64() }
    }

    /// Of `revenant status --json`, or of metrics in Prometheus' text format. None when it says nothing of use.
    pub fn read(text: &str) -> Option<Self> {
        let status = serde_json::from_str(text).ok().as_ref().and_then(Self::of_status);
        status.or_else(|| Self::of_metrics(text)).filter(|usage| usage.memory > 0 && !usage.time.is_zero())
    }

    fn of_status(status: &serde_json::Value) -> Option<Self> {
        let ms = |name: &str| status.get(name)?.as_u64().map(Duration::from_millis);
        Some(Self {
            memory: status.get("triggers")?.get("most_held")?.as_u64()?,
            cpu: ms("cpu_ms")?,
            time: ms("uptime_ms")?,
            containers: 1,
        })
    }

    /// Samples of the same name are of different containers, or of one at different times: then each adds a container
    /// only once for each set of labels, and the highest value counts.
    fn of_metrics(text: &str) -> Option<Self> {
        let mut series: std::collections::BTreeMap<&str, [f64; 3]> = std::collections::BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, rest)) = line.split_once(['{', ' ']) else { continue };
            let Some(place) = [MEMORY_METRIC, CPU_METRIC, TIME_METRIC].iter().position(|known| *known == name) else {
                continue;
            };
            let (labels, value) = rest.rsplit_once('}').unwrap_or(("", rest));
            let value: f64 = value.split_whitespace().next()?.parse().ok()?;
            if let Some(seen) = series.entry(labels).or_default().get_mut(place) {
                *seen = seen.max(value);
            }
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A size in bytes, checked to be one.
        let one = |[memory, cpu, time]: &[f64; 3]| Self {
            memory: if memory.is_finite() { memory.clamp(0.0, 1e18) as u64 } else { 0 },
            cpu: Duration::try_from_secs_f64(*cpu).unwrap_or_default(),
            time: Duration::try_from_secs_f64(*time).unwrap_or_default(),
            containers: 1,
        };
        series.values().map(one).reduce(Self::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_and_metrics_say_the_same() {
        let status = r#"{"job":"a","uptime_ms":100000,"cpu_ms":750000,"triggers":{"most_held":12884901888}}"#;
        let metrics = "# HELP revenant_uptime_seconds Since when\n\
                       revenant_uptime_seconds{pod=\"a\"} 100.0\n\
                       revenant_container_cpu_seconds{pod=\"a\"} 750.0\n\
                       revenant_container_memory_held_max_bytes{pod=\"a\"} 1000\n\
                       revenant_container_memory_held_max_bytes{pod=\"a\"} 12884901888\n\
                       other_metric 7\n";
        let read = Usage::read(status).unwrap();
        assert_eq!(Usage::read(metrics), Some(read));
        assert_eq!((read.memory, read.cores()), (12 << 30, 7.5));
        let both = read.and(Usage { memory: 1, cpu: Duration::ZERO, time: Duration::from_secs(100), containers: 1 });
        assert_eq!((both.memory, both.cores(), both.containers), (12 << 30, 3.75, 2));
    }

    #[test]
    fn what_says_nothing_is_nothing() {
        for text in ["", "{}", "[1]", "revenant_uptime_seconds", "revenant_uptime_seconds NaN", "null"] {
            assert_eq!(Usage::read(text), None, "{text}");
        }
    }
}
