//! What Kubernetes' probes are told: over HTTP, or by `revenant status --probe`.

use crate::supervisor::control::{Phase, Status};
use clap::ValueEnum;

/// Which question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Is the entrypoint alive? Yes if it answers.
    Live,
    /// Does the workload run?
    Ready,
    /// Is the beginning over, or under way in good order? A long restore is not a failed start.
    Startup,
}

/// The answer, with the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Yes or no.
    pub ok: bool,
    /// One line.
    pub reason: String,
}

impl Probe {
    /// Answers from what the entrypoint says of itself.
    pub fn judge(self, status: &Status) -> Health {
        let ok = match self {
            // A workload that takes its time to be saved or to end must not be killed for it.
            Self::Live => true,
            Self::Ready => matches!(status.phase, Phase::Running | Phase::Saving),
            // Were it false during a restore, the kubelet would kill a container that needs an hour for
            // a terabyte, again and again. Nothing is hidden: readiness stays false meanwhile.
            Self::Startup => status.phase != Phase::Ending,
        };
        Health { ok, reason: describe(status) }
    }
}

fn describe(status: &Status) -> String {
    match (&status.progress, status.phase) {
        (Some(progress), Phase::Beginning | Phase::Saving | Phase::Stopping) => match progress.total_bytes {
            Some(total) if total > 0 => {
                format!("{}: {} {} %", status.state, progress.phase, progress.done_bytes.saturating_mul(100) / total)
            }
            _ => format!("{}: {}", status.state, progress.phase),
        },
        _ => status.state.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::protocol::Progress;

    #[test]
    fn a_long_restore_is_alive_and_started_but_not_ready() {
        let mut status = Status::example();
        status.phase = Phase::Beginning;
        status.state = "beginning".into();
        status.progress =
            Some(Progress { phase: "restore".into(), done_bytes: 30, total_bytes: Some(120), ..Progress::default() });
        assert!(Probe::Live.judge(&status).ok && Probe::Startup.judge(&status).ok);
        let ready = Probe::Ready.judge(&status);
        assert_eq!((ready.ok, ready.reason.as_str()), (false, "beginning: restore 25 %"));
    }

    #[test]
    fn a_save_does_not_make_a_workload_unready_and_an_end_does() {
        let mut status = Status::example();
        for (phase, ready, started) in [
            (Phase::Running, true, true),
            (Phase::Saving, true, true),
            (Phase::Stopping, false, true),
            (Phase::Ending, false, false),
        ] {
            status.phase = phase;
            assert_eq!(Probe::Ready.judge(&status).ok, ready, "{phase:?}");
            assert_eq!(Probe::Startup.judge(&status).ok, started, "{phase:?}");
            assert!(Probe::Live.judge(&status).ok);
        }
    }
}
