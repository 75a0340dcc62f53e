//! `POST /events`: takes events from a real AVR Core, or any other program.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;

use super::body::{self, RawEvent};
use super::error::HttpError;
use super::front::Front;
use crate::delivery::trace::{TRACE_HEADER, VIA_HEADER, is_traceparent};
use crate::event::{Event, EventHeaders, EventId, EventType};
use crate::queue::{Accepted, Receipt, Refused};
use crate::time::timestamp_now;

/// The longest body, in bytes: a thousand events of 8 KiB.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// The longest single event, in bytes: what AVR's dashboard takes.
const MAX_EVENT: usize = 100 * 1024;

const MAX_EVENTS: usize = 1000;

/// Digits of a second's fraction: with so many, no two events of a call have the same time.
const MILLISECONDS: usize = 3;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const AGENT_ID: HeaderName = HeaderName::from_static("x-avr-agent-id");

/// What a request says about all of its events.
struct Sent {
    key: Option<String>,
    headers: Option<Arc<EventHeaders>>,
}

#[derive(Serialize)]
struct EventAnswer {
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sts_url: Option<String>,
}

#[derive(Serialize)]
struct ArrayAnswer {
    ids: Vec<Option<String>>,
}

pub async fn take(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, HttpError> {
    front.authorise(request.headers())?;
    let sent = Sent::read(request.headers()).map_err(HttpError::bad_request)?;
    let body = body::read(request.into_body(), MAX_BODY, &front.requests.bodies).await?;
    let json = body::strict_json(&body)?;
    if json.trim_start().starts_with('[') {
        let (events, stamped) = read_many(&sent, json)?;
        let receipt = front.taken(&sent, &body, events, stamped)?;
        answer_many(receipt).await
    } else {
        let (event, stamped) = sent.event(None, json.trim(), "")?;
        let routed = event.kind == EventType::CallInitiated;
        let receipt = front.taken(&sent, &body, vec![event], stamped)?;
        answer_one(&front, receipt, routed).await
    }
}

impl Front {
    /// `stamped`: whether a body that equals this one is a repeat.
    fn taken(
        &self,
        sent: &Sent,
        body: &[u8],
        events: Vec<Event>,
        stamped: bool,
    ) -> Result<Receipt, Refused> {
        if sent.key.is_some() || !stamped {
            return self.queue.accept(events);
        }
        self.requests.repeats.receipt_of(body, Instant::now(), || self.queue.accept(events))
    }
}

async fn answer_one(front: &Front, receipt: Receipt, routed: bool) -> Result<Response, HttpError> {
    let accepted = receipt.promised().await?.into_iter().next();
    let accepted = accepted.expect("one event in, one answer out");
    let id = accepted.id.map(|id| id.to_string());
    match accepted.slot {
        Some(slot) if routed => {
            let decision = front.decision_of(&slot).await;
            let sts_url = decision.and_then(|decision| decision.given().map(ToOwned::to_owned));
            Ok(Json(EventAnswer { id, sts_url }).into_response())
        }
        Some(_) | None => {
            let status = if routed && id.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok((status, Json(EventAnswer { id, sts_url: None })).into_response())
        }
    }
}

async fn answer_many(receipt: Receipt) -> Result<Response, HttpError> {
    let shown = |accepted: Accepted| accepted.id.map(|id| id.to_string());
    let ids = receipt.promised().await?.into_iter().map(shown).collect();
    Ok((StatusCode::ACCEPTED, Json(ArrayAnswer { ids })).into_response())
}

/// The events of an array, and whether each of them is stamped.
fn read_many(sent: &Sent, json: &str) -> Result<(Vec<Event>, bool), HttpError> {
    let items = body::items(json).map_err(|error| HttpError::bad_request(error.to_string()))?;
    if items.len() > MAX_EVENTS {
        let count = items.len();
        return Err(HttpError::bad_request(format!(
            "{count} events in one array; at most {MAX_EVENTS} are accepted"
        )));
    }
    let (mut events, mut all_stamped) = (Vec::with_capacity(items.len()), !items.is_empty());
    for (index, item) in items.into_iter().enumerate() {
        let (event, stamped) = sent.event(Some(index), item, &format!("[{index}] "))?;
        events.push(event);
        all_stamped &= stamped;
    }
    Ok((events, all_stamped))
}

impl Sent {
    fn read(headers: &HeaderMap) -> Result<Self, String> {
        let text = |name: &HeaderName| {
            let value = headers.get(name).map(|value| value.to_str());
            value.transpose().map_err(|_| format!("{name}: expected visible ASCII characters"))
        };
        let key = text(&IDEMPOTENCY_KEY)?.or(text(&WEBHOOK_ID)?);
        // avr-app sends the literal text `undefined` for what it does not have.
        let agent = text(&AGENT_ID)?.filter(|agent| !matches!(*agent, "" | "undefined" | "null"));
        // What is no valid one is ignored, as the specification wants it.
        let trace = text(&TRACE_HEADER).unwrap_or_default().filter(|trace| is_traceparent(trace));
        let headers = EventHeaders {
            agent: agent.map(Into::into),
            trace: trace.map(Into::into),
            via: text(&VIA_HEADER).unwrap_or_default().map(Into::into),
        };
        Ok(Self { key: key.map(ToOwned::to_owned), headers: headers.shared() })
    }

    /// `index` is the event's in an array.
    fn id(&self, index: Option<usize>) -> Result<EventId, String> {
        let name = match (&self.key, index) {
            (None, _) => return Ok(EventId::make()),
            (Some(key), None) => key.clone(),
            (Some(key), Some(index)) => format!("{key}.{index}"),
        };
        EventId::given(&name)
            .map_err(|error| format!("Idempotency-Key or webhook-id {name:?}: {error}"))
    }

    /// The event, and whether it came with a time to the millisecond. `place` goes before an error.
    fn event(
        &self,
        index: Option<usize>,
        json: &str,
        place: &str,
    ) -> Result<(Event, bool), HttpError> {
        let id = self.id(index).map_err(HttpError::bad_request)?;
        if json.len() > MAX_EVENT {
            let error = format!("{place}the event is over {MAX_EVENT} bytes");
            return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        let (mut event, stamped) =
            read(id, json).map_err(|error| HttpError::bad_request(format!("{place}{error}")))?;
        event.headers.clone_from(&self.headers);
        Ok((event, stamped))
    }
}

/// Reads one event from JSON that is known to be strict; and whether it has a time to the millisecond.
///
/// # Errors
/// The field, and what is wrong with it.
pub fn read(id: EventId, json: &str) -> Result<(Event, bool), String> {
    let raw = RawEvent::from_json(json)?;
    let (call, kind, payload) = (raw.call()?, raw.kind()?, raw.payload()?);
    Ok(match raw.timestamp()? {
        Some((timestamp, fraction)) => {
            (Event::new(id, call, kind, &timestamp, &payload), fraction >= MILLISECONDS)
        }
        None => (Event::new(id, call, kind, &timestamp_now(), &payload), false),
    })
}
