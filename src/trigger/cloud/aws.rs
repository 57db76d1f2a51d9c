//! Amazon EC2's instance metadata service, version 2 (session tokens).
//!
//! Fields: "Spot Instance interruption notices" and "EC2 instance rebalance recommendations" in the Amazon EC2 User
//! Guide: `spot/instance-action` answers 404 or `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}` two minutes
//! ahead; `events/recommendations/rebalance` answers 404 or `{"noticeTime": "2020-10-27T08:22:00Z"}`. Tokens: "Use the
//! Instance Metadata Service to access instance metadata".

use super::http::{Answer, Endpoint};
use super::{Announced, expected, moment};
use crate::trigger::{Source, Trigger, Urgency};
use serde::Deserialize;

/// When a spot instance is taken away.
pub const INSTANCE_ACTION: &str = "/latest/meta-data/spot/instance-action";
/// Whether that is likely.
pub const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
const TOKEN: &str = "/latest/api/token";
const LIFETIME: (&str, &str) = ("X-aws-ec2-metadata-token-ttl-seconds", "21600");
const TOKEN_HEADER: &str = "X-aws-ec2-metadata-token";

/// A session with its token, renewed when it is refused.
#[derive(Debug, Default)]
pub struct Session {
    token: Option<String>,
}

impl Session {
    /// Asks for a path with a token.
    pub async fn get(&mut self, endpoint: &Endpoint, path: &str) -> Result<Answer, String> {
        for _ in 0..2 {
            let token = match &self.token {
                Some(token) => token.clone(),
                None => expected(&endpoint.put(TOKEN, &[LIFETIME]).await?)?.to_owned(),
            };
            let answer = endpoint.get(path, &[(TOKEN_HEADER, &token)]).await?;
            // 401: the token has expired.
            self.token = (answer.status != 401).then_some(token);
            if self.token.is_some() {
                return Ok(answer);
            }
        }
        Err("the session token is refused".to_owned())
    }
}

#[derive(Deserialize)]
struct InstanceAction {
    action: String,
    time: String,
}

#[derive(Deserialize)]
struct Recommendation {
    #[serde(rename = "noticeTime")]
    notice_time: String,
}

/// What `spot/instance-action` says.
pub fn interruption(answer: &Answer) -> Result<Option<Announced>, String> {
    if answer.status == 404 {
        return Ok(None);
    }
    let action: InstanceAction = serde_json::from_str(expected(answer)?).map_err(|error| error.to_string())?;
    let deadline = moment::rfc3339(&action.time).ok_or_else(|| format!("{:?} is no time", action.time))?;
    let reason = format!("EC2 takes this spot instance away ({})", action.action);
    let trigger = Trigger { source: Source::Spot, urgency: Urgency::Now, reason, deadline: Some(deadline) };
    Ok(Some(Announced { key: action.time, trigger }))
}

/// What `events/recommendations/rebalance` says.
pub fn rebalance(answer: &Answer) -> Result<Option<Announced>, String> {
    if answer.status == 404 {
        return Ok(None);
    }
    let said: Recommendation = serde_json::from_str(expected(answer)?).map_err(|error| error.to_string())?;
    let reason = "EC2 expects to take this spot instance away (rebalance recommendation)".to_owned();
    let trigger = Trigger { source: Source::Rebalance, urgency: Urgency::Now, reason, deadline: None };
    Ok(Some(Announced { key: said.notice_time, trigger }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.to_owned() }
    }

    #[test]
    fn says_when_the_instance_goes() {
        assert_eq!(interruption(&answer(404, "")), Ok(None));
        let said =
            interruption(&answer(200, r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#)).unwrap().unwrap();
        assert_eq!(said.trigger.deadline, moment::rfc3339("2017-09-18T08:22:00Z"));
        assert_eq!(said.trigger.source, Source::Spot);
        assert!(interruption(&answer(200, "<html>")).is_err());
        assert!(interruption(&answer(500, "")).is_err());
    }

    #[test]
    fn a_recommendation_has_no_deadline() {
        let said = rebalance(&answer(200, r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#)).unwrap().unwrap();
        assert_eq!((said.trigger.source, said.trigger.deadline), (Source::Rebalance, None));
        assert_eq!(rebalance(&answer(404, "")), Ok(None));
    }
}
