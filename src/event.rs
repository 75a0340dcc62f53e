//! The event: what is said about a call, and the exact bytes that say it.
//!
//! Owns the identifiers, the event types, the envelope, and the [`Item`] that carries an event through
//! callhook. Leaves to others when an event is due ([`crate::queue`]) and how it is sent
//! ([`crate::delivery`]).
//!
//! Invariants:
//! - An [`Event`]'s body is the envelope `{"uuid","type","timestamp","payload"}`, in that order and
//!   nothing else: AVR's dashboard rejects any other top-level field. It is serialised once, so every
//!   attempt and every replay sends the same bytes.
//! - A [`CallId`] always prints in lower case with dashes: receivers compare it as text.
//! - A [`Payload`] is the text of a JSON object, passed on byte for byte.

pub mod partition;
pub mod plain;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZero;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use self::partition::Partition;
use crate::receiver::ReceiverId;
use crate::time::timestamp_now;

/// In bytes: an event id is sent as an HTTP header.
pub const MAX_EVENT_ID: usize = 128;

/// In bytes: an event type is a name, not prose.
pub const MAX_EVENT_TYPE: usize = 64;

/// In bytes: ISO 8601 with a time zone needs fewer than 40.
pub const MAX_TIMESTAMP: usize = 64;

/// The call's UUID, made by Asterisk's dialplan and repeated on AudioSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(Uuid);

impl CallId {
    /// For calls that callhook makes up itself.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The same on every node, and in the journal that they share.
    pub fn partition(self) -> Partition {
        Partition::of(self.to_bytes())
    }
}

impl FromStr for CallId {
    type Err = BadCallId;

    /// Accepts 32 hexadecimal digits in either case, with or without the four dashes; no braces, no URN.
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
    /// Chosen by the sender, as `Idempotency-Key` or `webhook-id`.
    Given(Box<str>),
}

impl EventId {
    /// A UUIDv7 (RFC 9562), so that ids sort by time.
    pub fn make() -> Self {
        Self::Made(Uuid::now_v7())
    }

    /// Parses what [`Display`](fmt::Display) wrote.
    pub fn from_text(text: &str) -> Self {
        let made = Uuid::try_parse(text).ok().map(Self::Made);
        made.filter(|made| made.to_string() == text).unwrap_or_else(|| Self::Given(text.into()))
    }

    /// # Errors
    /// Unless it is 1 to [`MAX_EVENT_ID`] visible ASCII characters.
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

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {MAX_EVENT_ID} visible ASCII characters")]
pub struct BadEventId;

#[derive(Clone, Debug, PartialEq, Eq, Hash, strum::AsRefStr)]
#[strum(serialize_all = "snake_case")]
pub enum EventType {
    /// The dialplan announced a call; the receiver's answer routes it.
    CallInitiated,
    /// Audio flows.
    CallStarted,
    Transcription,
    /// The caller broke in while the agent spoke.
    Interruption,
    DtmfDigit,
    CallEnded,
    /// The speech-to-speech server reported an error; not one of AVR's documented types.
    Error,
    /// Delivered only with `WEBHOOK_EVENTS=*` or when listed there.
    #[strum(transparent)]
    Other(Box<str>),
}

impl EventType {
    /// All but `Other`; AVR's six documented types come first.
    pub const KNOWN: &'static [Self] = &[
        Self::CallInitiated,
        Self::CallStarted,
        Self::Transcription,
        Self::Interruption,
        Self::DtmfDigit,
        Self::CallEnded,
        Self::Error,
    ];

    /// Whether it begins or ends a bridged call.
    pub fn bounds_call(&self) -> bool {
        matches!(self, Self::CallStarted | Self::CallEnded)
    }

    /// As in the envelope, in settings and in metrics.
    pub fn name(&self) -> &str {
        self.as_ref()
    }
}

impl FromStr for EventType {
    type Err = BadEventType;

    fn from_str(name: &str) -> Result<Self, BadEventType> {
        let visible = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=MAX_EVENT_TYPE).contains(&name.len()) {
            return Err(BadEventType);
        }
        let known = Self::KNOWN.iter().find(|known| known.name() == name);
        Ok(known.cloned().unwrap_or_else(|| Self::Other(name.into())))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an event type such as call_started: 1 to {MAX_EVENT_TYPE} visible ASCII characters"
)]
pub struct BadEventType;

