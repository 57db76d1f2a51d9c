//! Where checkpoints lie.

use super::answers::{Answers, Kind, Store};
use super::yaml::quoted;

/// Where the store's volume is mounted.
pub const CHECKPOINTS: &str = "/checkpoints";

/// The claim of a Job; a `StatefulSet` brings its own template.
pub fn claims(answers: &Answers) -> String {
    match &answers.store {
        Store::Claim { .. } if answers.kind != Kind::StatefulSet => {
            format!("{}{}", about(), claim(answers, &format!("{}-checkpoints", answers.name)))
        }
        _ => String::new(),
    }
}

fn about() -> &'static str {
    "# The checkpoints: room for three generations of the memory. Not deleted with the job.\n"
}

fn claim(answers: &Answers, name: &str) -> String {
    let Store::Claim { gib, class } = &answers.store else { return String::new() };
    let class = class.as_ref().map_or_else(String::new, |class| format!("  storageClassName: {}\n", quoted(class)));
    format!(
        "apiVersion: v1\n\
         kind: PersistentVolumeClaim\n\
         metadata:\n  name: {name}\n\
         spec:\n\
         \x20 accessModes: [ReadWriteOnce]\n\
         {class}\
         \x20 resources: {{requests: {{storage: {gib}Gi}}}}\n"
    )
}

/// The template within a `StatefulSet`.
pub fn claim_template(answers: &Answers) -> String {
    let Store::Claim { gib, class } = &answers.store else { return String::new() };
    let class =
        class.as_ref().map_or_else(String::new, |class| format!("        storageClassName: {}\n", quoted(class)));
    format!(
        "  volumeClaimTemplates:\n\
         \x20   # The checkpoints: room for three generations of the memory. Not deleted with the set.\n\
         \x20   - metadata:\n        name: checkpoints\n\
         \x20     spec:\n        accessModes: [ReadWriteOnce]\n\
         {class}\
         \x20       resources: {{requests: {{storage: {gib}Gi}}}}\n"
    )
}
