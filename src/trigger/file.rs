//! Files by which anything can ask for a save: one that is touched, or the pod's annotations as the kubelet
//! writes them into a downward API volume.

use super::watching::Watching;
use super::{Heard, Source, Trigger, Urgency};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// The annotation whose changes ask for a save.
pub const ANNOTATION: &str = "revenant.dev/checkpoint";

/// Between two looks. The kubelet itself takes up to a minute to write an annotation.
const EVERY: Duration = Duration::from_secs(2);

/// The longest annotations file that is read, in bytes; Kubernetes allows 256 KiB of annotations.
const LONGEST: u64 = 1 << 20;

/// What a touched file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

fn look(path: &Path) -> Option<Look> {
    let seen = fs::metadata(path).ok()?;
    Some(Look { inode: seen.ino(), size: seen.size(), modified: (seen.mtime(), seen.mtime_nsec()) })
}

/// What asks, and what it looked like last.
#[derive(Debug)]
struct Asking {
    path: PathBuf,
    /// The annotations file, not a file to touch.
    annotations: bool,
    seen: Option<Look>,
    value: Option<String>,
}

impl Asking {
    fn new(path: PathBuf, annotations: bool) -> Self {
        let mut asking = Self { path, annotations, seen: None, value: None };
        // What is there at the start has been answered by an earlier container, or never will be.
        asking.changed();
        asking
    }

    /// In which words a save is asked for now, if it is.
    fn changed(&mut self) -> Option<String> {
        let now = look(&self.path);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        now?;
        if !self.annotations {
            return Some(format!("{} was touched", self.path.display()));
        }
        let text = if self.seen?.size <= LONGEST { fs::read_to_string(&self.path).ok()? } else { return None };
        let value = annotation(&text, ANNOTATION);
        let before = std::mem::replace(&mut self.value, value.clone());
        let value = value.filter(|value| !value.is_empty())?;
        (before.as_ref() != Some(&value)).then(|| format!("annotation {ANNOTATION}: {value}"))
    }
}

/// The value of a key in the downward API's format: lines of `key="value"`, quoted as Go quotes strings.
fn annotation(text: &str, key: &str) -> Option<String> {
    let quoted = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    // For letters, digits, quotes and backslashes Go and JSON agree.
    serde_json::from_str(quoted).ok().or_else(|| Some(quoted.trim_matches('"').to_owned()))
}

/// Watches for as long as it is polled.
pub async fn watch(watching: Watching, heard: Sender<Heard>) {
    let annotations = watching.annotations.filter(|path| path.exists());
    let mut files: Vec<Asking> = watching.files.into_iter().map(|path| Asking::new(path, false)).collect();
    files.extend(annotations.map(|path| Asking::new(path, true)));
    while !files.is_empty() {
        tokio::time::sleep(EVERY).await;
        for asking in &mut files {
            let Some(reason) = asking.changed() else { continue };
            let trigger = Trigger { source: Source::File, urgency: Urgency::Now, reason, deadline: None };
            if heard.send(Heard::Trigger(trigger)).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_asks_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("save-now");
        let mut asking = Asking::new(path.clone(), false);
        assert_eq!(asking.changed(), None);
        fs::write(&path, "").unwrap();
        assert!(asking.changed().unwrap().contains("save-now was touched"));
        assert_eq!(asking.changed(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(asking.changed(), None, "a file that is gone asks for nothing");
        fs::write(&path, "x").unwrap();
        assert!(asking.changed().is_some());
    }

    #[test]
    fn an_annotation_asks_when_its_value_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("annotations");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("a=\"b\"\nrevenant.dev/checkpoint=\"now\"\n");
        let mut asking = Asking::new(path.clone(), true);
        write("a=\"c, longer\"\nrevenant.dev/checkpoint=\"now\"\n");
        assert_eq!(asking.changed(), None, "it was there before the start, another one changed");
        write("revenant.dev/checkpoint=\"\"\n");
        assert_eq!(asking.changed(), None);
        write("x=\"1\"\nrevenant.dev/checkpoint=\"now \\\"really\\\"\"\n");
        assert_eq!(asking.changed().as_deref(), Some("annotation revenant.dev/checkpoint: now \"really\""));
        write("nothing=\"left\"\n");
        assert_eq!(asking.changed(), None);
    }
}
