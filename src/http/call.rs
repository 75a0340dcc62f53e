//! `POST /call`: the dialplan announces a call and asks where it goes.
//!
//! Invariant: an announcement that can be read is answered 200 within `ROUTING_TIMEOUT`, whatever
//! the receiver and the queue do, since the caller hears silence meanwhile.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::body::{self, RawEvent};
use super::fault::Fault;
use super::front::Front;
use crate::event::{CallId, Event, EventType, Payload};
use crate::queue::Refused;
use crate::queue::slot::Slot;
use crate::routing::{self, NoDecision};

/// The longest body, in bytes. Asterisk cuts its own at about 4060.
const MAX_BODY: usize = 64 * 1024;

/// Answers with the call's route.
pub async fn announce(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, Fault> {
    front.authorise(request.headers())?;
    let body = body::read(request.into_body(), MAX_BODY, &front.bodies).await?;
    let (call, payload) = parse(&body)?;
    let slot =
        front.calls.slot_of(call, &payload, Instant::now(), || front.initiate(call, &payload));
    let decision = match slot {
        Ok(slot) => {
            let decision = front.decision_of(&slot).await;
            if slot.no_decision() == Some(NoDecision::TimedOut) {
                warn!(uuid = %call, "no routing decision within ROUTING_TIMEOUT; the call goes to STS_URL");
            }
            decision
        }
        Err(refused) => {
            error!(uuid = %call, error = %refused, "call_initiated is lost; the call goes to STS_URL");
            front.no_decision();
            None
        }
    };
    let route = routing::route(decision.as_deref(), front.fallback.as_ref(), &payload);
    debug!(uuid = %call, overridden = route.overridden, "call routed");
    Ok(Json(route).into_response())
}

/// Reads an announcement's body.
///
/// # Errors
/// 400, naming the field, and for JSON the place.
pub fn parse(body: &[u8]) -> Result<(CallId, Payload), Fault> {
    let read = |json| {
        let raw = RawEvent::from_json(json)?;
        Ok((read_uuid(&raw)?, read_payload(&raw)?))
    };
    read(body::strict_json(body)?).map_err(Fault::bad_request)
}

/// The call that an event belongs to.
pub(super) fn read_uuid(raw: &RawEvent<'_>) -> Result<CallId, String> {
    let text = raw.uuid()?;
    text.parse().map_err(|fault| format!("uuid: {fault}, not {text:?}"))
}

/// The payload, `{}` where there is none.
pub(super) fn read_payload(raw: &RawEvent<'_>) -> Result<Payload, String> {
    let payload = raw.payload().map(Payload::from_json).transpose();
    Ok(payload.map_err(|fault| format!("payload: {fault}"))?.unwrap_or_else(Payload::empty))
}

impl Front {
    /// Puts `call_initiated` into the call's lane.
    fn initiate(&self, call: CallId, payload: &Payload) -> Result<Slot, Refused> {
        let event = Event::now(call, EventType::CallInitiated, payload);
        self.queue.ask(event)
    }
}
