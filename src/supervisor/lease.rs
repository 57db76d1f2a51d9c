//! The claim's beat: shows other containers that this one lives, and notices when it was taken over.

use super::settings::Settings;
use crate::explain::Explain;
use crate::job::Epoch;
use crate::repository::claim::{Claim, ClaimError, Standing};
use crate::store::{Store, StoreSettings};
use crate::trigger::{SharedBoard, Source};
use std::time::Duration;
use tracing::{debug, warn};

/// Beats in one lease: two may be lost before anybody takes this container for dead.
const BEATS_IN_A_LEASE: u32 = 3;

/// Beats for as long as it is polled; ends only when another container has the job.
pub async fn keep(store: String, job: String, lease: Duration, epoch: Epoch, board: SharedBoard) {
    let pause = lease / BEATS_IN_A_LEASE;
    let settings = StoreSettings { patience: pause, request_timeout: pause, ..StoreSettings::default() };
    let claim = match Store::open(&store, &settings) {
        Ok(store) => Claim::resume(&store.child(&job), epoch, lease),
        Err(error) => {
            warn!(%error, "the claim cannot be renewed: {}", error.explain());
            return std::future::pending().await;
        }
    };
    let mut silent = false;
    loop {
        // Sooner when memory gets scarce: it may be the last word of this container.
        let alarm = board.borrow().alarm();
        let _ = tokio::time::timeout(pause, alarm.notified()).await;
        let memory = board.borrow().latest(Source::Memory).map(|reading| reading.value);
        let standing = claim.beat_with(memory).await;
        if heard(&standing, &mut silent) {
            return;
        }
    }
}

/// Whether the job is lost. Trouble is told once, and its end too.
fn heard(standing: &Result<Standing, ClaimError>, silent: &mut bool) -> bool {
    match standing {
        Ok(Standing::Held) => {
            if std::mem::take(silent) {
                warn!("the store answers again; the claim is renewed");
            }
            debug!("the claim is renewed");
            false
        }
        Ok(Standing::Fenced { by: Some((epoch, holder)) }) => {
            let who = holder.as_ref().map_or("unknown", |holder| holder.host.as_str());
            warn!(epoch = epoch.0, who, "another container ({who}) has taken this job over with claim {}", epoch.0);
            true
        }
        // An empty store is no proof of a successor: a volume may be unmounted for a moment. A save
        // would notice; a workload of months is not killed for it.
        Ok(Standing::Fenced { by: None }) => {
            if !std::mem::replace(silent, true) {
                warn!(
                    "the store has lost this job's claims: was it emptied, or is its volume gone? The workload runs on"
                );
            }
            false
        }
        Err(error) => {
            if !std::mem::replace(silent, true) {
                warn!(%error, "the claim cannot be renewed, so another container may take the job over: {}", error.explain());
            }
            false
        }
    }
}

/// The lease of a run; none without a store.
pub fn of(settings: &Settings, board: &SharedBoard) -> Option<super::life::Lease> {
    let (store, job, lease) = (settings.store.clone()?, settings.job.to_string(), settings.lease);
    let board = board.clone();
    Some(Box::new(move |epoch| Box::pin(keep(store.clone(), job.clone(), lease, epoch, board.clone()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::protocol::Holder;

    #[test]
    fn only_a_successor_ends_the_workload() {
        let mut silent = false;
        assert!(!heard(&Ok(Standing::Held), &mut silent));
        assert!(!heard(&Ok(Standing::Fenced { by: None }), &mut silent));
        assert!(silent);
        assert!(!heard(&Ok(Standing::Held), &mut silent));
        assert!(!silent);
        assert!(heard(&Ok(Standing::Fenced { by: Some((Epoch(9), Some(Holder::default()))) }), &mut silent));
    }
}
