//! The event as it was received: its body, read leniently, and the headers that tell which attempt
//! at which event of its call it is.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::delivery::signature::ID_HEADER;
use crate::delivery::{ATTEMPT_HEADER, SEQUENCE_HEADER};

/// An event that has arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// When its head had arrived.
    pub at: Instant,
    /// When its body had, by the wall clock.
    pub time: DateTime<Utc>,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub event: EventBody,
}

/// What the body says, read leniently: it may have more fields, or fewer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EventBody {
    pub uuid: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub timestamp: String,
    pub payload: Value,
}

impl EventBody {
    /// Reads a body.
    ///
    /// # Errors
    /// Why it is not an event.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        // serde would take a list of four for the object of four fields.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err("the body is not the JSON object of an event".to_owned());
        }
        let event: Self = serde_json::from_slice(body)
            .map_err(|error| format!("the body is not the JSON object of an event: {error}"))?;
        match (event.uuid.as_str(), event.kind.as_str()) {
            ("", _) => Err("the event has no uuid".to_owned()),
            (_, "") => Err("the event has no type".to_owned()),
            _ => Ok(event),
        }
    }
}

impl Received {
    /// `X-AVR-WEBHOOK-ATTEMPT`, where it is a number from 1 on.
    pub fn attempt(&self) -> Option<u32> {
        self.number(ATTEMPT_HEADER)?.try_into().ok()
    }

    /// `X-AVR-WEBHOOK-SEQUENCE`, where it is a number from 1 on.
    pub fn sequence(&self) -> Option<u64> {
        self.number(SEQUENCE_HEADER)
    }

    /// What tells the event from others: its `webhook-id`, else its body, if that has a timestamp.
    pub fn identity(&self) -> Option<&[u8]> {
        let id = self.headers.get(ID_HEADER).map(HeaderValue::as_bytes).filter(|id| !id.is_empty());
        id.or_else(|| (!self.event.timestamp.is_empty()).then_some(&self.body))
    }

    pub fn header(&self, name: &HeaderName) -> Option<String> {
        Some(String::from_utf8_lossy(self.headers.get(name)?.as_bytes()).into_owned())
    }

    fn number(&self, name: HeaderName) -> Option<u64> {
        let text = self.headers.get(name)?.to_str().ok()?;
        text.parse().ok().filter(|number| *number > 0)
    }
}
