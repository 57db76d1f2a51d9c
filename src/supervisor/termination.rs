//! Why the container has ended, where Kubernetes looks for it: `kubectl describe pod` shows this text.
//!
//! The kubelet mounts a file at `terminationMessagePath` (`/dev/termination-log`) and reads at most 4096 bytes of it
//! when the container has ended: <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>.

use super::ending::{self, Facts};
use super::state::Verdict;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What the kubelet reads of it, in bytes.
const LONGEST: usize = 4096;

/// One line that says which end it was, then what a person should know.
pub fn message(verdict: Verdict, facts: &Facts) -> String {
    let code = ending::code(verdict, facts);
    let which = match verdict {
        Verdict::Saved => "saved and stopped",
        Verdict::Unsaved | Verdict::Damaged if facts.saved.is_some() => "not saved, an earlier checkpoint stands",
        Verdict::Unsaved | Verdict::Damaged => "not saved, there is no checkpoint",
        Verdict::AsWorkload if facts.out_of_memory.is_some() => "the workload was killed for want of memory",
        Verdict::AsWorkload => "the workload ended by itself",
        Verdict::FillFailed => "the lazy restore was broken off",
        Verdict::Fenced => "another container has taken the job over",
        Verdict::StoppedBeforeStart => "stopped before the workload ran",
        Verdict::AlreadyComplete => "the job was complete already",
        Verdict::BeginFailed | Verdict::SpawnFailed => "the workload was not started",
    };
    let mut text = format!("{which} (exit code {code})");
    if let Some(words) = ending::words(verdict, facts) {
        text.push_str(": ");
        text.push_str(&words);
    }
    let cut = (0..=LONGEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(cut);
    text
}

/// Writes it, if the file is there: only then somebody reads it.
pub fn write(path: &Path, message: &str) {
    // A pipe in its place must not make us wait.
    let file = OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let written = file.and_then(|mut file| file.write_all(message.as_bytes()));
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(%error, path = %path.display(), "the termination message was not written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Epoch, Generation};
    use nix::sys::wait::WaitStatus;
    use nix::unistd::Pid;
    use std::time::SystemTime;

    #[test]
    fn every_end_has_words_of_its_own() {
        let generation = Generation { epoch: Epoch(1), sequence: 2 };
        let facts = Facts {
            workload: Some(WaitStatus::Exited(Pid::from_raw(301), 3)),
            saved: Some((generation, SystemTime::now())),
            ..Facts::default()
        };
        let all = [
            Verdict::AsWorkload,
            Verdict::Saved,
            Verdict::Unsaved,
            Verdict::Fenced,
            Verdict::StoppedBeforeStart,
            Verdict::AlreadyComplete,
            Verdict::BeginFailed,
        ];
        let said: std::collections::BTreeSet<String> = all.iter().map(|verdict| message(*verdict, &facts)).collect();
        assert_eq!(said.len(), all.len());
        assert_eq!(message(Verdict::AsWorkload, &facts), "the workload ended by itself (exit code 3)");
        assert!(message(Verdict::Unsaved, &facts).contains("generation 1-2"));
        assert!(message(Verdict::Unsaved, &Facts::default()).starts_with("not saved, there is no checkpoint"));
    }

    #[test]
    fn is_written_only_where_somebody_reads_it_and_never_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination-log");
        write(&path, "x");
        assert!(!path.exists());
        std::fs::write(&path, "before, and longer").unwrap();
        write(&path, "after");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
        let facts = Facts {
            out_of_memory: Some("ä".repeat(5000)),
            workload: Some(WaitStatus::Exited(Pid::from_raw(9), 1)),
            ..Facts::default()
        };
        assert!(message(Verdict::AsWorkload, &facts).len() <= LONGEST);
    }
}
