//! Request bodies: bounded reading, and JSON that cannot be misread.
//!
//! Asterisk's dialplan builds its JSON by concatenation, so a caller id can inject a duplicate key;
//! where parsers disagree on which one counts, the call could be sent elsewhere. A body with a
//! duplicate key is refused, and so is anything that is not JSON to the last byte.
//!
//! Limits: a body may take [`BODY_TIME`], and all bodies together [`MEMORY`]; the route sets a body's
//! length; values nest at most [`MAX_DEPTH`] deep.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::HttpError;
use crate::event::{CallId, EventType, JsonString, MAX_TIMESTAMP, Payload, fields};
use crate::text::excerpt;
use crate::time::iso_8601_fraction;

const BODY_TIME: Duration = Duration::from_secs(10);

/// The memory of all bodies being read, in bytes, and the steps in which it is handed out. Where none
/// is left a body waits, within its own time.
const MEMORY: usize = 256 * 1024 * 1024;
const STEP: usize = 64 * 1024;

/// As deep as serde_json reads, in receivers that are written like callhook.
const MAX_DEPTH: usize = 127;

/// How far a body that is too long is read beyond its limit, in bytes, so that its sender sees the
/// answer instead of a reset.
const OVERRUN: usize = 1024 * 1024;

/// The memory for all bodies being read, bounded by [`MEMORY`].
pub struct Budget(Semaphore);

impl Default for Budget {
    fn default() -> Self {
        Self(Semaphore::new(MEMORY / STEP))
    }
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(body: Body, limit: usize, budget: &Budget) -> Result<Bytes, HttpError> {
    timeout(BODY_TIME, collect(body, limit, budget)).await.unwrap_or_else(|_| {
        let seconds = BODY_TIME.as_secs();
        Err(HttpError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {seconds} s"),
        ))
    })
}

async fn collect(
    mut body: Body,
    limit: usize,
    Budget(budget): &Budget,
) -> Result<Bytes, HttpError> {
    const OPEN: &str = "the budget is never closed";
    let mut length = 0;
    let mut memory = budget.acquire().await.expect(OPEN);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
    let mut whole = BytesMut::with_capacity(announced.min(STEP));
    while let Some(frame) = body.frame().await {
        let broken = |error| HttpError::bad_request(format!("the body is incomplete: {error}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        length += data.len();
        if length > limit + OVERRUN {
            break;
        }
        if length <= limit {
            while whole.len() + data.len() > memory.num_permits() * STEP {
                memory.merge(budget.acquire().await.expect(OPEN));
            }
            whole.extend_from_slice(&data);
        }
    }
    if length > limit {
        return Err(HttpError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is over {limit} bytes"),
        ));
    }
    Ok(whole.freeze())
}

/// The text of a body that is one strict JSON value.
///
/// # Errors
/// 400, with the place of the error.
pub fn strict_json(body: &[u8]) -> Result<&str, HttpError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to() + 1;
        HttpError::bad_request(format!("the body is not UTF-8: byte {at} is invalid"))
    })?;
    if text.trim().is_empty() {
        return Err(HttpError::bad_request("the body is empty; expected JSON"));
    }
    let invalid =
        |error: String| HttpError::bad_request(format!("the body is invalid JSON: {error}"));
    let checked: Result<IgnoredAny, _> = serde_json::from_str(text);
    checked.map_err(|error| invalid(error.to_string()))?;
    check_objects(text).map_err(invalid)?;
    Ok(text)
}

/// The fields of an event's JSON, each still as JSON text; `null` counts as absent.
#[derive(Debug, Default)]
pub struct RawEvent<'a> {
    uuid: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
}

impl<'a> RawEvent<'a> {
    /// The text must be strict JSON already.
    ///
    /// # Errors
    /// Where it is not an object.
    pub fn from_json(text: &'a str) -> Result<Self, String> {
        if !text.trim_start().starts_with('{') {
            return Err("expected a JSON object".to_owned());
        }
        let mut event = Self::default();
        for (name, value) in fields(text).map_err(|error| error.to_string())? {
            let field = match &*name.0 {
                b"uuid" => &mut event.uuid,
                b"type" => &mut event.kind,
                b"timestamp" => &mut event.timestamp,
                b"payload" => &mut event.payload,
                _ => continue,
            };
            *field = Some(value).filter(|value| value.get() != "null");
        }
        Ok(event)
    }

    /// # Errors
    /// Names the field, as those of the fields below do.
    pub fn call(&self) -> Result<CallId, String> {
        let text = text("uuid", self.uuid)?
            .ok_or_else(|| "uuid: missing; expected the call's UUID".to_owned())?;
        text.parse().map_err(|error| format!("uuid: {error}, not {text:?}"))
    }

    pub fn kind(&self) -> Result<EventType, String> {
        let text = text("type", self.kind)?.ok_or_else(|| {
            "type: missing; expected an event type such as call_started".to_owned()
        })?;
        text.parse().map_err(|error| format!("type: {error}, not {text:?}"))
    }

