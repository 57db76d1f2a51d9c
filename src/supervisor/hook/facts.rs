//! What a hook is told, as variables of its environment.

use super::Moment;
use crate::checkpoint::protocol::Saved;
use crate::explain::Problem;
use crate::job::{Generation, JobName};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What is known when a hook is run.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Which hook it is.
    pub moment: Moment,
    /// The job.
    pub job: &'a JobName,
    /// Where `revenant status` finds this entrypoint.
    pub runtime_dir: &'a Path,
    /// Why the save is made, or what the restore followed on.
    pub reason: &'a str,
    /// The workload does not run on after this save.
    pub last: bool,
    /// How long the hook may take.
    pub limit: Duration,
    /// When the container will be killed, if that is known.
    pub killed_at: Option<SystemTime>,
    /// PID of the command.
    pub command_pid: Option<i32>,
    /// The newest durable generation; after a restore, the one that was restored.
    pub generation: Option<(Generation, SystemTime)>,
    /// How the save went; none before it.
    pub outcome: Option<&'a Result<Saved, Problem>>,
}

impl Facts<'_> {
    /// One variable for each fact that is known.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("REVENANT_HOOK", self.moment.name().to_owned()),
            ("REVENANT_JOB", self.job.to_string()),
            ("REVENANT_RUNTIME_DIR", self.runtime_dir.display().to_string()),
            ("REVENANT_HOOK_REASON", self.reason.to_owned()),
            ("REVENANT_HOOK_SECONDS", seconds(self.limit)),
        ];
        let mut add = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
        add("REVENANT_HOOK_FINAL", (self.moment != Moment::AfterRestore).then(|| self.last.to_string()));
        add("REVENANT_HOOK_DEADLINE", self.killed_at.map(unix));
        add("REVENANT_HOOK_COMMAND_PID", self.command_pid.map(|pid| pid.to_string()));
        add("REVENANT_HOOK_GENERATION", self.generation.map(|(generation, _)| generation.to_string()));
        add("REVENANT_HOOK_SAVED_AT", self.generation.map(|(_, at)| unix(at)));
        match self.outcome {
            Some(Ok(saved)) => {
                add("REVENANT_HOOK_OUTCOME", Some("durable".to_owned()));
                add("REVENANT_HOOK_IMAGE_BYTES", Some(saved.image_bytes.to_string()));
                add("REVENANT_HOOK_STORED_BYTES", Some(saved.stored_bytes.to_string()));
                add("REVENANT_HOOK_FROZEN_SECONDS", Some(seconds(Duration::from_millis(saved.frozen_ms))));
                add("REVENANT_HOOK_TOTAL_SECONDS", Some(seconds(Duration::from_millis(saved.total_ms))));
            }
            Some(Err(problem)) => {
                add("REVENANT_HOOK_OUTCOME", Some("failed".to_owned()));
                add("REVENANT_HOOK_PROBLEM", Some(problem.to_string()));
            }
            None => {}
        }
        // A variable ends with its first NUL, and a text with one would keep the hook from starting.
        for (_, value) in &mut all {
            value.retain(|letter| letter != '\0');
        }
        all
    }
}

/// With three digits, as shells and `date -d @…` take it.
fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Seconds since 1970.
fn unix(moment: SystemTime) -> String {
    seconds(moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use std::collections::BTreeMap;

    fn variables(moment: Moment, outcome: Option<&Result<Saved, Problem>>) -> BTreeMap<&'static str, String> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        let facts = Facts {
            moment,
            job: &"assembly".parse().unwrap(),
            runtime_dir: Path::new("/run/revenant"),
            reason: "a\0b",
            last: true,
            limit: Duration::from_millis(2500),
            killed_at: Some(at),
            command_pid: Some(302),
            generation: Some(("1-2".parse().unwrap(), at)),
            outcome,
        };
        facts.variables().into_iter().collect()
    }

    #[test]
    fn tells_what_is_known_and_nothing_else() {
        let before = variables(Moment::BeforeSave, None);
        assert_eq!(before["REVENANT_HOOK"], "before-save");
        assert_eq!(before["REVENANT_HOOK_REASON"], "ab");
        assert_eq!(before["REVENANT_HOOK_DEADLINE"], "1700000000.250");
        assert_eq!(before["REVENANT_HOOK_SECONDS"], "2.500");
        assert_eq!(before["REVENANT_HOOK_FINAL"], "true");
        assert!(!before.contains_key("REVENANT_HOOK_OUTCOME"));
        let failed = Err(Problem::new(Exit::StoreUnavailable, "the store is full", "it is", "make room"));
        let after = variables(Moment::AfterSave, Some(&failed));
        assert_eq!(after["REVENANT_HOOK_OUTCOME"], "failed");
        assert!(after["REVENANT_HOOK_PROBLEM"].contains("the store is full"));
        assert!(!variables(Moment::AfterRestore, None).contains_key("REVENANT_HOOK_FINAL"));
    }
}
