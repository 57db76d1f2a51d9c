//! Recording how the workload ended, and giving the job back.

use super::engine::Events;
use super::job_store;
use super::protocol::{Ending, Event, Finish};
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::repository::claim::{self, Standing};
use crate::repository::completion::{self, Record};
use crate::repository::retention;
use crate::store::StoreSettings;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long a store may be out of reach before a claim that may not even exist is left to its lease.
const GIVE_BACK_PATIENCE: Duration = Duration::from_secs(5);

/// Serves one request.
pub fn serve(request: &Finish, events: &Events, runtime: &Runtime) -> Result<(), Problem> {
    runtime.block_on(finish(request, events))?;
    events.send(&Event::Finished);
    Ok(())
}

async fn finish(request: &Finish, events: &Events) -> Result<(), Problem> {
    let Some(epoch) = request.epoch else { return give_back(request).await };
    let settings = StoreSettings { patience: patience(&request.ending), ..StoreSettings::default() };
    let job = job_store::open_claimed(&request.context, epoch, &settings).await?;
    // A container that has lost the job has no say in how it ended.
    if let Standing::Fenced { by } = job.claim.check().await.map_err(|error| error.explain())? {
        return Err(job_store::fenced(by.and_then(|(_, holder)| holder).map(|holder| holder.host)));
    }
    let store = &job.repository.store;
    let record = Record::now(&request.holder);
    match &request.ending {
        Ending::Complete => {
            completion::record_completion(store, &record).await.map_err(|error| error.explain())?;
            if !request.keep_on_complete {
                // The job is complete either way: what cannot be removed costs space only.
                if let Err(error) = retention::clear(&job.repository, &job.claim).await {
                    events.warn(error.explain());
                }
            }
        }
        Ending::Failed { crashed_after_restore_of: Some(generation), .. } => {
            completion::record_crash(store, *generation, &record).await.map_err(|error| error.explain())?;
        }
        Ending::Failed { .. } | Ending::Stopped => {}
    }
    job.claim.release().await.map_err(|error| error.explain())
}

/// How long a store may be out of reach before the claim is left to its lease.
fn patience(ending: &Ending) -> Duration {
    match ending {
        // It was waited for in vain just now, and there is nothing to record.
        Ending::Failed { code, crashed_after_restore_of: None } if *code == Exit::FillFailed.code() => {
            GIVE_BACK_PATIENCE
        }
        _ => StoreSettings::default().patience,
    }
}

/// The engine was killed while it took the job: what it took before it could say so is released here,
/// or the next container would wait until the lease has run out.
async fn give_back(request: &Finish) -> Result<(), Problem> {
    let settings = StoreSettings { patience: GIVE_BACK_PATIENCE, ..StoreSettings::default() };
    let store = job_store::store(&request.context, &settings)?;
    match claim::held_by(&store, &request.holder).await.map_err(|error| error.explain())? {
        Some(claim) => claim.release().await.map_err(|error| error.explain()),
        None => Ok(()),
    }
}
