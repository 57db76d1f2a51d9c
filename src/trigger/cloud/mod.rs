//! What the cloud says about the machine's future, from the metadata service that each cloud offers to its machines.
//!
//! One file for each cloud: which paths it asks, and what the answers mean (pure, tested with the documented
//! fields). Asked every few seconds over one address of the machine itself; off where the machine is no cloud's.

pub mod aws;
pub mod azure;
pub mod gcp;
pub mod http;
pub mod moment;

use super::{Heard, Source, Trigger};
use http::{Answer, Endpoint};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::Sender;

/// Between two questions. AWS recommends this; Google's notice is 30 s, the shortest of all.
const EVERY: Duration = Duration::from_secs(5);
/// Between two questions where nothing is answered sensibly: not at once, because a notice is short and a server may stumble.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Where all three clouds answer.
pub const ADDRESS: &str = "http://169.254.169.254";

/// Whose machine this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// Amazon EC2: spot interruption, rebalance recommendation.
    Aws,
    /// Google Compute Engine: preemption, maintenance.
    Gcp,
    /// Microsoft Azure: Scheduled Events.
    Azure,
    /// Nobody's.
    None,
}

/// What the firmware says about whose machine this is; containers can read it.
pub fn of_this_machine() -> Cloud {
    of(Path::new("/sys/class/dmi/id"))
}

/// `sys_vendor` of EC2 and of Google; Azure shares Microsoft's with every Hyper-V machine, and has a chassis asset tag.
fn of(dmi: &Path) -> Cloud {
    let read = |file: &str| fs::read_to_string(dmi.join(file)).unwrap_or_default().trim().to_owned();
    match read("sys_vendor").as_str() {
        "Amazon EC2" => Cloud::Aws,
        "Google" => Cloud::Gcp,
        "Microsoft Corporation" if read("chassis_asset_tag") == "7783-7084-3265-9085-8269-3286-77" => Cloud::Azure,
        _ => Cloud::None,
    }
}

/// What is announced at this moment. `key` names one announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Names it among others, for as long as it stands.
    pub key: String,
    /// What it means.
    pub trigger: Trigger,
}

/// Asks for as long as it is polled. Every announcement is told once, and its end too.
pub async fn watch(cloud: Cloud, endpoint: Endpoint, heard: Sender<Heard>) {
    let mut asking = match cloud {
        Cloud::Aws => Asking::Aws(aws::Session::default()),
        Cloud::Gcp => Asking::Gcp,
        Cloud::Azure => Asking::Azure { name: None },
        Cloud::None => return std::future::pending().await,
    };
    let mut standing: BTreeSet<(String, Source)> = BTreeSet::new();
    let (mut in_a_row, mut told_trouble) = (0, false);
    loop {
        let answers = asking.ask(&endpoint).await;
        in_a_row = if answers.iter().any(Result::is_ok) { 0 } else { in_a_row + 1 };
        let (announced, trouble) = sort_out(answers);
        let mut said = news(&mut standing, announced, trouble.is_none());
        if let Some(reason) = trouble.filter(|_| !told_trouble) {
            told_trouble = true;
            let message = format!("the cloud's metadata service does not answer as expected ({reason}); trying on");
            said.push(Heard::Note { message });
        }
        for said in said {
            if heard.send(said).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause(in_a_row)).await;
    }
}

/// Until the next question, after so many rounds in a row without an answer.
fn pause(in_a_row: u32) -> Duration {
    EVERY.saturating_mul(1 << in_a_row.saturating_sub(1).min(8)).min(LONGEST_PAUSE)
}

/// What one question brought, each by itself: an answer that cannot be read must not hide the others.
type Answers = Vec<Result<Vec<Announced>, String>>;

/// All that is announced, and the first thing that went wrong.
fn sort_out(answers: Answers) -> (Vec<Announced>, Option<String>) {
    let mut trouble = None;
    let mut all = Vec::new();
    for answer in answers {
        match answer {
            Ok(announced) => all.extend(announced),
            Err(reason) => trouble = trouble.or(Some(reason)),
        }
    }
    (all, trouble)
}

/// What is new in it, and what stands from now on. Only where everything was heard, silence means that it is over.
fn news(standing: &mut BTreeSet<(String, Source)>, announced: Vec<Announced>, heard_all: bool) -> Vec<Heard> {
    let mut now: BTreeSet<(String, Source)> =
        announced.iter().map(|announced| (announced.key.clone(), announced.trigger.source)).collect();
    let mut said: Vec<Heard> = Vec::new();
    if heard_all {
        said.extend(standing.difference(&now).map(|(_, source)| Heard::Withdrawn { source: *source }));
    } else {
        now.extend(standing.iter().cloned());
    }
    for announced in announced {
        if !standing.contains(&(announced.key, announced.trigger.source)) {
            said.push(Heard::Trigger(announced.trigger));
        }
    }
    *standing = now;
    said
}

