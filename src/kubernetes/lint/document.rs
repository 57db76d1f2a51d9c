//! YAML files, cut into documents that know where they begin.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use serde_json::Value;

/// The longest file that is read, in bytes.
const LONGEST: usize = 16 << 20;

/// A document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file's name.
    pub file: String,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Its content.
    pub value: Value,
}

/// Why manifests cannot be reviewed.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// Not YAML, or beyond its limits.
    #[error("{file}: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the parser says.
        reason: String,
    },
    /// YAML, but the API server would refuse it.
    #[error("{file}, line {line}: {kind} {name} is not what the API server accepts: {reason}")]
    Refused {
        /// The file.
        file: String,
        /// Where the document begins.
        line: usize,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// Nothing in them runs a pod.
    #[error("nothing in these files runs a pod")]
    NoWorkload,
}

impl Explain for LintError {
    fn explain(&self) -> Problem {
        let (cause, next) = match self {
            Self::Unreadable { .. } => {
                ("the file is not YAML", "correct the file; templates have to be rendered first")
            }
            Self::Refused { .. } => (
                "a field has a type or a place that Kubernetes does not know",
                "correct it; `kubectl apply --dry-run=server` says the same",
            ),
            Self::NoWorkload => (
                "only Pod, Job, CronJob, StatefulSet, Deployment, ReplicaSet, DaemonSet and lists of them are reviewed",
                "name the file with the workload",
            ),
        };
        Problem::new(Exit::Usage, self.to_string(), cause, next)
    }
}

/// All documents of a file; those without content are left out. `List`s are taken apart.
pub fn read(file: &str, text: &str) -> Result<Vec<Document>, LintError> {
    let unreadable = |reason: String| LintError::Unreadable { file: file.to_owned(), reason };
    if text.len() > LONGEST {
        return Err(unreadable(format!("it has more than {} MiB", LONGEST >> 20)));
    }
    let mut documents = Vec::new();
    for (line, part) in parts(text) {
        // As kubectl reads it: 0400 is octal.
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let value: Option<Value> = serde_saphyr::from_str_with_options(&part, options)
            .map_err(|error| unreadable(format!("from line {line}: {error}")))?;
        match value {
            None | Some(Value::Null) => {}
            Some(value) => match value.get("items").and_then(Value::as_array) {
                Some(items) if value.get("kind").is_some_and(|kind| kind == "List") => {
                    let document = |value: &Value| Document { file: file.to_owned(), line, value: value.clone() };
                    documents.extend(items.iter().map(document));
                }
                _ => documents.push(Document { file: file.to_owned(), line, value }),
            },
        }
    }
    Ok(documents)
}

/// The parts between `---` lines, each with the line on which its content begins.
fn parts(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(1, String::new())];
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            parts.push((number + 2, String::new()));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.retain(|(_, part)| part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_where_they_begin() {
        let documents = read("a.yaml", "# only a comment\n---\nkind: Pod\n---\n\n---\nkind: Job\n").unwrap();
        let found: Vec<_> = documents.iter().map(|document| (document.line, document.value["kind"].clone())).collect();
        assert_eq!(found, [(3, "Pod".into()), (7, "Job".into())]);
    }

    #[test]
    fn lists_are_taken_apart() {
        let text = "kind: List\nitems:\n- kind: Pod\n- kind: Job\n";
        assert_eq!(read("a.yaml", text).unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_yaml_is_named() {
        let error = read("a.yaml", "kind: [").unwrap_err().to_string();
        assert!(error.starts_with("a.yaml: from line 1"), "{error}");
    }
}
