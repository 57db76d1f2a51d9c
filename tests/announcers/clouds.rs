//! The metadata services of the three clouds, with the documented paths, headers and fields.

use super::{Announcer, Say};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// EC2, which takes the spot instance away once that is announced.
pub fn aws_spot(announced: Arc<AtomicBool>, ends: SystemTime) -> Announcer {
    Announcer::start(move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("PUT", "/latest/api/token") if asked.headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") => {
            text(200, "secret")
        }
        _ if asked.headers.get("x-aws-ec2-metadata-token").is_none_or(|token| token != "secret") => text(401, ""),
        ("GET", "/latest/meta-data/spot/instance-action") if announced.load(Ordering::Relaxed) => interruption(ends),
        _ => text(404, ""),
    })
}

/// EC2 with the same announcement, whose recommendations cannot be read, and which does not answer the first questions.
pub fn aws_spot_of_a_poor_server(announced: Arc<AtomicBool>, ends: SystemTime) -> Announcer {
    let asked_before = std::sync::atomic::AtomicU32::new(0);
    Announcer::start(move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        _ if asked_before.fetch_add(1, Ordering::Relaxed) < 2 => text(503, ""),
        ("PUT", "/latest/api/token") => text(200, "secret"),
        ("GET", "/latest/meta-data/spot/instance-action") if announced.load(Ordering::Relaxed) => interruption(ends),
        ("GET", "/latest/meta-data/spot/instance-action") => text(404, ""),
        _ => text(500, "internal error"),
    })
}

fn interruption(ends: SystemTime) -> Say {
    let time = humantime::format_rfc3339_seconds(ends);
    text(200, format!(r#"{{"action": "terminate", "time": "{time}"}}"#))
}

/// EC2, which expects to take the spot instance away once that is announced.
pub fn aws_rebalance(announced: Arc<AtomicBool>) -> Announcer {
    Announcer::start(move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("PUT", "/latest/api/token") => text(200, "secret"),
        ("GET", "/latest/meta-data/events/recommendations/rebalance") if announced.load(Ordering::Relaxed) => {
            text(200, r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#)
        }
        _ => text(404, ""),
    })
}

/// Compute Engine, which preempts the machine.
pub fn google_preemption(announced: Arc<AtomicBool>) -> Announcer {
    google(announced, "TRUE", "NONE")
}

/// Compute Engine, which stops the machine for maintenance of its host.
pub fn google_maintenance(announced: Arc<AtomicBool>) -> Announcer {
    google(announced, "FALSE", "TERMINATE_ON_HOST_MAINTENANCE")
}

/// Compute Engine, with what it says of preemption and maintenance once something is announced.
fn google(announced: Arc<AtomicBool>, preempted: &'static str, maintenance: &'static str) -> Announcer {
    Announcer::start(move |asked| {
        if asked.headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return text(403, "");
        }
        let said = |then, before| text(200, if announced.load(Ordering::Relaxed) { then } else { before });
        match asked.path.as_str() {
            "/computeMetadata/v1/instance/preempted" => said(preempted, "FALSE"),
            "/computeMetadata/v1/instance/maintenance-event" => said(maintenance, "NONE"),
            _ => text(404, ""),
        }
    })
}

/// Azure, which restarts another machine, and this one once that is announced.
pub fn azure_reboot(announced: Arc<AtomicBool>) -> Announcer {
    azure(announced, "Reboot", "")
}

/// Azure, which takes another machine away, and this one at that moment once it is announced.
pub fn azure_preemption(announced: Arc<AtomicBool>, ends: SystemTime) -> Announcer {
    azure(announced, "Preempt", &http_date(ends))
}

/// Azure, with an event for another machine, and for this one once that is announced.
fn azure(announced: Arc<AtomicBool>, kind: &'static str, not_before: &str) -> Announcer {
    let not_before = not_before.to_owned();
    Announcer::start(move |asked| {
        if asked.headers.get("metadata").is_none_or(|value| value != "true") {
            return text(400, "");
        }
        let machine = if announced.load(Ordering::Relaxed) { "vm_0" } else { "vm_1" };
        match asked.path.split('?').next().unwrap() {
            "/metadata/instance/compute/name" => text(200, "vm_0"),
            "/metadata/scheduledevents" => text(
                200,
                format!(
                    r#"{{"DocumentIncarnation": 1, "Events": [{{"EventId": "{machine}", "EventType": "{kind}",
                    "ResourceType": "VirtualMachine", "Resources": ["{machine}"], "EventStatus": "Scheduled",
                    "NotBefore": "{not_before}", "Description": "", "EventSource": "Platform", "DurationInSeconds": -1}}]}}"#
                ),
            ),
            _ => text(404, ""),
        }
    })
}

/// `Mon, 19 Sep 2016 18:29:47 GMT`, as Azure writes moments.
fn http_date(moment: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let day = DAYS[usize::try_from(days % 7).unwrap()];
    let text = humantime::format_rfc3339_seconds(moment).to_string();
    let (date, time) = text.trim_end_matches('Z').split_once('T').unwrap();
    let [year, month, day_of_month] = date.split('-').collect::<Vec<_>>()[..] else { panic!("{date} is no date") };
    let month = MONTHS[month.parse::<usize>().unwrap() - 1];
    format!("{day}, {day_of_month} {month} {year} {time} GMT")
}

fn text(status: u16, body: impl Into<String>) -> Say {
    Say::Whole(status, "text/plain", body.into())
}
