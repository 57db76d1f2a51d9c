//! Pieces of YAML.

/// A scalar that is a string whatever it looks like: JSON's form, which YAML understands.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list in one line.
pub fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

/// Moves a block to the right; empty lines stay empty.
pub fn indent(text: &str, by: usize) -> String {
    let space = " ".repeat(by);
    prefixed(text, &space)
}

/// A comment.
pub fn comment(text: &str) -> String {
    prefixed(text, "# ")
}

fn prefixed(text: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        if !line.is_empty() {
            out.push_str(prefix);
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}
