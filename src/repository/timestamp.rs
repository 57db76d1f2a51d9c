//! Times in the repository's documents: RFC 3339 in UTC with milliseconds, readable for people.
//! For use with `#[serde(with = "timestamp")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::time::{Duration, SystemTime};

/// The end of the year 9999, in seconds: the last that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;

pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    text(*time).serialize(serializer)
}

/// A time as documents have it.
pub(crate) fn text(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since.min(Duration::from_secs(LAST))).to_string()
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// This moment, to the millisecond: what a document can hold.
pub(super) fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000)
}
