//! Every command that the documentation shows is one that revenant understands.

use super::Cli;
use clap::Parser as _;
use clap::error::ErrorKind;
use std::path::{Path, PathBuf};

/// A command of the documentation, and where it stands.
#[derive(Debug)]
struct Shown {
    place: String,
    words: Vec<String>,
    /// It is to be typed as it is: a sentence may name a command by its beginning.
    whole: bool,
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|name| name == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// What a line says to revenant: after a prompt, `sudo`, `kubectl exec … --` or the like, up to a comment, pipe or redirection.
fn command(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ").trim_start_matches("# ").trim_start_matches("sudo ");
    let line = match line.split_once(" -- revenant ") {
        Some((before, after)) if before.contains(" exec ") => format!("revenant {after}"),
        _ => line.to_owned(),
    };
    // More than one space: a column of a table, and the rows of `make bench` begin with the program's name.
    if line.strip_prefix("revenant ").is_none_or(|rest| rest.starts_with(' ')) {
        return None;
    }
    let mut words = Vec::new();
    let (mut word, mut quote, mut any) = (String::new(), None, false);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(mark), letter) if letter == mark => quote = None,
            (None, '\'' | '"') => (quote, any) = (Some(letter), true),
            (None, '|' | '>' | ';' | '&') => break,
            (None, '#') if word.is_empty() && !any => break,
            (None, ' ') => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, letter) => word.push(letter),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    Some(words)
}

/// Lines of code blocks, and code within sentences that begins with a subcommand.
fn shown(text: &str, name: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{name}:{}", number + 1);
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.extend(command(line).map(|words| Shown { place: place(), words, whole: true }));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter_map(command).map(|words| Shown { place: place(), words, whole: false }));
        }
    }
    found
}

#[test]
fn lines_are_taken_apart_as_shells_do() {
    let words = |line| command(line).map(|words| words.join("|"));
    assert_eq!(words("$ revenant list --job 'a b' # all").as_deref(), Some("revenant|list|--job|a b"));
    assert_eq!(words("kubectl exec -it POD -- revenant status > x").as_deref(), Some("revenant|status"));
    assert_eq!(words("run revenant"), None);
    assert_eq!(words("revenant  first save   3.02"), None);
}

#[test]
fn every_command_is_understood() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        for Shown { place, words, whole } in shown(&std::fs::read_to_string(&page).unwrap(), &name) {
            // `revenant run …` and `revenant checkpoint, status` stand for something that the reader fills in.
            if words.iter().any(|word| word.contains(['…', '<']) || word.ends_with(',')) {
                continue;
            }
            count += 1;
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
                && (whole || error.kind() != ErrorKind::MissingRequiredArgument)
            {
                wrong.push(format!(
                    "{place}: {}\n  {}",
                    words.join(" "),
                    error.to_string().lines().next().unwrap_or("")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 30, "only {count} commands were found");
}
