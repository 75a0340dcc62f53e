//! One request and what came back: plain values, which the rules judge and the report shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::event::{CallId, Event, EventId, EventType, Item, Origin, Payload};
use crate::time::timestamp_now;
use crate::workbench::alteration::Alteration;

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
    pub fn text(self) -> String {
        self.phrase.chars().chain([' ']).cycle().take(self.length).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Sending {
    pub attempt: Attempt,
    pub alteration: Option<Alteration>,
    pub filler: Option<Filler>,
}

impl Sending {
    /// The same event once more, as a retry sends it.
    pub fn again(&self) -> Self {
        let mut again = self.clone();
        again.attempt.item.spent.attempts += 1;
        again
    }

    pub fn altered(self, alteration: Alteration) -> Self {
        let altered = Self { alteration: Some(alteration), ..self };
        // So that the signature covers what is sent.
        if altered.method() == Method::POST { altered } else { altered.with_body("") }
    }

    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        let event = Event { body: body.into(), ..Event::clone(&self.attempt.item.event) };
        self.attempt.item.event = Arc::new(event);
        self
    }

    pub fn body(&self) -> &str {
        std::str::from_utf8(&self.attempt.item.event.body).expect("checks send nothing but UTF-8")
    }

    pub fn method(&self) -> Method {
        self.alteration.map_or(Method::POST, Alteration::method)
    }

    /// The event's type, or the method where that is what is tried.
    pub fn what(&self) -> String {
        let kind = self.attempt.item.event.kind.name();
        match self.method() {
            Method::POST if self.attempt.number() > 1 => format!("the repeat of {kind}"),
            Method::POST => kind.to_owned(),
            method => method.to_string(),
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

    /// Its next event, with the payload that AVR documents for the type.
    pub fn next(&mut self, kind: EventType) -> Sending {
        let payload = usual_payload(&kind);
        self.next_with(kind, &payload)
    }

    pub fn next_with(&mut self, kind: EventType, payload: &Value) -> Sending {
        let payload = serde_json::value::to_raw_value(payload).expect("a Value always serialises");
        let payload = Payload::from_json(payload).expect("checks make payloads of objects");
        let event = Event::new(EventId::make(), self.id, kind, &timestamp_now(), &payload);
        self.sequence += 1;
        let item = Item::new(Arc::new(event), self.sequence, Origin::Relayed);
        let item = Item { sequence: self.sequence, ..item };
        let attempt = Attempt { item, probe: false, timeout: Duration::ZERO };
        Sending { attempt, alteration: None, filler: None }
    }
}

fn usual_payload(kind: &EventType) -> Value {
    match kind {
        EventType::CallInitiated => json!({
            "from": "2000",
            "to": "5001",
            "channel": "PJSIP/2000-00000013",
            "recording": false,
        }),
        EventType::Transcription => {
            json!({"role": "user", "text": "A table for two, tonight at eight."})
        }
        EventType::DtmfDigit => json!({"digit": "1"}),
        EventType::CallStarted
        | EventType::Interruption
        | EventType::CallEnded
        | EventType::Error
        | EventType::Other(_) => json!({}),
    }
}

#[derive(Clone, Debug)]
pub struct Exchange {
    pub sending: Sending,
    pub headers: HeaderMap,
    pub came: Came,
    /// From the connect to the end of the answer's body.
    pub took: Duration,
}

#[derive(Clone, Debug)]
pub enum Came {
    Answer(Answer),
    /// Nothing, for as long as it was waited for.
    Silence,
    /// An error of the connection, with the code and the sentence of callhook's log.
    Broken {
        code: &'static str,
        error: String,
    },
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Its beginning, at most [`crate::delivery::answer::MAX_ANSWER`] bytes.
    pub body: Bytes,
    /// This end of the connection, which tells connections apart.
    pub connection: Option<SocketAddr>,
}

impl Answer {
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