/// `WEBHOOK_EVENTS`: the types that are delivered. Others are accepted and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventFilter {
    All,
    Only(Vec<EventType>),
}

impl EventFilter {
    pub fn admits(&self, kind: &EventType) -> bool {
        match self {
            Self::All => true,
            Self::Only(kinds) => kinds.contains(kind),
        }
    }
}

/// The text of a JSON object, kept as it came: parsed values would round its numbers. Clones share it.
#[derive(Clone, Debug)]
pub struct Payload(Arc<str>);

impl Payload {
    pub fn empty() -> Self {
        Self("{}".into())
    }

    /// # Panics
    /// If the value does not serialise to a JSON object.
    pub fn of(value: &impl Serialize) -> Self {
        let json = serde_json::to_string(value).expect("our own payloads serialise");
        Self::from_strict(&json).expect("our own payloads are objects")
    }

    /// `null` counts as `{}`.
    ///
    /// # Errors
    /// If it is neither an object nor `null`.
    pub fn from_json(value: Box<RawValue>) -> Result<Self, BadPayload> {
        Self::from_strict(&Box::<str>::from(value))
    }

    /// The same, of a text that is one JSON value, without white space around it.
    ///
    /// # Errors
    /// As with [`Self::from_json`].
    pub fn from_strict(json: &str) -> Result<Self, BadPayload> {
        match json.as_bytes().first() {
            Some(b'{') => Ok(Self(json.into())),
            Some(b'n') => Ok(Self::empty()),
            Some(_) | None => Err(BadPayload),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In the order of the text; each value is JSON text.
    pub fn fields(&self) -> Vec<(JsonString<'_>, &RawValue)> {
        fields(self.as_str()).expect("a payload was checked to be a JSON object when it was made")
    }
}

/// The fields of a JSON object, in the order of the text; each value is JSON text.
///
/// # Errors
/// If it is no JSON object.
pub fn fields(json: &str) -> serde_json::Result<Vec<(JsonString<'_>, &RawValue)>> {
    struct FieldsVisitor;
    impl<'de> Visitor<'de> for FieldsVisitor {
        type Value = Vec<(JsonString<'de>, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some(field) = map.next_entry()? {
                fields.push(field);
            }
            Ok(fields)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let fields = reader.deserialize_map(FieldsVisitor)?;
    reader.end()?;
    Ok(fields)
}

/// A JSON string, borrowed from the input where it has no escapes.
///
/// Lone surrogates, which JavaScript writes where it cuts a text in mid-emoji, are kept apart from each other: hence
/// [WTF-8](https://simonsapin.github.io/wtf-8/), which is UTF-8 but for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JsonString<'a>(pub Cow<'a, [u8]>);

impl<'a> JsonString<'a> {
    /// From a text that is one JSON value, without white space around it; `None` if that is no string.
    pub fn from_strict(json: &'a str) -> Option<Self> {
        match json.as_bytes() {
            [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => Some(Self(plain.into())),
            _ => serde_json::from_str(json).ok(),
        }
    }

    /// With U+FFFD in place of each lone surrogate.
    pub fn into_text(self) -> Cow<'a, str> {
        const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
        let text = |bytes| String::from_utf8(bytes).ok();
        let whole = "without its surrogates it is UTF-8";
        match self.0 {
            Cow::Borrowed(bytes) if let Ok(text) = std::str::from_utf8(bytes) => text.into(),
            bytes => {
                let mut bytes = bytes.into_owned();
                // In UTF-8, 0xED is followed by 0x80 to 0x9F.
                let surrogate = |bytes: &[u8]| {
                    bytes.windows(2).position(|pair| pair[0] == 0xED && pair[1] >= 0xA0)
                };
                let mut from = 0;
                while let Some(at) = surrogate(&bytes[from..]) {
                    from += at + REPLACEMENT.len();
                    bytes[from - REPLACEMENT.len()..from].copy_from_slice(REPLACEMENT);
                }
                text(bytes).expect(whole).into()
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonString<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct StringVisitor;
        impl<'de> Visitor<'de> for StringVisitor {
            type Value = JsonString<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(JsonString(bytes.into()))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(JsonString(bytes.to_owned().into()))
            }
        }
        // As a string, serde_json refuses lone surrogates.
        from.deserialize_bytes(StringVisitor)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON object, null or nothing")]
pub struct BadPayload;

#[derive(Clone, Debug)]
pub struct Event {
    pub id: EventId,
    pub call: CallId,
    pub kind: EventType,
    /// Of the request that it came with, if it had any; shared by the events of an array.
    pub headers: Option<Arc<EventHeaders>>,
    /// The envelope, ready to be sent.
    pub body: Bytes,
}

/// What the headers of a request say about its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventHeaders {
    /// `X-AVR-AGENT-ID` in place of `AGENT_ID`; visible ASCII.
    pub agent: Option<Box<str>>,
    /// `traceparent`; known until the next restart.
    pub trace: Option<Box<str>>,
    /// `X-Callhook-Via`; visible ASCII, known until the next restart.
    pub via: Option<Box<str>>,
}

impl EventHeaders {
    /// `None` where they say nothing.
    pub fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}

impl Event {
    /// For what callhook itself sees: stamped with the current time and a new id.
    pub fn now(call: CallId, kind: EventType, payload: &Payload) -> Self {
        Self::new(EventId::make(), call, kind, &timestamp_now(), payload)
    }

    /// `timestamp` is ISO 8601 text, sent as given.
    pub fn new(
        id: EventId,
        call: CallId,
        kind: EventType,
        timestamp: &str,
        payload: &Payload,
    ) -> Self {
        let body = envelope(call, kind.name(), timestamp, payload);
        Self { id, call, kind, headers: None, body }
    }

    /// `X-AVR-AGENT-ID` in place of `AGENT_ID`.
    pub fn agent(&self) -> Option<&str> {
        self.headers.as_ref()?.agent.as_deref()
    }

    /// The `traceparent` that it came with.
    pub fn trace(&self) -> Option<&str> {
        self.headers.as_ref()?.trace.as_deref()
    }

    /// The `X-Callhook-Via` that it came with.
    pub fn via(&self) -> Option<&str> {
        self.headers.as_ref()?.via.as_deref()
    }
}

impl Event {
    /// Of what an event says but its time, which its sender may stamp anew: call, type and payload.
    pub fn digest(&self) -> [u8; 32] {
        let envelope = std::str::from_utf8(&self.body).ok().and_then(|body| fields(body).ok());
        let payload = envelope.and_then(|mut fields| fields.pop());
        let (_, payload) =
            payload.expect("an event's body was made as JSON that ends in its payload");
        let mut digest = Sha256::new_with_prefix(self.call.to_bytes());
        digest.update(self.kind.name());
        // Payloads begin with `{`, which types may hold too.
        digest.update([0]);
        digest.update(payload.get());
        digest.finalize().into()
    }
}

/// An event on its way to one receiver, from acceptance to its end: queued, journalled, being attempted, as a dead
/// letter and in the history.
#[derive(Clone, Debug)]
pub struct Item {
    pub event: Arc<Event>,
    pub receiver: ReceiverId,
    /// Among all that was accepted; smaller is older.
    pub place: u64,
    /// 1, 2, … within the call, counting only types that the receiver takes; 0 for the others.
    pub sequence: u64,
    pub spent: Spent,
    pub origin: Origin,
    pub share: Share,
}

/// How the journal keeps an item's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// With the item: it is for the main receiver alone.
    Own,
    /// Once for items at adjacent places, of which this is the nth from 0 on.
    Nth(u8),
}

impl Item {
    /// For the main receiver alone, not numbered yet.
    pub fn new(event: Arc<Event>, place: u64, origin: Origin) -> Self {
        let (receiver, spent) = (ReceiverId::MAIN, Spent::default());
        Self { event, receiver, place, sequence: 0, spent, origin, share: Share::Own }
    }

    /// Whether another item answers for its event.
    pub fn is_copy(&self) -> bool {
        matches!(self.share, Share::Nth(1..))
    }

    /// The place of the first of those that share its event, if any do.
    pub fn shared_at(&self) -> Option<u64> {
        match self.share {
            Share::Own => None,
            Share::Nth(nth) => Some(self.place - u64::from(nth)),
        }
    }
}

/// What has been spent on an item so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Without failed probes, which do not count.
    pub attempts: u32,
    /// In Unix milliseconds; failed probes included.
    pub first_failed_at: Option<NonZero<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Sent by a client, which can be refused and send it again.
    Relayed,
    /// Seen by callhook in a call that it is asked about, or bridges. Nobody could send it again, so it is
    /// kept in memory while the disk fails.
    Bridged,
    /// A dead letter that is sent again, at the end of its call's lane.
    Replay,
    /// For another receiver than the one that answers for whether its event is accepted. Kept in memory while the disk
    /// fails, unless the event is refused.
    Copy,
}

/// The envelope's length without its type, timestamp and payload, in bytes.
const FRAME: usize =
    r#"{"uuid":"00000000-0000-0000-0000-000000000000","type":"","timestamp":"","payload":}"#.len();

fn envelope(call: CallId, kind: &str, timestamp: &str, payload: &Payload) -> Bytes {
    // Exact unless something is escaped: an event may stay in memory for as long as the receiver is
    // down, so no spare capacity.
    let length = FRAME + kind.len() + timestamp.len() + payload.as_str().len();
    let mut body = Vec::with_capacity(length);
    let quote = |body: &mut Vec<u8>, text| {
        serde_json::to_writer(body, text).expect("text always serialises");
    };
    body.extend_from_slice(br#"{"uuid":""#);
    body.extend_from_slice(
        call.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes(),
    );
    body.extend_from_slice(br#"","type":"#);
    quote(&mut body, kind);
    body.extend_from_slice(br#","timestamp":"#);
    quote(&mut body, timestamp);
    body.extend_from_slice(br#","payload":"#);
    body.extend_from_slice(payload.as_str().as_bytes());
    body.push(b'}');
    body.into()
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
        assert_eq!(event.body.len(), FRAME + varying, "the buffer was sized exactly");
    }

    #[test]
    fn a_digest_is_of_call_type_and_payload_alone() {
        let payload = |text| Payload::from_json(raw(text)).unwrap();
        let event = |call: u8, kind: &str, at, text| {
            let (id, call) = (EventId::make(), CallId::from_bytes([call; 16]));
            Event::new(id, call, kind.parse().unwrap(), at, &payload(text)).digest()
        };
        let one = event(1, "call_started", "2026-01-02T03:04:05.678Z", r#"{"a":"\ud83c"}"#);
        assert_eq!(one, event(1, "call_started", "odd\" time", r#"{"a":"\ud83c"}"#));
        for other in [
            event(2, "call_started", "", r#"{"a":"\ud83c"}"#),
            event(1, "call_ended", "", r#"{"a":"\ud83c"}"#),
            event(1, "call_started", "", r#"{"a":"\ud83d"}"#),
        ] {
            assert_ne!(one, other);
        }
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
            assert_eq!(kind.name().parse().as_ref(), Ok(kind));
        }
        assert_eq!("tool".parse(), Ok(EventType::Other("tool".into())));
        for bad in ["", "a b", "x\n", &"x".repeat(65)] {
            assert_eq!(bad.parse::<EventType>(), Err(BadEventType), "{bad:?}");
        }
    }

    #[test]
    fn a_lone_surrogate_is_read_as_a_replacement_character() {
        for (json, text) in [
            (r#""plain é""#, "plain é"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""party \ud83c""#, "party \u{fffd}"),
            (r#""\udc00\ud800x\ud7ff\n""#, "\u{fffd}\u{fffd}x\u{d7ff}\n"),
            (r#""\ud83c\ud83c\udf89""#, "\u{fffd}\u{1f389}"),
        ] {
            let string: JsonString<'_> = serde_json::from_str(json).unwrap();
            assert_eq!(string.into_text(), text, "{json}");
        }
        let [one, other] =
            [r#""\ud800""#, r#""\ud801""#].map(serde_json::from_str::<JsonString<'_>>);
        assert_ne!(one.unwrap(), other.unwrap());
    }

    #[test]
    fn a_payload_is_an_object_or_null() {
        assert_eq!(Payload::from_json(raw("null")).unwrap().as_str(), "{}");
        for bad in ["[]", "1", "\"x\"", "true", "false"] {
            assert_eq!(Payload::from_json(raw(bad)).unwrap_err(), BadPayload);
        }
        let payload = Payload::from_json(raw(r#"{"z":1,"a":null}"#)).unwrap();
        let names: Vec<_> =
            payload.fields().into_iter().map(|(name, _)| name.into_text()).collect();
        assert_eq!(names, ["z", "a"]);
    }
}
