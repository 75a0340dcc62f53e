//! Lines: what was received, as text for people and as JSON for programs; one line a notice.
//!
//! Invariant: a line holds nothing that a terminal would obey, whatever was sent. In JSON such
//! characters are escaped, so that nothing is lost; in text they are replaced.
//!
//! Limits of text, in characters: [`MOST_NAME`], [`MOST_PAYLOAD`], [`MOST_BODY`]. JSON holds it all,
//! but for the body of a request that is no event ([`MOST_BODY`]).

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderName, USER_AGENT};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::event::Received;
use super::server::{End, Ended, Notice, Stray, Verdict};
use crate::delivery::signature::{ID_HEADER, TIMESTAMP_HEADER};
use crate::delivery::{AGENT_HEADER, ATTEMPT_HEADER, SEQUENCE_HEADER};
use crate::text::{disturbs_terminal, printable};

/// The most that is shown of a uuid, a type or a path.
pub const MOST_NAME: usize = 64;

/// The most that is shown of a payload.
pub const MOST_PAYLOAD: usize = 1000;

/// The most that is shown of a body that is no event.
pub const MOST_BODY: usize = 200;

/// The headers that JSON lines have. The secret and the signature are not among them.
const OF_INTEREST: [HeaderName; 7] = [
    ID_HEADER,
    TIMESTAMP_HEADER,
    ATTEMPT_HEADER,
    SEQUENCE_HEADER,
    AGENT_HEADER,
    CONTENT_TYPE,
    USER_AGENT,
];

/// The notice as a line for people.
pub fn text(notice: &Notice) -> String {
    match notice {
        Notice::Arrived(received, delay) => {
            format!("{} … answer in {delay:?}", about(received, received.time))
        }
        Notice::Ended(ended) => ended_text(ended),
        Notice::Strayed(stray) => stray_text(stray),
    }
}

/// The notice as a JSON object.
pub fn json(notice: &Notice) -> String {
    let value = match notice {
        Notice::Arrived(received, delay) => {
            let mut fields = fields("arrived", received);
            fields.insert("delay_ms".to_owned(), millis(*delay).into());
            fields.into()
        }
        Notice::Ended(ended) => ended_json(ended),
        Notice::Strayed(stray) => json!({
            "line": "no_event",
            "time": stamp(stray.time),
            "method": stray.method.as_str(),
            "path": stray.path,
            "body": excerpt(stray),
            "size": stray.body.len(),
            "status": stray.status.as_u16(),
            "reason": stray.reason,
        }),
    };
    escaped(&value)
}

