use super::*;
use crate::job::{Epoch, Generation};
use crate::supervisor::out_of_memory::OutOfMemory;
use crate::workload::resources::{Effect, Finding};
use std::collections::BTreeSet;

fn saved() -> Saved {
    Saved {
        generation: Generation { epoch: Epoch(2), sequence: 7 },
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
        image_bytes: 1 << 30,
        stored_bytes: 1 << 20,
        frozen_ms: 400,
        total_ms: 2_000,
    }
}

fn busy() -> Metrics {
    let metrics = Metrics::new("assembly".parse().unwrap());
    metrics.began("restored");
    metrics.restored(Duration::from_secs(3), Duration::from_secs(5), 5 << 30);
    metrics.lost_work(Duration::from_secs(90));
    metrics.saved(&saved(), Duration::from_millis(100), Some(Source::Schedule));
    metrics.save_failed(Some(Source::Memory));
    metrics.store_trouble(1, 5);
    metrics.warned();
    metrics
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {text}"))
}

#[test]
fn phases_add_up_to_the_whole() {
    let text = busy().text(&Status::example());
    let sum = |phase: &str| -> f64 {
        let start = format!("revenant_save_duration_seconds_sum{{revenant_job=\"assembly\",phase=\"{phase}\"}}");
        line(&text, &start).rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!((sum("prepare") + sum("dump") + sum("store") - sum("total")).abs() < 1e-9, "{text}");
    assert!((sum("total") - 2.0).abs() < 1e-9);
    let restore =
        |phase: &str| format!("revenant_restore_duration_seconds_sum{{revenant_job=\"assembly\",phase=\"{phase}\"}}");
    for (phase, seconds) in [("prepare", "2.0"), ("restore", "3.0"), ("total", "5.0")] {
        assert_eq!(line(&text, &restore(phase)), format!("{} {seconds}", restore(phase)));
    }
    let failed = "revenant_saves_total{revenant_job=\"assembly\",result=\"failed\",source=\"memory\"} 1";
    assert_eq!(line(&text, "revenant_saves_total{revenant_job=\"assembly\",result=\"failed\""), failed);
    assert!(text.contains("revenant_store_retries_total{revenant_job=\"assembly\"} 5"), "{text}");
    assert!(text.contains("revenant_state{revenant_job=\"assembly\",state=\"running\"} 1"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

fn killed() -> OutOfMemory {
    let unjudged = OutOfMemory {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
        limit: Some(1000),
        peak: Some(1000),
        peak_with_swap: None,
        asked: Some(1700),
        growth_per_second: None,
        excess: None,
    };
    unjudged.judge()
}

#[test]
fn an_oom_kill_is_told_with_its_excess() {
    let mut status = Status::example();
    assert!(!busy().text(&status).contains("revenant_oom"));
    status.triggers.last_oom = Some(killed());
    let text = busy().text(&status);
    assert!(text.contains("revenant_oom_excess_bytes{revenant_job=\"assembly\"} 700"), "{text}");
    assert!(text.contains("revenant_oom_limit_bytes{revenant_job=\"assembly\"} 1000"), "{text}");
}

#[test]
fn what_cannot_be_carried_is_counted_by_its_effect_also_when_there_is_nothing() {
    let mut status = Status::example();
    let count = |status: &Status, effect: &str| {
        let start = format!("revenant_not_carried{{revenant_job=\"assembly\",effect=\"{effect}\"}}");
        line(&busy().text(status), &start).rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(["prevents", "spoils", "loses"].map(|effect| count(&status, effect)), ["0", "0", "0"]);
    for effect in [Effect::Prevents, Effect::Loses, Effect::Loses] {
        status.not_carried.push(Finding {
            effect,
            pid: Some(300),
            program: "megahit".to_owned(),
            descriptor: None,
            what: "traced by process 9".to_owned(),
            reason: String::new(),
            remedy: String::new(),
        });
    }
    assert_eq!(["prevents", "spoils", "loses"].map(|effect| count(&status, effect)), ["1", "0", "2"]);
}

/// What is added up over its labels must be of one kind, so readings of one unit are one metric.
#[test]
fn readings_are_apart_by_unit() {
    let text = busy().text(&Status::example());
    assert!(
        text.contains("revenant_pressure_ratio{revenant_job=\"assembly\",source=\"memory\",of=\"\"} 0.71"),
        "{text}"
    );
    assert!(
        text.contains("revenant_pressure_bytes{revenant_job=\"assembly\",source=\"disk\",of=\"\"} 40000000000"),
        "{text}"
    );
    assert!(!text.contains("revenant_pressure_ratio{revenant_job=\"assembly\",source=\"disk\""), "{text}");
}

#[test]
fn every_metric_keeps_to_the_conventions() {
    let text = busy().text(&Status::example());
    let mut names = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(names.insert(name), "{name} twice");
        assert!(name.starts_with("revenant_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(!name.contains("_ms") && !name.contains("milli"), "{name} is not in base units");
        assert!(!name.ends_with("_total"), "{name}: the format adds _total to a {kind} by itself");
    }
    assert!(names.len() > 25, "{names:?}");
}

/// A panel or an alert on a metric that does not exist shows nothing, for ever.
#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_exist() {
    let mut status = Status::example();
    status.triggers.last_oom = Some(killed());
    let text = busy().text(&status);
    let mut known: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    // Set by the label of every metric.
    known.insert(JOB);
    for (name, file) in [
        ("alerts.yaml", include_str!("../../deploy/alerts.yaml")),
        ("alerts-test.yaml", include_str!("../../deploy/alerts-test.yaml")),
        ("grafana-dashboard.json", include_str!("../../deploy/grafana-dashboard.json")),
    ] {
        let words = file.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("revenant_")).collect();
        assert!(!used.is_empty(), "{name} uses none");
        for word in used {
            assert!(known.contains(word), "{name} uses {word}, which is no metric of revenant");
        }
    }
}
