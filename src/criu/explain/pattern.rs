//! Patterns for log lines: literal text with `{name}` for what varies.

/// What a pattern found in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Captures<'a>(Vec<(&'static str, &'a str)>);

impl Captures<'_> {
    /// Puts the captures into a text with the same `{name}`s.
    pub fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }
}

/// Looks for the pattern anywhere in the line. A capture takes as little as possible, but at least
/// one character; the last one, at the pattern's end, takes the rest of the line.
pub(super) fn capture<'a>(pattern: &'static str, line: &'a str) -> Option<Captures<'a>> {
    let (first, mut pattern) = split(pattern);
    let mut rest = &line[line.find(first)? + first.len()..];
    let mut found = Vec::new();
    while let Some((name, behind)) = pattern {
        let (literal, next) = split(behind);
        let value = if literal.is_empty() {
            std::mem::take(&mut rest)
        } else {
            let at = rest.find(literal)?;
            let value = &rest[..at];
            rest = &rest[at + literal.len()..];
            value
        };
        let value = value.trim();
        if value.is_empty() {
            return None;
        }
        found.push((name, value));
        pattern = next;
    }
    Some(Captures(found))
}

/// The literal text up to the next capture; the capture's name and what is behind it.
fn split(pattern: &'static str) -> (&'static str, Option<(&'static str, &'static str)>) {
    let Some((literal, rest)) = pattern.split_once('{') else { return (pattern, None) };
    (literal, rest.split_once('}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn captures_what_varies() {
        let found =
            capture("File {path} has bad size {now} (expect {then})", "x: File a b has bad size 7 (expect 5)\n");
        assert_eq!(found.unwrap().fill("{path} {now} {then}"), "a b 7 5");
    }

    #[test]
    fn the_last_capture_takes_the_rest() {
        assert_eq!(
            capture("fork for {pid}: {why}", "Can't fork for 6: File exists").unwrap().fill("{pid}/{why}"),
            "6/File exists"
        );
    }

    #[test]
    fn text_without_captures_is_searched() {
        assert_eq!(capture("Can't change root", "Error: Can't change root: EPERM"), Some(Captures(vec![])));
        assert_eq!(capture("Can't change root", "something else"), None);
    }

    #[test]
    fn nothing_is_not_a_value() {
        assert_eq!(capture("pid {pid} died", "pid  died"), None);
    }

    proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,80}") {
            let _ = capture("File {path} has bad size {now} (expect {then})", &line);
            let _ = capture("{all}", &line);
        }
    }
}
