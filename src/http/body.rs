//! Request bodies: bounded reading, and JSON that cannot be misread.
//!
//! Asterisk's dialplan builds its JSON by concatenation, so a caller id can inject a duplicate key;
//! where parsers disagree on which one counts, the call could be sent elsewhere. A body with a
//! duplicate key is refused, and so is anything that is not JSON to the last byte.
//!
//! Limits: a body may take [`BODY_TIME`], and all bodies together [`MEMORY`]; the route sets a body's
//! length; values nest at most 127 deep (serde_json's own limit).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::HttpError;
use crate::event::{CallId, EventType, JsonString, MAX_TIMESTAMP, Payload};

const BODY_TIME: Duration = Duration::from_secs(10);

/// The memory of all bodies being read, in bytes, and the steps in which it is handed out. Where none
/// is left a body waits, within its own time.
const MEMORY: usize = 256 * 1024 * 1024;
const STEP: usize = 64 * 1024;

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
    let checked: Result<Strict, _> = serde_json::from_str(text);
    checked
        .map_err(|error| HttpError::bad_request(format!("the body is invalid JSON: {error}")))?;
    Ok(text)
}

/// The fields of an event's JSON, each still as JSON text; `null` counts as absent.
#[derive(Debug, Deserialize)]
pub struct RawEvent<'a> {
    #[serde(borrow)]
    uuid: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
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
        serde_json::from_str(text).map_err(|error| error.to_string())
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

    /// As it was sent: at most 64 bytes, and otherwise unchecked.
    pub fn timestamp(&self) -> Result<Option<Cow<'a, str>>, String> {
        let given = text("timestamp", self.timestamp)?;
        if let Some(length) = given.as_ref().map(|given| given.len())
            && !(1..=MAX_TIMESTAMP).contains(&length)
        {
            return Err(format!(
                "timestamp: expected ISO 8601 such as 2026-01-31T12:00:00.000Z, found a string of {length} bytes"
            ));
        }
        Ok(given)
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
        Ok(text) => Ok(text.map(|text| text.0)),
        Err(_) => Err(format!("{field}: expected a string")),
    }
}

/// Any JSON value without duplicate keys. Holds nothing: reading it is the check.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut keys = Keys::default();
        while let Some(JsonString(key)) = entries.next_key()? {
            if keys.has(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            keys.add(key);
            entries.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// The keys of one object.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    /// Only those beyond [`Self::FEW`]: looking through a few keys is faster than hashing them.
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    const FEW: usize = 16;

    fn has(&self, key: &str) -> bool {
        self.few.iter().any(|known| known == key) || self.many.contains(key)
    }

    fn add(&mut self, key: Cow<'de, str>) {
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
            (r#"{"a":"\ud800"}"#, "at line 1 column 13"),
            (r#"{"a":1e999}"#, "number out of range at line 1 column 10"),
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
    fn nesting_up_to_the_limit_is_accepted() {
        let deep = "[".repeat(127) + &"]".repeat(127);
        assert!(strict_json(deep.as_bytes()).is_ok());
    }
}
