//! What the workload holds that cannot be saved: looked for early, told once.

use super::Life;
use crate::checkpoint::protocol::{Event as Said, Look, Request};
use crate::supervisor::clock::Alarm;
use crate::supervisor::engine::Engine;
use crate::supervisor::state::State;
use crate::workload::resources::{Effect, Finding};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// How many findings are kept; a workload with more has the same few reasons.
const MOST: usize = 32;

/// How soon a look that could not be made is tried again.
const LATER: Duration = Duration::from_secs(5);

/// The look under way, and what the last one found.
#[derive(Debug, Default)]
pub(super) struct Looking {
    engine: Option<Engine>,
    pub(super) findings: Vec<Finding>,
}

impl Life {
    /// The first look comes when the workload has had time to open what it needs.
    pub(super) fn look_later(&mut self) {
        if self.settings.store.is_some() && !self.settings.look_after.is_zero() {
            self.clock.set(Alarm::Look, Instant::now() + self.settings.look_after);
        }
    }

    pub(super) fn look(&mut self) {
        let Some(root_pid) = self.workload.as_ref().map(|workload| workload.root) else { return };
        if self.state != State::Running || self.looking.engine.is_some() {
            // A save looks, too.
            return self.clock.set(Alarm::Look, Instant::now() + LATER);
        }
        let request = Request::Look(Look { root_pid, files: self.context().files, tcp: self.settings.tuning.tcp });
        self.engines += 1;
        match Engine::start(self.engines, &request, &[], self.inputs.clone()) {
            Ok(engine) => self.looking.engine = Some(engine),
            Err(error) => debug!(%error, "the workload was not looked at"),
        }
    }

    /// Whether this engine is the one that looks.
    pub(super) fn is_looking(&self, id: u64) -> bool {
        self.looking.engine.as_ref().is_some_and(|engine| engine.id == id)
    }

    /// The end of a look, whatever it found.
    pub(super) fn look_over(&mut self) {
        self.looking.engine = None;
    }

    pub(super) fn on_look(&mut self, event: Said) {
        match event {
            Said::Looked { findings } => self.looked(findings),
            Said::Failed { problem } => debug!(%problem, "the workload was not looked at"),
            _ => {}
        }
    }

    /// Tells what is new, and keeps what there is now.
    pub(super) fn looked(&mut self, mut findings: Vec<Finding>) {
        findings.truncate(MOST);
        for finding in &findings {
            if self.looking.findings.iter().any(|known| known.key() == finding.key()) {
                continue;
            }
            match finding.effect {
                Effect::Prevents | Effect::Spoils => warn!(
                    pid = finding.pid,
                    descriptor = finding.descriptor,
                    "this workload cannot be saved as it is: {finding}\n  next: {}",
                    finding.remedy
                ),
                Effect::Loses => info!(
                    pid = finding.pid,
                    descriptor = finding.descriptor,
                    "a checkpoint will not carry this: {finding} ({})",
                    finding.remedy
                ),
            }
        }
        self.looking.findings = findings;
    }
}
