//! The event: what is said about a call, and the exact bytes that say it.
//!
//! Owns the identifiers, the event types and the envelope. Leaves to others when an event is due
//! ([`crate::queue`]) and how it travels ([`crate::delivery`]).
//!
//! Invariants:
//! - An [`Event`]'s body is the envelope `{"uuid","type","timestamp","payload"}`, in that order and
//!   with nothing more, because AVR's dashboard refuses any other top-level field. It is made once,
//!   so every attempt and every replay sends the same bytes.
//! - A [`CallId`] always prints in lower case with dashes: receivers compare it as text.
//! - A [`Payload`] is the text of a JSON object, passed on as it came.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZero;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::time::timestamp_now;

/// The longest event id that is accepted, in bytes: it travels as an HTTP header.
pub const MAX_EVENT_ID: usize = 128;

/// The longest name of an event type, in bytes: a name, not a text.
pub const MAX_EVENT_TYPE: usize = 64;

/// The longest timestamp that is passed on, in bytes: ISO 8601 with a zone needs fewer than 40.
pub const MAX_TIMESTAMP: usize = 64;

/// The call's UUID, which Asterisk's dialplan makes and AudioSocket repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(Uuid);

impl CallId {
    /// A fresh random id, for calls that callhook makes up itself.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl CallId {
    /// The 16 bytes of the UUID.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The call with these 16 bytes as UUID.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for CallId {
    type Err = BadCallId;

    /// Reads 32 hexadecimal digits in either case, with or without the four dashes.
    fn from_str(text: &str) -> Result<Self, BadCallId> {
        let plain = matches!(text.len(), 32 | 36);
        match Uuid::try_parse(text) {
            Ok(uuid) if plain => Ok(Self(uuid)),
            Ok(_) | Err(_) => Err(BadCallId),
        }
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The text is no UUID.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a UUID: 32 hexadecimal digits, usually as 8-4-4-4-12 \
     (in a dialplan: Set(UUID=${{SHELL(uuidgen | tr -d '\\n')}}))"
)]
pub struct BadCallId;

/// The event's id: the receiver's idempotency key, the same on every attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EventId {
    /// Made here, as UUIDv7.
    Made(Uuid),
    /// Named by whoever sent the event, as `Idempotency-Key` or `webhook-id`.
    Given(Box<str>),
}

impl EventId {
    /// A new id, ordered by time (UUIDv7, RFC 9562).
    pub fn make() -> Self {
        Self::Made(Uuid::now_v7())
    }

    /// Reads back an id that was printed.
    pub fn from_text(text: &str) -> Self {
        let made = Uuid::try_parse(text).ok().map(Self::Made);
        made.filter(|made| made.to_string() == text).unwrap_or_else(|| Self::Given(text.into()))
    }

    /// Takes an id of 1 to 128 visible ASCII characters.
    ///
    /// # Errors
    /// [`BadEventId`] for any other text.
    pub fn given(text: &str) -> Result<Self, BadEventId> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (1..=MAX_EVENT_ID).contains(&text.len()) {
            Ok(Self::Given(text.into()))
        } else {
            Err(BadEventId)
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(uuid) => uuid.as_hyphenated().fmt(f),
            Self::Given(text) => f.write_str(text),
        }
    }
}

/// The text cannot be an event id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {MAX_EVENT_ID} visible ASCII characters")]
pub struct BadEventId;

/// What happened in the call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The dialplan announced a call; the receiver's answer routes it.
    CallInitiated,
    /// Audio flows.
    CallStarted,
    /// A piece of transcript.
    Transcription,
    /// The caller broke in while the agent spoke.
    Interruption,
    /// The caller pressed a key.
    DtmfDigit,
    /// The call is over.
    CallEnded,
    /// The speech-to-speech server reported a fault; not among AVR's documented types.
    Error,
    /// Any other name; delivered only with `WEBHOOK_EVENTS=*` or when listed there.
    Other(Box<str>),
}

impl EventType {
    /// The types that callhook knows by name.
    pub const KNOWN: [Self; 7] = [
        Self::CallInitiated,
        Self::CallStarted,
        Self::Transcription,
        Self::Interruption,
        Self::DtmfDigit,
        Self::CallEnded,
        Self::Error,
    ];

