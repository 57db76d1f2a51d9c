//! Things that cannot be kept, many files to one warning.

use super::path::RelPath;
use crate::exit::Exit;
use crate::explain::Problem;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Collects what went wrong without stopping the work.
#[derive(Debug, Default)]
pub struct Warnings {
    kinds: BTreeMap<&'static str, (usize, String, &'static str)>,
}

impl Warnings {
    /// Notes one path: `what` names the kind (`files could not be read`), `why` this one's reason.
    pub fn add(&mut self, what: &'static str, path: &RelPath, why: impl Display, next: &'static str) {
        self.kinds.entry(what).or_insert_with(|| (0, format!("{path}: {why}"), next)).0 += 1;
    }

    /// One problem for each kind, with how many paths it concerns and the first of them.
    pub fn into_problems(self) -> Vec<Problem> {
        self.kinds
            .into_iter()
            .map(|(what, (count, first, next))| {
                let cause = if count == 1 { first } else { format!("{count} in all, the first is {first}") };
                Problem::new(Exit::Failure, what, cause, next)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_of_many() {
        let mut warnings = Warnings::default();
        for name in ["a", "b"] {
            warnings.add(
                "files could not be read",
                &RelPath::from_bytes(name.as_bytes()).unwrap(),
                "Permission denied",
                "x",
            );
        }
        let problems = warnings.into_problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].what, "files could not be read");
        assert_eq!(problems[0].cause, "2 in all, the first is /a: Permission denied");
    }
}
