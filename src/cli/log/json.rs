//! One JSON object for each message, with who speaks: what a cluster's log store indexes.

use crate::observe::identity::{self, Identity};
use serde_json::{Map, Value};
use std::fmt;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `{"timestamp":…,"level":"info","message":…,"job":…,"pod":…,"generation":…, the event's own fields}`.
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        writeln!(out, "{}", line(SystemTime::now(), &level, &identity::speaker(), fields.0))
    }
}

fn line(now: SystemTime, level: &str, speaker: &Identity, mut fields: Map<String, Value>) -> Value {
    let mut line = Map::new();
    line.insert("timestamp".into(), humantime::format_rfc3339_millis(now).to_string().into());
    line.insert("level".into(), level.into());
    line.insert("message".into(), fields.remove("message").unwrap_or_default());
    let who = [
        ("job", &speaker.job),
        ("pod", &speaker.pod),
        ("namespace", &speaker.namespace),
        ("generation", &speaker.generation),
    ];
    for (name, value) in who {
        if let Some(value) = value {
            line.insert(name.into(), value.as_str().into());
        }
    }
    // What the event says of itself is nearer to the truth.
    line.extend(fields);
    Value::Object(line)
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_job_and_the_event_has_the_last_word() {
        let speaker = Identity {
            job: Some("assembly".into()),
            pod: Some("assembly-7".into()),
            namespace: None,
            generation: Some("1-1".into()),
        };
        let fields =
            [("message", Value::from("saved\nand \"told\"")), ("generation", "2-1".into()), ("bytes", 7.into())];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let line = line(SystemTime::UNIX_EPOCH, "info", &speaker, fields).to_string();
        assert!(!line.contains('\n'), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&read["job"], &read["pod"], &read["bytes"]), (&"assembly".into(), &"assembly-7".into(), &7.into()));
        assert_eq!((&read["generation"], &read["namespace"]), (&"2-1".into(), &Value::Null));
    }
}