    /// As it was sent, with the digits of its fraction of a second.
    pub fn timestamp(&self) -> Result<Option<(Cow<'a, str>, usize)>, String> {
        let Some(given) = text("timestamp", self.timestamp)? else {
            return Ok(None);
        };
        let short = Some(&given).filter(|given| given.len() <= MAX_TIMESTAMP);
        match short.and_then(|given| iso_8601_fraction(given)) {
            Some(digits) => Ok(Some((given, digits))),
            None => Err(format!(
                "timestamp: expected a date and time of ISO 8601 such as 2026-01-31T12:00:00.000Z, in at most \
                 {MAX_TIMESTAMP} bytes, not {:?}",
                excerpt(&given, MAX_TIMESTAMP)
            )),
        }
    }

    /// `{}` where there is none.
    pub fn payload(&self) -> Result<Payload, String> {
        let payload = self.payload.map(|payload| Payload::from_json(payload.to_owned()));
        let payload = payload.transpose().map_err(|error| format!("payload: {error}"))?;
        Ok(payload.unwrap_or_else(Payload::empty))
    }
}

/// Borrowed where it has no escapes.
fn text<'a>(field: &str, value: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, String> {
    let parsed = value.map(|value| serde_json::from_str::<JsonString<'_>>(value.get()));
    match parsed.transpose() {
        Ok(text) => Ok(text.map(JsonString::into_text)),
        Err(_) => Err(format!("{field}: expected a string")),
    }
}

/// Checks valid JSON for what its grammar allows: duplicate keys, and any depth.
///
/// By bytes, since reading the values would refuse lone surrogates and numbers beyond a double.
///
/// # Errors
/// What is wrong, and where.
fn check_objects(json: &str) -> Result<(), String> {
    let bytes = json.as_bytes();
    let wrong = |what: String, at: usize| Err(format!("{what} at {}", place(json, at)));
    // The keys of the objects that are open; `None` for an array.
    let mut open: Vec<Option<Keys<'_>>> = Vec::new();
    let mut at = 0;
    let mut before_key = false;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' if open.len() == MAX_DEPTH => {
                return wrong("recursion limit exceeded".to_owned(), at);
            }
            b'{' | b'[' => {
                before_key = *byte == b'{';
                open.push(before_key.then(Keys::default));
            }
            b'}' | b']' => {
                open.pop();
            }
            b',' => before_key = matches!(open.last(), Some(Some(_))),
            b'"' => {
                let begin = at;
                at = end_of_string(bytes, begin);
                if let Some(Some(keys)) = open.last_mut()
                    && std::mem::take(&mut before_key)
                {
                    let key: JsonString<'_> =
                        serde_json::from_str(&json[begin..=at]).expect("it is valid JSON");
                    if keys.has(&key) {
                        return wrong(format!("duplicate key {:?}", key.into_text()), at);
                    }
                    keys.add(key);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The place of the closing quote.
fn end_of_string(json: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while json[at] != b'"' {
        at += if json[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// As serde_json names it.
fn place(json: &str, at: usize) -> String {
    let before = &json.as_bytes()[..=at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
    format!("line {line} column {column}")
}

/// The keys of one object.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<JsonString<'a>>,
    /// Only those beyond [`Self::FEW`]: looking through a few keys is faster than hashing them.
    many: HashSet<JsonString<'a>>,
}

impl<'a> Keys<'a> {
    const FEW: usize = 16;

    fn has(&self, key: &JsonString<'a>) -> bool {
        self.few.contains(key) || self.many.contains(key)
    }

    fn add(&mut self, key: JsonString<'a>) {
        if self.few.len() < Self::FEW {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_can_be_misread_is_refused_with_its_place() {
        for (body, expected) in [
            (r#"{"to":"1","to":"2"}"#, "duplicate key \"to\" at line 1 column 14"),
            (r#"{"a":[{"x":1,"x":1}]}"#, "duplicate key \"x\" at line 1 column 16"),
            (r#"{"a":1"#, "EOF while parsing an object at line 1 column 6"),
            (r#"{"a":1} x"#, "trailing characters at line 1 column 9"),
            ("{\"a\":\"\u{0}\"}", "control character"),
            ("{\"a\":1,\n \"a\":2}", "duplicate key \"a\" at line 2 column 4"),
            (
                r#"{"a":["b","b"],"c":{"a":1},"\u0061":2}"#,
                "duplicate key \"a\" at line 1 column 35",
            ),
            (r#"{"\ud800":1,"\ud800":2}"#, "duplicate key \"\u{fffd}\" at line 1 column 20"),
            ("", "the body is empty"),
        ] {
            let error = strict_json(body.as_bytes()).unwrap_err();
            assert!(error.error.contains(expected), "{body}: {}", error.error);
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(strict_json(deep.as_bytes()).unwrap_err().error.contains("recursion limit"));
        let error = strict_json(b"{\"a\":\"\xff\"}").unwrap_err();
        assert!(error.error.contains("byte 7"), "{}", error.error);
    }

    #[test]
    fn json_that_not_everybody_can_read_is_accepted() {
        for body in [
            r#"{"a":"party \ud83c","b":"\udc00\ud800"}"#,
            r#"{"a":[1E400,-1e999]}"#,
            r#"{"\ud800":1,"\ud801":2}"#,
            r#"{"a":"\\","b":"\"a\":1,"}"#,
        ] {
            assert_eq!(strict_json(body.as_bytes()).ok(), Some(body));
        }
    }

    #[test]
    fn nesting_up_to_the_limit_is_accepted() {
        let deep = "[".repeat(127) + &"]".repeat(127);
        assert!(strict_json(deep.as_bytes()).is_ok());
    }
}