    /// Whether it is a call's first or last, when it is bridged here.
    pub fn bounds_call(&self) -> bool {
        matches!(self, Self::CallStarted | Self::CallEnded)
    }

    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::CallInitiated => "call_initiated",
            Self::CallStarted => "call_started",
            Self::Transcription => "transcription",
            Self::Interruption => "interruption",
            Self::DtmfDigit => "dtmf_digit",
            Self::CallEnded => "call_ended",
            Self::Error => "error",
            Self::Other(name) => name,
        }
    }
}

impl FromStr for EventType {
    type Err = BadEventType;

    fn from_str(name: &str) -> Result<Self, BadEventType> {
        let visible = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=MAX_EVENT_TYPE).contains(&name.len()) {
            return Err(BadEventType);
        }
        Ok(Self::KNOWN
            .into_iter()
            .find(|known| known.name() == name)
            .unwrap_or_else(|| Self::Other(name.into())))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text cannot name an event type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an event type such as call_started: 1 to {MAX_EVENT_TYPE} visible ASCII characters"
)]
pub struct BadEventType;

/// Which event types are delivered (`WEBHOOK_EVENTS`); the others are accepted and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// Every type, known or not.
    All,
    /// These types.
    Only(Vec<EventType>),
}

impl EventFilter {
    /// Whether events of this type are delivered.
    pub fn admits(&self, kind: &EventType) -> bool {
        match self {
            Self::All => true,
            Self::Only(kinds) => kinds.contains(kind),
        }
    }
}

/// The payload: the text of a JSON object, kept as it came so that nothing in it is lost.
#[derive(Clone, Debug)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// `{}`.
    pub fn empty() -> Self {
        Self(RawValue::from_string("{}".to_owned()).expect("{} is JSON"))
    }

    /// A payload of our own making.
    ///
    /// # Panics
    /// If the value is no JSON object, or does not serialise.
    pub fn of(value: &impl Serialize) -> Self {
        let json = serde_json::value::to_raw_value(value).expect("a payload of ours serialises");
        Self::from_json(json).expect("a payload of ours is an object")
    }

    /// Takes the text of a JSON value that must be an object; `null` counts as `{}`.
    ///
    /// # Errors
    /// [`BadPayload`] for any other kind of value.
    pub fn from_json(value: Box<RawValue>) -> Result<Self, BadPayload> {
        match value.get().as_bytes().first() {
            Some(b'{') => Ok(Self(value)),
            Some(b'n') => Ok(Self::empty()),
            Some(_) | None => Err(BadPayload),
        }
    }

    /// The object's text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The fields in their own order, each value as JSON text.
    pub fn fields(&self) -> Vec<(Cow<'_, str>, &RawValue)> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((JsonString(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(fields)
            }
        }
        serde_json::Deserializer::from_str(self.as_str())
            .deserialize_map(Fields)
            .expect("a payload was checked to be a JSON object when it was made")
    }
}

/// A text, borrowed where it has no escapes.
#[derive(Deserialize)]
pub struct JsonString<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The payload is no JSON object.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON object, null or nothing")]
pub struct BadPayload;

/// Something that happened in a call, ready to be sent.
#[derive(Clone, Debug)]
pub struct Event {
    /// The idempotency key.
    pub id: EventId,
    /// The call it belongs to.
    pub call: CallId,
    /// What happened.
    pub kind: EventType,
    /// `X-AVR-AGENT-ID` in place of the configured one; visible ASCII.
    pub agent: Option<Box<str>>,
    /// The envelope, as it is sent on every attempt.
    pub body: Bytes,
}

impl Event {
    /// Something that callhook itself saw, now, under an id of its own.
    pub fn now(call: CallId, kind: EventType, payload: &Payload) -> Self {
        Self::new(EventId::make(), call, kind, &timestamp_now(), payload)
    }

    /// Makes the event and its envelope. `timestamp` is ISO 8601 text, sent as given.
    pub fn new(
        id: EventId,
        call: CallId,
        kind: EventType,
        timestamp: &str,
        payload: &Payload,
    ) -> Self {
        let envelope = Envelope { uuid: call, kind: kind.name(), timestamp, payload: &payload.0 };
        // As long as it will be, but for what is escaped: it is kept for as long as the receiver is away.
        let length = FRAME + kind.name().len() + timestamp.len() + payload.as_str().len();
        let mut body = Vec::with_capacity(length);
        serde_json::to_writer(&mut body, &envelope)
            .expect("text and checked JSON always serialise");
        Self { id, call, kind, agent: None, body: body.into() }
    }
}

