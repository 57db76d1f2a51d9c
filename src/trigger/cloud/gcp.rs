//! Google Compute Engine's metadata server.
//!
//! Values: "Preemptible VM instances" and "Query metadata server for maintenance event notices" in the Compute Engine
//! documentation: `instance/preempted` is `TRUE` or `FALSE`, and the machine is stopped 30 s after it has become `TRUE`;
//! `instance/maintenance-event` is `NONE`, `MIGRATE_ON_HOST_MAINTENANCE` or `TERMINATE_ON_HOST_MAINTENANCE`.

use super::http::{Answer, Header};
use super::{Announced, expected};
use crate::trigger::{Source, Trigger, Urgency};
use std::time::{Duration, SystemTime};

/// Whether this machine is being preempted.
pub const PREEMPTED: &str = "/computeMetadata/v1/instance/preempted";
/// What will be done to its host.
pub const MAINTENANCE: &str = "/computeMetadata/v1/instance/maintenance-event";
/// The server answers nobody without it.
pub const HEADER: Header<'static> = ("Metadata-Flavor", "Google");
/// From the notice to the end; up to one look of it is over already.
const NOTICE: Duration = Duration::from_secs(25);

/// What `instance/preempted` says.
pub fn preempted(answer: &Answer, now: SystemTime) -> Result<Option<Announced>, String> {
    match expected(answer)? {
        "FALSE" => Ok(None),
        "TRUE" => {
            let reason = "Google preempts this machine".to_owned();
            let trigger = Trigger { source: Source::Spot, urgency: Urgency::Now, reason, deadline: Some(now + NOTICE) };
            Ok(Some(Announced { key: "preempted".to_owned(), trigger }))
        }
        other => Err(format!("{other:?} instead of TRUE or FALSE")),
    }
}

/// What `instance/maintenance-event` says. A live migration keeps the machine running: no reason to save.
pub fn maintenance(answer: &Answer) -> Result<Option<Announced>, String> {
    match expected(answer)? {
        "TERMINATE_ON_HOST_MAINTENANCE" => {
            let reason = "Google is going to stop this machine for maintenance".to_owned();
            let trigger = Trigger { source: Source::Maintenance, urgency: Urgency::Now, reason, deadline: None };
            Ok(Some(Announced { key: "maintenance".to_owned(), trigger }))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preemption_leaves_half_a_minute() {
        let now = SystemTime::UNIX_EPOCH;
        let said = |body: &str| preempted(&Answer { status: 200, body: body.to_owned() }, now);
        assert_eq!(said("FALSE\n"), Ok(None));
        assert_eq!(said("TRUE").unwrap().unwrap().trigger.deadline, Some(now + NOTICE));
        assert!(said("").is_err());
    }

    #[test]
    fn a_live_migration_is_no_reason() {
        let said = |body: &str| maintenance(&Answer { status: 200, body: body.to_owned() }).unwrap().is_some();
        assert_eq!(
            ["NONE", "MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"].map(said),
            [false, false, true]
        );
    }
}
