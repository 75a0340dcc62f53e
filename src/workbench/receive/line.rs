//! Lines: what was received, as text for people and as JSON for programs; one line a notice.
//!
//! Invariant: a line holds nothing that a terminal would obey, whatever was sent. In JSON such
//! characters are escaped, so that nothing is lost; in text they are replaced.
//!
//! Limits of text, in characters: [`MOST_NAME`], [`MOST_PAYLOAD`], [`MOST_BODY`]. JSON holds it all,
//! but for the body of a request without a valid event ([`MOST_BODY`]).

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderName, USER_AGENT};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::event::Received;
use super::remark::Remark;
use super::reply::{Ending, Reply};
use super::server::{Notice, Stray};
use crate::delivery::signature::{ID_HEADER, TIMESTAMP_HEADER};
use crate::delivery::{AGENT_HEADER, ATTEMPT_HEADER, SEQUENCE_HEADER};
use crate::text::{disturbs_terminal, printable};
use crate::time::{millis, timestamp};

/// The most that is shown of a uuid, a type or a path.
pub const MOST_NAME: usize = 64;

pub const MOST_PAYLOAD: usize = 1000;

/// The most that is shown of a body that is not an event.
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
        Notice::Ended { received, reply, took } => ended_text(received, reply, *took),
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
        Notice::Ended { received, reply, took } => ended_json(received, reply, *took),
        Notice::Strayed(stray) => json!({
            "line": "no_event",
            "time": timestamp(stray.time),
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

/// The value's JSON, with what a terminal would obey escaped: such characters occur in strings only,
/// where JSON can escape them all.
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

/// The first `most` characters.
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

fn about(received: &Received, time: DateTime<Utc>) -> String {
    let event = &received.event;
    let sequence = received.sequence().map_or("-".to_owned(), |number| format!("#{number}"));
    format!(
        "{} {} {sequence} {:<14} {}",
        timestamp(time),
        shown(&event.uuid, MOST_NAME),
        shown(&event.kind, MOST_NAME),
        shown(&event.payload.to_string(), MOST_PAYLOAD),
    )
}

fn ended_text(received: &Received, reply: &Reply, took: Duration) -> String {
    let mut line = format!("{} → ", about(received, received.time + took));
    line += &match (&reply.ending, reply.ending.status()) {
        (_, Some(status)) => status.as_u16().to_string(),
        (Ending::Gone, None) => "no answer".to_owned(),
        (_, None) => "closed".to_owned(),
    };
    if let Some(attempt) = received.attempt().filter(|attempt| *attempt > 1) {
        line += &format!(" (attempt {attempt})");
    }
    line += &match &reply.ending {
        Ending::Usual(_) => String::new(),
        Ending::Fault(_) | Ending::Closed => " on order".to_owned(),
        Ending::Refused(distrust) => format!(" refused: {distrust}"),
        Ending::Gone => format!(", the sender went away after {:.1} s", took.as_secs_f64()),
    };
    for remark in &reply.remarks {
        line += &format!(" ! {remark}");
    }
    line
}

fn stray_text(stray: &Stray) -> String {
    let Stray { time, method, path, body, status, reason } = stray;
    let (method, path) = (shown(method.as_str(), MOST_NAME), shown(path, MOST_NAME));
    let reason = shown(reason, MOST_BODY);
    let body = if body.is_empty() { String::new() } else { format!(" {}", excerpt(stray)) };
    format!("{} {method} {path}{body} → {} {reason}", timestamp(*time), status.as_u16())
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
        "time": timestamp(received.time),
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

fn ended_json(received: &Received, reply: &Reply, took: Duration) -> Value {
    let (verdict, reason) = match &reply.ending {
        Ending::Usual(_) => ("usual", None),
        Ending::Fault(_) => ("fault", None),
        Ending::Closed => ("closed", None),
        Ending::Refused(distrust) => ("refused", Some(distrust.to_string())),
        Ending::Gone => ("gone", Some("the sender went away".to_owned())),
    };
    let named = |remark: &Remark| json!({"name": <&str>::from(remark), "text": remark.to_string()});
    let remarks: Vec<Value> = reply.remarks.iter().map(named).collect();
    let mut fields = fields("event", received);
    fields.extend([
        ("status".to_owned(), reply.ending.status().map(|status| status.as_u16()).into()),
        ("verdict".to_owned(), verdict.into()),
        ("reason".to_owned(), reason.into()),
        ("remarks".to_owned(), remarks.into()),
        ("took_ms".to_owned(), millis(took).into()),
    ]);
    fields.into()
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