/// One event in the system, from its acceptance to its end: in the queue, in the journal, on its way, as a
/// dead letter, and remembered.
#[derive(Clone, Debug)]
pub struct Item {
    pub event: Arc<Event>,
    /// Its place in all that was accepted; smaller is older.
    pub place: u64,
    /// 1, 2, … within the call, counted over what is to be delivered; 0 where the type is not.
    pub sequence: u64,
    pub spent: Spent,
    pub origin: Origin,
}

/// What was spent on an item so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Attempts that count.
    pub attempts: u32,
    /// When the first attempt failed, be it one that does not count, in Unix milliseconds.
    pub first_failed_at: Option<NonZero<u64>>,
}

/// How an item came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client sent it, who can be refused and send it again.
    Relayed,
    /// callhook saw it happen in a call that it bridges. Nobody could send it again, so it is kept in memory
    /// while the disk fails.
    Bridged,
    /// It was a dead letter, and goes to the end of its call's lane.
    Replay,
}

/// The envelope's length without its type, timestamp and payload, in bytes.
const FRAME: usize =
    r#"{"uuid":"00000000-0000-0000-0000-000000000000","type":"","timestamp":"","payload":}"#.len();

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(serialize_with = "as_text")]
    uuid: CallId,
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: &'a str,
    payload: &'a RawValue,
}

fn as_text<S: serde::Serializer>(id: &CallId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn the_envelope_holds_exactly_four_fields_in_avrs_order() {
        let call: CallId = "FBF28AC55E054C45B58B592680E4FEC0".parse().unwrap();
        let payload = Payload::from_json(raw(r#"{"b":1.50,"a":"é\u0000"}"#)).unwrap();
        let event = Event::new(
            EventId::make(),
            call,
            EventType::CallStarted,
            "2026-01-02T03:04:05.678Z",
            &payload,
        );
        assert_eq!(
            std::str::from_utf8(&event.body).unwrap(),
            r#"{"uuid":"fbf28ac5-5e05-4c45-b58b-592680e4fec0","type":"call_started","timestamp":"2026-01-02T03:04:05.678Z","payload":{"b":1.50,"a":"é\u0000"}}"#
        );
        let varying =
            "call_started".len() + "2026-01-02T03:04:05.678Z".len() + payload.as_str().len();
        assert_eq!(event.body.len(), FRAME + varying, "room was made for all of it at once");
    }

    #[test]
    fn a_call_id_is_read_in_either_case_with_or_without_dashes_and_nothing_else() {
        let good = "fbf28ac5-5e05-4c45-b58b-592680e4fec0";
        for text in [good, &good.to_uppercase(), &good.replace('-', "")] {
            assert_eq!(text.parse::<CallId>().unwrap().to_string(), good);
        }
        let braced = format!("{{{good}}}");
        let urn = format!("urn:uuid:{good}");
        for text in ["", "42", "not-a-uuid", &good[1..], &braced, &urn] {
            assert_eq!(text.parse::<CallId>(), Err(BadCallId), "{text}");
        }
    }

    #[test]
    fn an_event_id_is_1_to_128_visible_ascii_characters() {
        assert!(EventId::given("a").is_ok());
        assert!(EventId::given(&"x".repeat(128)).is_ok());
        for bad in ["", "a b", "é", "tab\t", &"x".repeat(129)] {
            assert_eq!(EventId::given(bad), Err(BadEventId), "{bad:?}");
        }
    }

    #[test]
    fn every_known_type_reads_back_from_its_name() {
        for kind in EventType::KNOWN {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!("tool".parse(), Ok(EventType::Other("tool".into())));
        for bad in ["", "a b", "x\n", &"x".repeat(65)] {
            assert_eq!(bad.parse::<EventType>(), Err(BadEventType), "{bad:?}");
        }
    }

    #[test]
    fn a_payload_is_an_object_or_null() {
        assert_eq!(Payload::from_json(raw("null")).unwrap().as_str(), "{}");
        for bad in ["[]", "1", "\"x\"", "true", "false"] {
            assert_eq!(Payload::from_json(raw(bad)).unwrap_err(), BadPayload);
        }
        let payload = Payload::from_json(raw(r#"{"z":1,"a":null}"#)).unwrap();
        let names: Vec<_> = payload.fields().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["z", "a"]);
    }
}