enum Asking {
    Aws(aws::Session),
    Gcp,
    Azure { name: Option<String> },
}

impl Asking {
    async fn ask(&mut self, endpoint: &Endpoint) -> Answers {
        let now = SystemTime::now();
        match self {
            Self::Aws(session) => {
                let spot = session.get(endpoint, aws::INSTANCE_ACTION).await;
                let rebalance = session.get(endpoint, aws::REBALANCE).await;
                vec![one(spot, aws::interruption), one(rebalance, aws::rebalance)]
            }
            Self::Gcp => {
                let header = [gcp::HEADER];
                let preempted = endpoint.get(gcp::PREEMPTED, &header).await;
                let maintenance = endpoint.get(gcp::MAINTENANCE, &header).await;
                vec![one(preempted, |answer| gcp::preempted(answer, now)), one(maintenance, gcp::maintenance)]
            }
            Self::Azure { name } => vec![Self::azure(name, endpoint, now).await],
        }
    }

    async fn azure(name: &mut Option<String>, endpoint: &Endpoint, now: SystemTime) -> Result<Vec<Announced>, String> {
        let header = [azure::HEADER];
        if name.is_none() {
            *name = Some(azure::name(&endpoint.get(azure::NAME, &header).await?)?);
        }
        let events = endpoint.get(azure::EVENTS, &header).await?;
        azure::events(&events, name.as_deref().unwrap_or_default(), now)
    }
}

fn one(
    answer: Result<Answer, String>,
    read: impl FnOnce(&Answer) -> Result<Option<Announced>, String>,
) -> Result<Vec<Announced>, String> {
    Ok(read(&answer?)?.into_iter().collect())
}

/// Text of an answer that must be there.
fn expected(answer: &Answer) -> Result<&str, String> {
    if answer.status == 200 { Ok(answer.body.trim()) } else { Err(format!("status {}", answer.status)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::Urgency;

    #[test]
    fn knows_the_machines_by_their_firmware() {
        let folder = tempfile::tempdir().unwrap();
        let with = |vendor: &str, tag: &str| {
            fs::write(folder.path().join("sys_vendor"), format!("{vendor}\n")).unwrap();
            fs::write(folder.path().join("chassis_asset_tag"), format!("{tag}\n")).unwrap();
            of(folder.path())
        };
        assert_eq!(with("Amazon EC2", "Amazon EC2"), Cloud::Aws);
        assert_eq!(with("Google", ""), Cloud::Gcp);
        assert_eq!(with("Microsoft Corporation", "7783-7084-3265-9085-8269-3286-77"), Cloud::Azure);
        assert_eq!(with("Microsoft Corporation", "None"), Cloud::None);
        assert_eq!(of(Path::new("/nowhere")), Cloud::None);
    }

    fn announced(key: &str, source: Source) -> Announced {
        let trigger = Trigger { source, urgency: Urgency::Now, reason: key.to_owned(), deadline: None };
        Announced { key: key.to_owned(), trigger }
    }

    #[test]
    fn an_answer_that_cannot_be_read_hides_no_other_and_ends_nothing() {
        let mut standing = BTreeSet::new();
        let (spot, rebalance) = (announced("a", Source::Spot), announced("b", Source::Rebalance));
        let (all, trouble) = sort_out(vec![Ok(vec![spot.clone()]), Err("status 500".to_owned())]);
        assert_eq!(trouble.as_deref(), Some("status 500"));
        assert_eq!(news(&mut standing, all, false), [Heard::Trigger(spot.trigger)]);
        assert_eq!(news(&mut standing, vec![rebalance.clone()], false), [Heard::Trigger(rebalance.trigger.clone())]);
        assert_eq!(news(&mut standing, vec![], false), []);
        assert_eq!(news(&mut standing, vec![rebalance], true), [Heard::Withdrawn { source: Source::Spot }]);
        assert_eq!(news(&mut standing, vec![], true), [Heard::Withdrawn { source: Source::Rebalance }]);
    }

    /// Google's notice is 30 s: one answer that is lost must not cost it.
    #[test]
    fn a_stumble_is_followed_by_another_question_soon() {
        let pauses: Vec<u64> = (0..8).map(|in_a_row| pause(in_a_row).as_secs()).collect();
        assert_eq!(pauses, [5, 5, 10, 20, 40, 60, 60, 60]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
