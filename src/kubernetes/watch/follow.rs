//! One object, followed: read once, then watched; begun anew whenever the watch ends.
//!
//! It comes as JSON, and is read from there as what it is, as `lint` does: each further way to read a pod would
//! make the program a megabyte larger.

use crate::trigger::Heard;
use futures::StreamExt;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use kube::{Api, Error, ResourceExt};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// The API server ends a watch after this many seconds, and it is begun anew; at most 295.
const WATCH_SECONDS: u32 = 290;
/// After a failure; doubled up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Tells `judge` each state of an object, and passes on what it says. Ends only where there are no rights.
pub async fn object<K>(
    api: &Api<DynamicObject>,
    name: &str,
    what: &str,
    heard: &Sender<Heard>,
    mut judge: impl FnMut(&K) -> Vec<Heard>,
) where
    K: DeserializeOwned,
{
    let mut pause = SHORTEST_PAUSE;
    let mut told = false;
    loop {
        let trouble = match once(api, name, heard, &mut judge).await {
            Ok(()) => {
                pause = SHORTEST_PAUSE;
                continue;
            }
            Err(Trouble::NobodyListens) => return,
            Err(Trouble::Api(Error::Api(status))) if matches!(status.code, 401 | 403) => {
                let message = format!(
                    "{what} is not watched: the service account has no right to read it (deploy/rbac.yaml has what it takes)"
                );
                let _ = heard.send(Heard::Note { message }).await;
                return;
            }
            Err(Trouble::Api(error)) => error,
        };
        if !std::mem::replace(&mut told, true) {
            let message = format!("{what} cannot be watched at the moment, trying on: {trouble}");
            if heard.send(Heard::Note { message }).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Trouble {
    NobodyListens,
    Api(Error),
}

async fn once<K>(
    api: &Api<DynamicObject>,
    name: &str,
    heard: &Sender<Heard>,
    judge: &mut impl FnMut(&K) -> Vec<Heard>,
) -> Result<(), Trouble>
where
    K: DeserializeOwned,
{
    let found = api.get(name).await.map_err(Trouble::Api)?;
    let version = found.resource_version().unwrap_or_else(|| "0".to_owned());
    pass_on(judge(&read(&found)?), heard).await?;
    let only = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
    let stream = api.watch(&only, &version).await.map_err(Trouble::Api)?;
    let mut stream = pin!(stream);
    while let Some(event) = stream.next().await {
        match event.map_err(Trouble::Api)? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                pass_on(judge(&read(&object)?), heard).await?;
            }
            WatchEvent::Bookmark(_) => {}
            // The version is too old, for example: read it anew.
            WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}

fn read<K: DeserializeOwned>(object: &DynamicObject) -> Result<K, Trouble> {
    let read = serde_json::to_value(object).and_then(serde_json::from_value);
    read.map_err(|error| Trouble::Api(Error::SerdeError(error)))
}

async fn pass_on(said: Vec<Heard>, heard: &Sender<Heard>) -> Result<(), Trouble> {
    for said in said {
        heard.send(said).await.map_err(|_| Trouble::NobodyListens)?;
    }
    Ok(())
}
