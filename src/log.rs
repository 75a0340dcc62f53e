//! The log: its two formats, both written to stderr.
//!
//! `text` is for people: one line per record and, where an event could not be delivered, the block that AVR
//! Core writes. `json` is one flat object per line.
//!
//! Nobody waits for stderr: lines go to a thread that writes them, and where it cannot keep up, since nobody reads
//! the pipe, lines are lost and counted.
//!
//! Invariant: above debug, no record holds a payload, a transcript, a caller's number or a secret.
//!
//! Limit: [`MOST_LINES`] wait for stderr.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
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

/// Some megabytes of lines.
const MOST_LINES: usize = 8192;

/// What ends the thread that writes.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Lines that found no room among [`MOST_LINES`].
static NO_ROOM: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that stderr did not take.
static NOT_WRITTEN: AtomicU64 = AtomicU64::new(0);

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

/// Libraries log at `warn` and above, whatever the level is. A panic is an error in the log, since the usual hook
/// would wait for stderr.
///
/// # Panics
/// If called twice in a process.
pub fn start(settings: LogSettings) {
    let targets =
        Targets::new().with_default(LevelFilter::WARN).with_target("callhook", settings.level);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MOST_LINES)
        .thread_name("log")
        .finish(Stderr);
    NO_ROOM.set(writer.error_counter()).expect("the log is started once");
    let layer = tracing_subscriber::fmt::layer()
        .event_format(LineFormat(settings.format))
        .with_writer(writer)
        .with_filter(targets);
    tracing_subscriber::registry().with(layer).init();
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    std::panic::set_hook(Box::new(|panic| error!("{}", panic.to_string().replace('\n', " "))));
}

/// Writes what waits, for a second at most; what is logged later is lost.
pub fn finish() {
    // The guard's drop does it.
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Lines that nobody will read.
pub fn lines_dropped() -> u64 {
    let no_room = NO_ROOM.get().map_or(0, ErrorCounter::dropped_lines);
    u64::try_from(no_room).unwrap_or(u64::MAX).saturating_add(NOT_WRITTEN.load(Ordering::Relaxed))
}

/// Counts what cannot be written: nobody can be told.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if io::stderr().write_all(line).is_err() {
            NOT_WRITTEN.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
