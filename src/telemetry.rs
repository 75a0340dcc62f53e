//! Telemetry: the two log formats, the failure record, and the metrics.
//!
//! Logs go to stderr. `text` is made for people: a line an event with its time, and for an event
//! that could not be delivered the block that AVR Core writes. `json` is one flat object a line.
//!
//! Invariant: what is logged above debug holds no payload, transcript, caller number or secret.

pub mod metrics;
mod process;
pub mod values;

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::metrics::Metrics;
use crate::attempt::{Attempt, Failure};
use crate::config::{LogFormat, LogSettings};
use crate::time::{millis, timestamp_now};

/// Marks failure records: they show `status` also where there is none, and the last one of an
/// event is followed by AVR's block in the text format.
const FAILURE: &str = "callhook::failure";

/// The message of an event's last failed attempt.
const GIVEN_UP: &str = "webhook delivery failed";

/// Sends all logs to stderr in the wanted format. Libraries speak from `warn` on.
///
/// # Panics
/// When called twice in a process.
pub fn start(settings: LogSettings) {
    let targets =
        Targets::new().with_default(LevelFilter::WARN).with_target("callhook", settings.level);
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Format(settings.format))
        .with_writer(std::io::stderr)
        .with_filter(targets);
    tracing_subscriber::registry().with(layer).init();
}

/// Logs a failed attempt: a warning, or an error where it was the last one. A probe of a receiver
/// that is down says so, since it repeats the attempt's number.
pub fn log_failure(
    attempt: &Attempt,
    probe: bool,
    attempts: u32,
    failure: &Failure,
    url: &str,
    last: bool,
) {
    macro_rules! record {
        ($level:ident, $message:expr) => {
            $level!(
                target: FAILURE,
                r#type = attempt.event.kind.name(),
                uuid = %attempt.event.call,
                id = %attempt.event.id,
                attempt = attempt.number,
                attempts,
                error = failure.error,
                code = failure.code.name(),
                url,
                method = "POST",
                status = failure.status,
                probe = probe.then_some(true),
                duration_ms = millis(failure.took),
                "{}", $message
            )
        };
    }
    if last {
        record!(error, GIVEN_UP);
    } else {
        record!(warn, "webhook attempt failed");
    }
}

struct Format(LogFormat);

impl<S, N> FormatEvent<S, N> for Format
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
        let mut fields = Fields::default();
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
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
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

fn write_json(to: &mut Writer<'_>, level: Level, fields: Fields) -> fmt::Result {
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), timestamp_now().into());
    line.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
    line.insert("message".to_owned(), fields.message.into());
    line.extend(fields.others);
    writeln!(to, "{}", Value::Object(line))
}

fn write_text(to: &mut Writer<'_>, level: Level, fields: &Fields) -> fmt::Result {
    write!(to, "{} {level:>5} {}", timestamp_now(), fields.message)?;
    for (name, value) in &fields.others {
        write!(to, " {name}={}", Bare(value))?;
    }
    writeln!(to)?;
    if fields.message == GIVEN_UP {
        write_block(to, fields)?;
    }
    Ok(())
}

/// The block that AVR Core writes when it gives up, line for line, for those who grep for it.
fn write_block(to: &mut Writer<'_>, fields: &Fields) -> fmt::Result {
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

/// A value as people read it: quotes only where it would run into the next field.
struct Bare<'a>(&'a Value);

impl fmt::Display for Bare<'_> {
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
            assert_eq!(Bare(&value).to_string(), shown);
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
        let fields = Fields { message: GIVEN_UP.to_owned(), others };
        write_block(&mut Writer::new(&mut block), &fields).unwrap();
        assert_eq!(
            block,
            "[WEBHOOK][CALL_STARTED] Retry failed\nWebhook Error:\n\
             Message: connect ECONNREFUSED avr-webhook:9000\nCode: ECONNREFUSED\n\
             URL: http://avr-webhook:9000/events\nMethod: POST\nStatus: \n"
        );
    }
}
