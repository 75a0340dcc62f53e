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
use crate::event::{CallId, EventType, JsonString, MAX_TIMESTAMP, Payload, fields, plain};
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

/// The event in a body that is one strict JSON value.
///
/// # Errors
/// 400, with the place of the error, or if it is no object.
pub fn event(body: &[u8]) -> Result<RawEvent<'_>, HttpError> {
    let plain = std::str::from_utf8(body).ok().and_then(RawEvent::from_plain);
    plain
        .map_or_else(|| RawEvent::from_json(strict_json(body)?).map_err(HttpError::bad_request), Ok)
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
    if plain::is_value(text) {
        return Ok(text);
    }
    if text.trim().is_empty() {
        return Err(HttpError::bad_request("the body is empty; expected JSON"));
    }
    checked_json(text)
        .map_err(|error| HttpError::bad_request(format!("the body is invalid JSON: {error}")))
}

/// The items of an array, each still as JSON text. The text must be strict JSON already.
///
/// # Errors
/// If it is no array.
pub fn items(text: &str) -> serde_json::Result<Vec<&str>> {
    let mut items = Vec::new();
    if plain::items(text, |item| items.push(item)) {
        return Ok(items);
    }
    // Of a body that is all commas they take more memory than the body.
    drop(items);
    let items: Vec<&RawValue> = serde_json::from_str(text)?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

fn checked_json(text: &str) -> Result<&str, String> {
    let checked: Result<IgnoredAny, _> = serde_json::from_str(text);
    checked.map_err(|error| error.to_string())?;
    check_objects(text)?;
    Ok(text)
}

/// The fields of an event's JSON, each still as JSON text; `null` counts as absent.
#[derive(Debug, Default)]
pub struct RawEvent<'a> {
    uuid: Option<&'a str>,
    kind: Option<&'a str>,
    timestamp: Option<&'a str>,
    payload: Option<&'a str>,
}

impl<'a> RawEvent<'a> {
    /// The text must be strict JSON already.
    ///
    /// # Errors
    /// Where it is not an object.
    pub fn from_json(text: &'a str) -> Result<Self, String> {
        if let Some(event) = Self::from_plain(text) {
            return Ok(event);
        }
        if !text.trim_start().starts_with('{') {
            return Err("expected a JSON object".to_owned());
        }
        let mut event = Self::default();
        for (name, value) in fields(text).map_err(|error| error.to_string())? {
            event.put(&name.0, value.get());
        }
        Ok(event)
    }

    fn from_plain(text: &'a str) -> Option<Self> {
        let mut event = Self::default();
        plain::fields(text, |name, value| event.put(name.as_bytes(), value)).then_some(event)
    }

    fn put(&mut self, name: &[u8], value: &'a str) {
        let field = match name {
            b"uuid" => &mut self.uuid,
            b"type" => &mut self.kind,
            b"timestamp" => &mut self.timestamp,
            b"payload" => &mut self.payload,
            _ => return,
        };
        *field = Some(value).filter(|value| *value != "null");
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
        let payload = self.payload.map(Payload::from_strict);
        let payload = payload.transpose().map_err(|error| format!("payload: {error}"))?;
        Ok(payload.unwrap_or_else(Payload::empty))
    }
}

/// Borrowed where it has no escapes.
fn text<'a>(field: &str, value: Option<&'a str>) -> Result<Option<Cow<'a, str>>, String> {
    let read = |value| {
        let text = JsonString::from_strict(value).map(JsonString::into_text);
        text.ok_or_else(|| format!("{field}: expected a string"))
    };
    value.map(read).transpose()
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
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// JSON, odd in every way that the grammar allows, with keys of which some are an event's.
    fn json() -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just(r#""uuid""#.to_owned()),
            Just(r#""type""#.to_owned()),
            Just(r#""timestamp""#.to_owned()),
            Just(r#""payload""#.to_owned()),
            r#""[ab]{0,2}""#,
            r#""(a|\\u0061|\\ud800|\\n|é){0,2}""#,
        ];
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            "-?(0|[1-9][0-9]{0,25})([.][0-9]{1,3})?([eE][+-]?[0-9]{1,4})?",
            r#""([a-z {}\[\]:,]|é|😀|\\["\\/bfnrt]|\\u[dD0][0-9a-fA-F]{3}){0,9}""#,
        ];
        let space = || "[ \n\r\t]{0,2}";
        let node = leaf.prop_recursive(20, 60, 6, move |inner| {
            let item = (space(), inner.clone(), space()).prop_map(|(a, b, c)| a + &b + &c);
            let field = (space(), key.clone(), space(), item.clone())
                .prop_map(|(a, key, b, item)| format!("{a}{key}{b}:{item}"));
            prop_oneof![
                1 => vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                4 => vec(field, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(","))),
            ]
        });
        (space(), node, space()).prop_map(|(a, b, c)| a + &b + &c)
    }

    /// A character of it is lost, or another one.
    fn broken() -> impl Strategy<Value = String> {
        let signs = r#"[ \x00-\x1f"\\{}\[\]:,0-9a-zA-Z+.é-]{0,1}"#;
        (json(), any::<prop::sample::Index>(), signs).prop_map(|(json, at, sign)| {
            let mut chars: Vec<char> = json.chars().collect();
            let at = at.index(chars.len());
            chars.splice(at..=at, sign.chars());
            chars.into_iter().collect()
        })
    }

    /// Whatever is read as plain is read the same way by serde_json.
    fn assert_read_alike(text: &str) {
        if plain::is_value(text) {
            assert_eq!(checked_json(text).ok(), Some(text));
        }
        let (mut fields, mut items) = (Vec::new(), Vec::new());
        if plain::fields(text, |name, value| fields.push((name, value))) {
            checked_json(text).unwrap();
            let read: BTreeMap<&str, &RawValue> = serde_json::from_str(text).unwrap();
            let mut read: Vec<_> =
                read.into_iter().map(|(name, value)| (name, value.get())).collect();
            read.sort_by_key(|(_, value)| value.as_ptr());
            assert_eq!(fields, read, "{text}");
        }
        if plain::items(text, |item| items.push(item)) {
            checked_json(text).unwrap();
            let read: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            assert!(read.into_iter().map(RawValue::get).eq(items), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn plain_json_says_what_serde_json_reads(json in json()) {
            assert_read_alike(&json);
        }

        #[test]
        fn broken_json_is_never_plain(json in broken()) {
            assert_read_alike(&json);
        }
    }

    #[test]
    fn what_avr_core_and_asterisk_send_is_plain() {
        for kind in
            ["call_initiated", "call_started", "transcription", "interruption", "call_ended"]
        {
            let body = format!(
                r#"{{"uuid":"4a5fc5b2-5005-432c-a8fb-f300bc75b977","type":"{kind}","timestamp":"2026-01-31T12:00:00.000Z","payload":{{"role":"user","text":"\"Où?\"\n\u00e9 😀","n":[-1.5e3,0],"none":null}}}}"#
            );
            assert!(RawEvent::from_plain(&body).is_some() && plain::is_value(&body), "{body}");
            assert!(plain::items(&format!("[{body},\n{body}]"), |item| assert_eq!(item, body)));
        }
        for capture in ["app-sip-ulaw", "chan-local-slin", "chan-sip-ulaw"] {
            let path = format!("{}/tests/captures/{capture}.http", env!("CARGO_MANIFEST_DIR"));
            let request = std::fs::read_to_string(path).unwrap();
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(RawEvent::from_plain(body).is_some(), "{body}");
        }
    }

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