/// The value's text, with what a terminal would obey escaped. Such a character can only stand in a
/// string, and JSON can escape every one of them.
pub fn escaped(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(disturbs_terminal) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if disturbs_terminal(c) {
            write!(escaped, "\\u{:04x}", u32::from(c)).expect("a String takes any text");
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The text, cut after so many characters.
pub fn cut(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

fn shown(text: &str, most: usize) -> String {
    let head = cut(text, most);
    if head.len() == text.len() {
        printable(text)
    } else {
        format!("{}… ({} bytes)", printable(head), text.len())
    }
}

fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn about(received: &Received, time: DateTime<Utc>) -> String {
    let event = &received.event;
    let sequence = received.sequence().map_or("-".to_owned(), |number| format!("#{number}"));
    format!(
        "{} {} {sequence} {:<14} {}",
        stamp(time),
        shown(&event.uuid, MOST_NAME),
        shown(&event.kind, MOST_NAME),
        shown(&event.payload.to_string(), MOST_PAYLOAD),
    )
}

fn ended_text(ended: &Ended) -> String {
    let Ended { received, answer, end, took } = ended;
    let mut line = format!("{} → ", about(received, received.time + *took));
    line += &match end {
        End::Answered(status) => status.as_u16().to_string(),
        End::Closed => "closed".to_owned(),
        End::Gone => "no answer".to_owned(),
    };
    if let Some(attempt) = received.attempt().filter(|attempt| *attempt > 1) {
        line += &format!(" (attempt {attempt})");
    }
    line += &match (end, &answer.verdict) {
        (End::Gone, _) => format!(", the sender went away after {:.1} s", took.as_secs_f64()),
        (_, Verdict::Refused(refusal)) => format!(" refused: {refusal}"),
        (_, Verdict::Fault | Verdict::Drop) => " on order".to_owned(),
        (_, Verdict::Usual) => String::new(),
    };
    for remark in &answer.remarks {
        line += &format!(" ! {remark}");
    }
    line
}

fn stray_text(stray: &Stray) -> String {
    let Stray { time, method, path, body, status, reason } = stray;
    let (method, path) = (shown(method.as_str(), MOST_NAME), shown(path, MOST_NAME));
    let reason = shown(reason, MOST_BODY);
    let body = if body.is_empty() { String::new() } else { format!(" {}", excerpt(stray)) };
    format!("{} {method} {path}{body} → {} {reason}", stamp(*time), status.as_u16())
}

/// The body's beginning, and how long it is.
fn excerpt(stray: &Stray) -> String {
    // No character has more than four bytes.
    let bytes = &stray.body[..stray.body.len().min(4 * MOST_BODY)];
    let text = String::from_utf8_lossy(bytes);
    let head = cut(&text, MOST_BODY);
    let is_whole = head.len() == text.len() && bytes.len() == stray.body.len();
    let rest = if is_whole { String::new() } else { format!("… ({} bytes)", stray.body.len()) };
    printable(head) + &rest
}

fn fields(line: &str, received: &Received) -> Map<String, Value> {
    let event = &received.event;
    let headers: Map<String, Value> = OF_INTEREST
        .iter()
        .filter_map(|name| Some((name.to_string(), received.header(name)?.into())))
        .collect();
    let fields = json!({
        "line": line,
        "time": stamp(received.time),
        "path": received.path,
        "uuid": event.uuid,
        "type": event.kind,
        "timestamp": event.timestamp,
        "payload": event.payload,
        "headers": headers,
        "sequence": received.sequence(),
        "attempt": received.attempt(),
    });
    let Value::Object(fields) = fields else { unreachable!("the macro makes an object of it") };
    fields
}

fn ended_json(ended: &Ended) -> Value {
    let Ended { received, answer, end, took } = ended;
    let (status, reason) = match end {
        End::Answered(status) => (Some(status.as_u16()), None),
        End::Closed => (None, None),
        End::Gone => (None, Some("the sender went away".to_owned())),
    };
    let (verdict, why) = match (end, &answer.verdict) {
        (End::Gone, _) => ("gone", None),
        (_, Verdict::Usual) => ("usual", None),
        (_, Verdict::Fault) => ("fault", None),
        (_, Verdict::Drop) => ("closed", None),
        (_, Verdict::Refused(refusal)) => ("refused", Some(refusal.to_string())),
    };
    let remarks: Vec<Value> = answer
        .remarks
        .iter()
        .map(|remark| json!({"name": remark.name(), "text": remark.to_string()}))
        .collect();
    let mut fields = fields("event", received);
    fields.extend([
        ("status".to_owned(), status.into()),
        ("verdict".to_owned(), verdict.into()),
        ("reason".to_owned(), reason.or(why).into()),
        ("remarks".to_owned(), remarks.into()),
        ("took_ms".to_owned(), millis(*took).into()),
    ]);
    fields.into()
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_what_would_disturb_a_terminal_and_escapes_it() {
        let text = "a\u{1b}[31m\u{7f}\u{9b}\u{202e}é\"\n";
        let line = escaped(&json!({ text: text }));
        assert!(!line.contains(disturbs_terminal), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), json!({ text: text }));
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_how_long_it_was() {
        assert_eq!(shown("ééé", 3), "ééé");
        assert_eq!(shown("éééé", 3), "ééé… (8 bytes)");
        assert_eq!(shown("", 0), "");
    }
}
