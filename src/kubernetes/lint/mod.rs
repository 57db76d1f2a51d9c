//! What would kill a long-running job, read from its manifests.
//!
//! Documents are read as the API server reads them (unknown fields ignored); everything that holds a
//! pod template is reviewed, rule by rule. A rule is one function from what the manifests say to findings.

mod document;
mod finding;
mod report;
mod rules;
mod workload;

pub use document::LintError;
pub use finding::{Danger, Finding};
pub use report::{Report, json, sarif, text};

use workload::Manifests;

/// Reviews all files together: a budget in one may protect a workload in another. `files` are names
/// (for the report) and their text. Findings come ordered by danger, then by place.
pub fn lint(files: &[(String, String)]) -> Result<Report, LintError> {
    let mut documents = Vec::new();
    for (name, text) in files {
        documents.extend(document::read(name, text)?);
    }
    let manifests = Manifests::of(documents)?;
    let mut findings: Vec<Finding> = Vec::new();
    for workload in &manifests.workloads {
        for rule in rules::ALL {
            findings.extend(rule(workload, &manifests));
        }
    }
    findings.sort_by(|a, b| {
        b.danger
            .cmp(&a.danger)
            .then_with(|| (&a.file, a.line, a.rule, &a.field).cmp(&(&b.file, b.line, b.rule, &b.field)))
    });
    Ok(Report { workloads: manifests.workloads.len(), findings })
}

#[cfg(test)]
mod tests;
