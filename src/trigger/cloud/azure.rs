//! Azure's Scheduled Events.
//!
//! Fields: "Azure Metadata Service: Scheduled Events for Linux VMs": `{"DocumentIncarnation": 1, "Events": [{"EventId",
//! "EventType": "Reboot" | "Redeploy" | "Freeze" | "Preempt" | "Terminate", "ResourceType": "VirtualMachine",
//! "Resources": ["name"], "EventStatus": "Scheduled" | "Started", "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT" | ""}]}`.
//! `NotBefore` is empty once an event has started.

use super::http::{Answer, Header};
use super::{Announced, expected, moment};
use crate::trigger::{Source, Trigger, Urgency};
use serde::Deserialize;
use std::time::SystemTime;

/// The events of all machines of the group.
pub const EVENTS: &str = "/metadata/scheduledevents?api-version=2020-07-01";
/// This machine's name among them.
pub const NAME: &str = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";
/// The service answers nobody without it.
pub const HEADER: Header<'static> = ("Metadata", "true");

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(clippy::struct_field_names)] // Azure's names.
struct Event {
    event_id: String,
    event_type: String,
    #[serde(default)]
    event_status: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    not_before: String,
}

/// This machine's name.
pub fn name(answer: &Answer) -> Result<String, String> {
    expected(answer).map(ToOwned::to_owned)
}

/// What is going to happen to the machine of that name.
pub fn events(answer: &Answer, name: &str, now: SystemTime) -> Result<Vec<Announced>, String> {
    let document: Document = serde_json::from_str(expected(answer)?).map_err(|error| error.to_string())?;
    let ours = |event: &Event| event.resources.iter().any(|resource| resource.eq_ignore_ascii_case(name));
    Ok(document.events.into_iter().filter(ours).filter_map(|event| announced(event, now)).collect())
}

fn announced(event: Event, now: SystemTime) -> Option<Announced> {
    let (source, what) = match event.event_type.as_str() {
        "Preempt" => (Source::Spot, "takes this spot machine away"),
        "Terminate" => (Source::Spot, "is going to delete this machine"),
        "Reboot" => (Source::Maintenance, "is going to restart this machine"),
        "Redeploy" => (Source::Maintenance, "is going to move this machine, which loses its memory"),
        // A pause of seconds, after which everything runs on.
        _ => return None,
    };
    // Begun: no moment is given any more, and there may be none left.
    let deadline = if event.event_status == "Started" { Some(now) } else { moment::http_date(&event.not_before) };
    let trigger = Trigger { source, urgency: Urgency::Now, reason: format!("Azure {what}"), deadline };
    Some(Announced { key: event.event_id, trigger })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"DocumentIncarnation": 2, "Events": [
        {"EventId": "A", "EventType": "Preempt", "ResourceType": "VirtualMachine", "Resources": ["vm_0"],
         "EventStatus": "Scheduled", "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT", "Description": "", "EventSource": "Platform"},
        {"EventId": "B", "EventType": "Reboot", "ResourceType": "VirtualMachine", "Resources": ["vm_0", "vm_1"],
         "EventStatus": "Started", "NotBefore": ""},
        {"EventId": "C", "EventType": "Freeze", "ResourceType": "VirtualMachine", "Resources": ["vm_0"],
         "EventStatus": "Scheduled", "NotBefore": ""}]}"#;

    #[test]
    fn only_this_machine_and_only_what_ends_it() {
        let now = SystemTime::UNIX_EPOCH;
        let said = |name| events(&Answer { status: 200, body: TEXT.to_owned() }, name, now).unwrap();
        let ours = said("VM_0");
        assert_eq!(ours.len(), 2);
        assert_eq!(ours[0].trigger.deadline, moment::rfc3339("2016-09-19T18:29:47Z"));
        assert_eq!((ours[1].trigger.source, ours[1].trigger.deadline), (Source::Maintenance, Some(now)));
        assert_eq!(said("vm_7").len(), 0);
        let none = Answer { status: 200, body: r#"{"DocumentIncarnation":1,"Events":[]}"#.to_owned() };
        assert_eq!(events(&none, "vm_0", now), Ok(vec![]));
    }
}
