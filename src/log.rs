//! The log: its two formats, both written to stderr.
//!
//! `text` is for people: one line per record and, where an event could not be delivered, the block that AVR
//! Core writes. `json` is one flat object per line.
//!
//! Invariant: above debug, no record holds a payload, a transcript, a caller's number or a secret.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::time::timestamp_now;

/// The target of failure records: they always show `status`, as `null` where there is none.
pub const FAILURE: &str = "callhook::failure";

/// The message of an event's last failed attempt, which AVR's block follows in the text format.
pub const GIVEN_UP: &str = "webhook delivery failed";

#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: LevelFilter,
}

/// `LOG_FORMAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// Libraries log at `warn` and above, whatever the level is.
///
/// # Panics
/// If called twice in a process.
pub fn start(settings: LogSettings) {
    let targets =
        Targets::new().with_default(LevelFilter::WARN).with_target("callhook", settings.level);
    let layer = tracing_subscriber::fmt::layer()
        .event_format(LineFormat(settings.format))
        .with_writer(std::io::stderr)
        .with_filter(targets);
    tracing_subscriber::registry().with(layer).init();
}

struct LineFormat(LogFormat);

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = LineFields::default();
        event.record(&mut fields);
        if event.metadata().target() == FAILURE {
            fields.others.entry("status").or_insert(Value::Null);
        }
        let level = *event.metadata().level();
        match self.0 {
            LogFormat::Json => write_json(&mut to, level, fields),
            LogFormat::Text => write_text(&mut to, level, &fields),
        }
    }
}

#[derive(Default)]
struct LineFields {
    message: String,
    others: Map<String, Value>,
}

impl LineFields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for LineFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, text);
        }
    }
}

fn write_json(to: &mut Writer<'_>, level: Level, fields: LineFields) -> fmt::Result {
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), timestamp_now().into());
    line.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
    line.insert("message".to_owned(), fields.message.into());
    line.extend(fields.others);
    writeln!(to, "{}", Value::Object(line))
}

fn write_text(to: &mut Writer<'_>, level: Level, fields: &LineFields) -> fmt::Result {
    write!(to, "{} {level:>5} {}", timestamp_now(), fields.message)?;
    for (name, value) in &fields.others {
        write!(to, " {name}={}", BareValue(value))?;
    }
    writeln!(to)?;
    if fields.message == GIVEN_UP {
        write_block(to, fields)?;
    }
    Ok(())
}

/// The block that AVR Core writes when it gives up, line for line: operators grep for it.
fn write_block(to: &mut Writer<'_>, fields: &LineFields) -> fmt::Result {
    let text = |name: &str| match fields.others.get(name) {
        Some(Value::String(text)) => text.replace(char::is_control, " "),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    writeln!(to, "[WEBHOOK][{}] Retry failed", text("type").to_uppercase())?;
    writeln!(to, "Webhook Error:")?;
    writeln!(to, "Message: {}", text("error"))?;
    writeln!(to, "Code: {}", text("code"))?;
    writeln!(to, "URL: {}", text("url"))?;
    writeln!(to, "Method: {}", text("method"))?;
    writeln!(to, "Status: {}", text("status"))
}

/// Quoted only where the value would run into the next field.
struct BareValue<'a>(&'a Value);

impl fmt::Display for BareValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) if is_plain(text) => f.write_str(text),
            Value::Null => f.write_char('-'),
            other => write!(f, "{other}"),
        }
    }
}

fn is_plain(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '"';
    !text.is_empty() && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_values_are_quoted_only_where_they_would_run_together() {
        for (value, shown) in [
            (json!("plain"), "plain"),
            (json!("two words"), "\"two words\""),
            (json!("line\nbreak"), "\"line\\nbreak\""),
            (json!(""), "\"\""),
            (json!(7), "7"),
            (json!(null), "-"),
        ] {
            assert_eq!(BareValue(&value).to_string(), shown);
        }
    }

    #[test]
    fn the_block_is_avrs_line_for_line() {
        let Value::Object(others) = json!({
            "type": "call_started", "error": "connect ECONNREFUSED avr-webhook:9000",
            "code": "ECONNREFUSED", "url": "http://avr-webhook:9000/events", "method": "POST",
            "status": null,
        }) else {
            unreachable!()
        };
        let mut block = String::new();
        let fields = LineFields { message: GIVEN_UP.to_owned(), others };
        write_block(&mut Writer::new(&mut block), &fields).unwrap();
        assert_eq!(
            block,
            "[WEBHOOK][CALL_STARTED] Retry failed\nWebhook Error:\n\
             Message: connect ECONNREFUSED avr-webhook:9000\nCode: ECONNREFUSED\n\
             URL: http://avr-webhook:9000/events\nMethod: POST\nStatus: \n"
        );
    }
}
