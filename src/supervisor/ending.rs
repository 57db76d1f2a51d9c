//! How the container ends: its exit code, what is recorded, and the last words.

use super::state::Verdict;
use super::words;
use crate::checkpoint::protocol::Ending;
use crate::exit::Exit;
use crate::explain::Problem;
use crate::job::Generation;
use nix::sys::wait::WaitStatus;
use std::time::SystemTime;

/// What is known at the end.
#[derive(Debug, Default)]
pub struct Facts {
    /// How the workload ended, if it did.
    pub workload: Option<WaitStatus>,
    /// The newest durable generation, and when it was saved.
    pub saved: Option<(Generation, SystemTime)>,
    /// What went wrong last: the beginning, the start, or the save.
    pub problem: Option<Problem>,
    /// Set when the workload died soon after a restore of this generation.
    pub crashed_after_restore_of: Option<Generation>,
    /// What is known of the memory that the workload was killed for want of.
    pub out_of_memory: Option<String>,
    /// When the job was completed, for one that was complete already.
    pub complete_since: Option<SystemTime>,
}

/// The exit code of the container.
pub fn code(verdict: Verdict, facts: &Facts) -> u8 {
    match verdict {
        Verdict::AsWorkload => facts.workload.map_or(Exit::Internal.code(), workload_code),
        Verdict::Saved => Exit::SavedAndStopped.code(),
        Verdict::Unsaved | Verdict::Damaged => Exit::StoppedUnsaved.code(),
        Verdict::Fenced => Exit::Fenced.code(),
        Verdict::StoppedBeforeStart => Exit::StoppedBeforeStart.code(),
        Verdict::AlreadyComplete => Exit::Ok.code(),
        Verdict::BeginFailed | Verdict::SpawnFailed | Verdict::FillFailed => {
            facts.problem.as_ref().map_or(Exit::Internal.code(), |problem| problem.exit)
        }
    }
}

/// The code that a container shows for a workload: its own, or 128 + signal.
pub fn workload_code(status: WaitStatus) -> u8 {
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => i32::from(Exit::Internal.code()),
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// What is recorded in the store; none when nothing may be written there any more.
pub fn record(verdict: Verdict, facts: &Facts) -> Option<Ending> {
    match verdict {
        Verdict::Fenced | Verdict::AlreadyComplete => None,
        Verdict::AsWorkload => Some(match code(verdict, facts) {
            0 => Ending::Complete,
            code => Ending::Failed { code, crashed_after_restore_of: facts.crashed_after_restore_of },
        }),
        Verdict::FillFailed => Some(Ending::Failed {
            code: code(verdict, facts),
            crashed_after_restore_of: facts.crashed_after_restore_of,
        }),
        _ => Some(Ending::Stopped),
    }
}

/// The last words, for a person who reads the container's log. None when the workload has said it all.
pub fn words(verdict: Verdict, facts: &Facts) -> Option<String> {
    let previous = match facts.saved {
        Some((generation, at)) => {
            format!("the next container will continue from generation {generation}, saved {} ago", words::age(at))
        }
        None => "there is no checkpoint: the next container will start from the beginning".to_owned(),
    };
    let because = facts.problem.as_ref().map_or_else(String::new, |problem| format!("\n{problem}"));
    match verdict {
        Verdict::AsWorkload => facts.workload.and_then(|status| match status {
            WaitStatus::Signaled(_, signal, _) => Some(format!(
                "the command was ended by signal {signal}{}",
                match &facts.out_of_memory {
                    Some(why) => format!(": {why}"),
                    None if signal == nix::sys::signal::Signal::SIGKILL =>
                        ": somebody killed it, or the node ran out of memory".to_owned(),
                    None => String::new(),
                }
            )),
            WaitStatus::Exited(_, code) => {
                facts.out_of_memory.as_ref().map(|why| format!("the command has ended with code {code}: {why}"))
            }
            _ => None,
        }),
        Verdict::Saved => {
            Some(format!("the workload is saved and stopped; {previous} (exit code {})", Exit::SavedAndStopped.code()))
        }
        Verdict::Unsaved => Some(format!(
            "the workload was stopped without a new checkpoint; {previous} (exit code {}){because}",
            Exit::StoppedUnsaved.code()
        )),
        Verdict::Damaged => Some(format!(
            "the save was interrupted so badly that the workload could not run on, and was ended; {previous} (exit code {}){because}",
            Exit::StoppedUnsaved.code()
        )),
        Verdict::FillFailed => Some(format!(
            "the workload was stopped, because memory that it needs could not be brought; {previous}{because}"
        )),
        Verdict::Fenced => Some(format!(
            "another container has taken this job over, so the workload here was ended at once; nothing of the other one was touched (exit code {})",
            Exit::Fenced.code()
        )),
        Verdict::StoppedBeforeStart => Some(format!(
            "told to stop before the workload ran; nothing is lost (exit code {})",
            Exit::StoppedBeforeStart.code()
        )),
        Verdict::AlreadyComplete => Some(match facts.complete_since {
            Some(at) => format!("this job was completed {} ago; there is nothing to do", words::age(at)),
            None => "this job is complete; there is nothing to do".to_owned(),
        }),
        Verdict::BeginFailed | Verdict::SpawnFailed => facts.problem.as_ref().map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Epoch;
    use nix::sys::signal::Signal;
    use nix::unistd::Pid;

    fn ended(status: WaitStatus) -> Facts {
        Facts { workload: Some(status), ..Facts::default() }
    }

    #[test]
    fn a_workloads_own_end_is_the_containers() {
        let pid = Pid::from_raw(300);
        let seven = ended(WaitStatus::Exited(pid, 7));
        assert_eq!(code(Verdict::AsWorkload, &seven), 7);
        let recorded = record(Verdict::AsWorkload, &seven);
        assert_eq!(recorded, Some(Ending::Failed { code: 7, crashed_after_restore_of: None }));
        let fault = ended(WaitStatus::Signaled(pid, Signal::SIGSEGV, false));
        assert_eq!(code(Verdict::AsWorkload, &fault), 139);
        assert_eq!(record(Verdict::AsWorkload, &ended(WaitStatus::Exited(pid, 0))), Some(Ending::Complete));
    }

    #[test]
    fn a_workload_that_ends_well_after_an_unsaved_stop_is_not_complete() {
        let facts = ended(WaitStatus::Exited(Pid::from_raw(300), 0));
        assert_eq!(record(Verdict::Unsaved, &facts), Some(Ending::Stopped));
        assert_eq!(code(Verdict::Unsaved, &facts), 201);
    }

    #[test]
    fn last_words_name_the_checkpoint_that_stands() {
        let generation = Generation { epoch: Epoch(2), sequence: 9 };
        let at = SystemTime::now() - std::time::Duration::from_secs(200);
        let problem = Problem::new(Exit::StoreUnavailable, "the store does not answer", "its network is down", "wait");
        let facts = Facts { saved: Some((generation, at)), problem: Some(problem), ..Facts::default() };
        let said = words(Verdict::Unsaved, &facts).unwrap();
        assert!(said.contains("generation 2-9, saved 3 min 20 s ago"), "{said}");
        assert!(said.contains("the store does not answer"), "{said}");
    }
}
