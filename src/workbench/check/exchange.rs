//! One request and what came back: plain values, which the rules judge and the report shows.
//!
//! Owns the kinds of request that a check makes beside an ordinary event: with another secret, with
//! another signature, by another method.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::attempt::Attempt;
use crate::event::{CallId, Event, EventId, EventType, Item, Origin, Payload, Spent};
use crate::time::timestamp_now;

/// The secret that a wrong sender tries. Nothing of the right one is in it.
pub const WRONG_SECRET: &str = "not-the-secret-of-this-receiver";

/// A signature of the right form that no key makes in practice: 32 zero bytes.
pub const WRONG_SIGNATURE: &str = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// How old an old signature is. Standard Webhooks leaves the limit to the receiver; its libraries
/// take five minutes.
pub const OLD: Duration = Duration::from_secs(60 * 60);

/// Which secret a request brings, where one was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The right one.
    Own,
    /// [`WRONG_SECRET`].
    Wrong,
    /// None.
    Missing,
}

/// Which signature a request brings, where a key was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Made now with the key.
    Own,
    /// [`WRONG_SIGNATURE`].
    Wrong,
    /// Neither a timestamp nor a signature.
    Missing,
    /// Made with the key, for a timestamp [`OLD`].
    Old,
}

/// A long text in a body, which a shell makes more briefly than it is written.
#[derive(Clone, Copy, Debug)]
pub struct Filler {
    /// What is repeated, with a space after each; no character of it means anything to a shell
    /// or to JSON.
    pub phrase: &'static str,
    /// Bytes of the whole text.
    pub length: usize,
}

impl Filler {
    /// The text.
    pub fn text(self) -> String {
        self.phrase.chars().chain([' ']).cycle().take(self.length).collect()
    }
}

/// A request that is to be made.
#[derive(Clone, Debug)]
pub struct Sending {
    /// POST, but where another method is tried; those carry no body.
    pub method: Method,
    /// The event with its place in the call.
    pub attempt: Attempt,
    /// The secret it brings.
    pub secret: Secret,
    /// The signature it brings.
    pub signature: Signature,
    /// The long text in its body.
    pub filler: Option<Filler>,
}

impl Sending {
    /// The same event once more, as a retry sends it.
    pub fn again(&self) -> Self {
        let mut again = self.clone();
        again.attempt.item.spent.attempts += 1;
        again
    }

    /// With another secret.
    pub fn with_secret(self, secret: Secret) -> Self {
        Self { secret, ..self }
    }

    /// With another signature.
    pub fn with_signature(self, signature: Signature) -> Self {
        Self { signature, ..self }
    }

    /// By another method, without a body.
    pub fn by(self, method: Method) -> Self {
        Self { method, ..self }.with_body("")
    }

    /// With bytes that are no proper event.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        let event = Event { body: body.into(), ..Event::clone(&self.attempt.item.event) };
        self.attempt.item.event = Arc::new(event);
        self
    }

    /// The body as text.
    pub fn body(&self) -> &str {
        std::str::from_utf8(&self.attempt.item.event.body).expect("checks send nothing but UTF-8")
    }

    /// The event's type, or the method where that is what is tried.
    pub fn what(&self) -> &str {
        if self.method == Method::POST {
            self.attempt.item.event.kind.name()
        } else {
            self.method.as_str()
        }
    }
}

/// A call of this run, whose events follow each other.
pub struct Call {
    id: CallId,
    sequence: u64,
}

impl Call {
    /// A call that no receiver has seen before.
    pub fn fresh() -> Self {
        Self { id: CallId::random(), sequence: 0 }
    }

    /// Its uuid.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Its next event, with the payload that such an event usually has.
    pub fn next(&mut self, kind: EventType) -> Sending {
        let payload = usual_payload(&kind);
        self.next_with(kind, &payload)
    }

    /// Its next event.
    pub fn next_with(&mut self, kind: EventType, payload: &Value) -> Sending {
        let payload = serde_json::value::to_raw_value(payload).expect("a Value always serialises");
        let payload = Payload::from_json(payload).expect("checks make payloads of objects");
        let event = Event::new(EventId::make(), self.id, kind, &timestamp_now(), &payload);
        self.sequence += 1;
        let item = Item {
            event: Arc::new(event),
            place: self.sequence,
            sequence: self.sequence,
            spent: Spent::default(),
            origin: Origin::Relayed,
        };
        Sending {
            method: Method::POST,
            attempt: Attempt { item, probe: false },
            secret: Secret::Own,
            signature: Signature::Own,
            filler: None,
        }
    }
}

/// The payload that AVR documents for the type.
fn usual_payload(kind: &EventType) -> Value {
    match kind {
        EventType::CallInitiated => serde_json::json!({
            "from": "2000",
            "to": "5001",
            "channel": "PJSIP/2000-00000013",
            "recording": false,
        }),
        EventType::Transcription => {
            serde_json::json!({"role": "user", "text": "A table for two, tonight at eight."})
        }
        EventType::DtmfDigit => serde_json::json!({"digit": "1"}),
        EventType::CallStarted
        | EventType::Interruption
        | EventType::CallEnded
        | EventType::Error
        | EventType::Other(_) => serde_json::json!({}),
    }
}

/// A request and what came back.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What was sent.
    pub sending: Sending,
    /// The headers it was sent with.
    pub headers: HeaderMap,
    /// What came back.
    pub came: Came,
    /// From the connect to the end of the answer's body.
    pub took: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Came {
    /// An answer.
    Answer(Answer),
    /// Nothing, for as long as it was waited for.
    Silence,
    /// An error of the connection.
    Broken {
        /// The short name, as in callhook's log.
        code: &'static str,
        /// The sentence, as in callhook's log.
        error: String,
    },
}

/// The receiver's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The begin of its body, at most [`crate::delivery::MAX_ANSWER`] bytes.
    pub body: Bytes,
    /// This end of the connection, which tells connections apart.
    pub connection: Option<SocketAddr>,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
