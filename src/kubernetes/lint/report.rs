//! Findings for people, for programs, and for code review.

use super::finding::{Danger, Finding};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many workloads were reviewed.
    pub workloads: usize,
    /// Ordered by danger.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are at least this bad.
    pub fn at_least(&self, danger: Danger) -> usize {
        self.findings.iter().filter(|finding| finding.danger >= danger).count()
    }
}

/// For a person.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let Finding { rule, danger, file, line, workload, field, what, why, fix } = finding;
        let _ = writeln!(out, "{}: {what} [{rule}]", danger.word());
        let _ = writeln!(out, "  where: {file}:{line} {workload}, {field}");
        let _ = writeln!(out, "  why:   {why}");
        let _ = writeln!(out, "  fix:   {fix}\n");
    }
    let count = |danger| report.findings.iter().filter(|finding| finding.danger == danger).count();
    let _ = writeln!(
        out,
        "{} reviewed: {} fatal, {} costly, {} advice",
        if report.workloads == 1 { "1 workload".to_owned() } else { format!("{} workloads", report.workloads) },
        count(Danger::Fatal),
        count(Danger::Costly),
        count(Danger::Advice),
    );
    out
}

/// For a program.
pub fn json(report: &Report) -> Value {
    json!({"workloads": report.workloads, "findings": report.findings})
}

/// SARIF 2.1.0 (OASIS), as code hosts read it.
pub fn sarif(report: &Report) -> Value {
    let mut rules: BTreeMap<&str, Value> = BTreeMap::new();
    for finding in &report.findings {
        rules.entry(finding.rule).or_insert_with(|| {
            json!({"id": finding.rule, "shortDescription": {"text": finding.what},
                   "fullDescription": {"text": finding.why}, "help": {"text": finding.fix}})
        });
    }
    let level = |danger| match danger {
        Danger::Fatal => "error",
        Danger::Costly => "warning",
        Danger::Advice => "note",
    };
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "ruleId": finding.rule,
                "level": level(finding.danger),
                "message": {"text": format!("{}: {}. {}", finding.workload, finding.what, finding.fix)},
                "locations": [{
                    "physicalLocation": {
                        "artifactLocation": {"uri": finding.file},
                        "region": {"startLine": finding.line},
                    },
                    "logicalLocations": [{"fullyQualifiedName": finding.field}],
                }],
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "revenant lint", "version": env!("CARGO_PKG_VERSION"),
                                "rules": rules.into_values().collect::<Vec<_>>()}},
            "results": results,
        }],
    })
}
