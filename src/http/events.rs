//! `POST /events`: a real AVR Core, or any other program, hands over its events.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::{self, RawEvent};
use super::call::{read_payload, read_uuid};
use super::fault::Fault;
use super::front::Front;
use crate::event::{Event, EventId, EventType, MAX_TIMESTAMP};
use crate::queue::Accepted;
use crate::time::timestamp_now;

/// The longest body, in bytes: a thousand events of 8 KiB.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// The longest single event, in bytes: what AVR's dashboard takes.
const MAX_EVENT: usize = 100 * 1024;

/// The most events in one array.
const MAX_EVENTS: usize = 1000;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const AGENT_ID: HeaderName = HeaderName::from_static("x-avr-agent-id");

/// What a request's headers say about its events.
struct Sender {
    key: Option<String>,
    agent: Option<Box<str>>,
}

/// The answer for a single event.
#[derive(Serialize)]
struct One {
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sts_url: Option<String>,
}

/// The answer for an array.
#[derive(Serialize)]
struct Many {
    ids: Vec<Option<String>>,
}

/// Takes one event or an array of them.
pub async fn take(State(front): State<Arc<Front>>, request: Request) -> Result<Response, Fault> {
    front.authorise(request.headers())?;
    let sender = Sender::read(request.headers()).map_err(Fault::bad_request)?;
    let body = body::read(request.into_body(), MAX_BODY, &front.bodies).await?;
    let json = body::strict_json(&body)?;
    if json.trim_start().starts_with('[') {
        take_many(&front, &sender, json).await
    } else {
        take_one(&front, &sender, json).await
    }
}

async fn take_one(front: &Front, sender: &Sender, json: &str) -> Result<Response, Fault> {
    let id = sender.id(None).map_err(Fault::bad_request)?;
    let event = sender.event(id, json.trim(), "")?;
    let routed = event.kind == EventType::CallInitiated;
    let accepted = front.queue.accept(vec![event])?.promised().await?.into_iter().next();
    let accepted = accepted.expect("one event in, one answer out");
    let id = accepted.id.map(|id| id.to_string());
    match accepted.slot {
        Some(slot) if routed => {
            let decision = front.decision_of(&slot).await;
            let sts_url = decision.map(|decision| decision.given.clone().into_string());
            Ok(Json(One { id, sts_url }).into_response())
        }
        Some(_) | None => {
            let status = if routed && id.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok((status, Json(One { id, sts_url: None })).into_response())
        }
    }
}

async fn take_many(front: &Front, sender: &Sender, json: &str) -> Result<Response, Fault> {
    let items: Vec<&RawValue> =
        serde_json::from_str(json).map_err(|error| Fault::bad_request(error.to_string()))?;
    if items.len() > MAX_EVENTS {
        let count = items.len();
        return Err(Fault::bad_request(format!(
            "{count} events in one array; at most {MAX_EVENTS} are taken"
        )));
    }
    let event = |(index, item): (usize, &&RawValue)| {
        let id = sender.id(Some(index)).map_err(Fault::bad_request)?;
        sender.event(id, item.get(), &format!("[{index}] "))
    };
    let events: Vec<Event> = items.iter().enumerate().map(event).collect::<Result<_, Fault>>()?;
    let accepted = front.queue.accept(events)?.promised().await?;
    let shown = |accepted: Accepted| accepted.id.map(|id| id.to_string());
    let ids = accepted.into_iter().map(shown).collect();
    Ok((StatusCode::ACCEPTED, Json(Many { ids })).into_response())
}

impl Sender {
    fn read(headers: &HeaderMap) -> Result<Self, String> {
        let text = |name: &HeaderName| {
            let value = headers.get(name).map(|value| value.to_str());
            value.transpose().map_err(|_| format!("{name}: expected visible ASCII characters"))
        };
        let key = text(&IDEMPOTENCY_KEY)?.or(text(&WEBHOOK_ID)?);
        // avr-app passes the literal text `undefined` for what it lacks.
        let agent = text(&AGENT_ID)?.filter(|agent| !matches!(*agent, "" | "undefined" | "null"));
        Ok(Self { key: key.map(ToOwned::to_owned), agent: agent.map(Into::into) })
    }

    /// The id of the event, which is the `index`th of an array or stands alone.
    fn id(&self, index: Option<usize>) -> Result<EventId, String> {
        let name = match (&self.key, index) {
            (None, _) => return Ok(EventId::make()),
            (Some(key), None) => key.clone(),
            (Some(key), Some(index)) => format!("{key}.{index}"),
        };
        EventId::given(&name)
            .map_err(|fault| format!("Idempotency-Key or webhook-id {name:?}: {fault}"))
    }

    fn event(&self, id: EventId, json: &str, place: &str) -> Result<Event, Fault> {
        if json.len() > MAX_EVENT {
            let error = format!("{place}the event is over {MAX_EVENT} bytes");
            return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        let mut event =
            read(id, json).map_err(|fault| Fault::bad_request(format!("{place}{fault}")))?;
        event.agent.clone_from(&self.agent);
        Ok(event)
    }
}

/// Reads the JSON of one event, which was checked to be strict.
///
/// # Errors
/// What is wrong with which field.
pub fn read(id: EventId, json: &str) -> Result<Event, String> {
    let raw = RawEvent::from_json(json)?;
    let call = read_uuid(&raw)?;
    let kind = raw.kind()?;
    let kind: EventType = kind.parse().map_err(|fault| format!("type: {fault}, not {kind:?}"))?;
    let payload = read_payload(&raw)?;
    let timestamp = match raw.timestamp()? {
        Some(given) if (1..=MAX_TIMESTAMP).contains(&given.len()) => given,
        Some(given) => {
            let length = given.len();
            return Err(format!(
                "timestamp: expected ISO 8601 such as 2026-01-31T12:00:00.000Z, found a text of {length} bytes"
            ));
        }
        None => timestamp_now().into(),
    };
    Ok(Event::new(id, call, kind, &timestamp, &payload))
}
