//! `POST /call`: the dialplan announces a call and asks where it goes. `GET /call/{uuid}`: it asks what became of it, to
//! lead a caller whom no agent served to people.
//!
//! Invariant: a readable announcement is answered within `ROUTING_TIMEOUT`, whatever the receiver and the queue do,
//! since the caller hears silence meanwhile; with 200, unless callhook stops.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::body;
use super::error::HttpError;
use super::front::Front;
use crate::calls::Standing;
use crate::event::{CallId, Event, EventType, Payload};
use crate::queue::Refused;
use crate::queue::slot::Slot;
use crate::routing::{self, NoDecision};

/// The longest body, in bytes. Asterisk cuts its own at about 4060.
const MAX_BODY: usize = 64 * 1024;

pub async fn announce(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, HttpError> {
    front.authorise(request.headers())?;
    let body = body::read(request.into_body(), MAX_BODY, &front.requests.bodies).await?;
    let (call, payload) = parse(&body)?;
    if front.calls.refuses(call, &payload, Instant::now()) {
        return Err(HttpError::unavailable("callhook is stopping and takes no new calls"));
    }
    let open = || front.initiate(call, &payload);
    let slot = front.calls.slot_of(call, &payload, Instant::now(), open)?;
    let decision = front.decision_of(&slot).await;
    if slot.no_decision() == Some(NoDecision::TimedOut) {
        warn!(uuid = %call, "no routing decision within ROUTING_TIMEOUT; the call goes to STS_URL");
    }
    let route = routing::route(decision.as_deref(), front.fallback.as_ref(), &payload);
    debug!(uuid = %call, overridden = route.overridden, "call routed");
    Ok(Json(route).into_response())
}

/// What is known of a call.
#[derive(Serialize)]
struct StandingAnswer {
    state: &'static str,
    /// As the other one, of an ended call alone.
    reason: Option<String>,
    duration_ms: Option<u64>,
}

pub async fn standing(
    State(front): State<Arc<Front>>,
    Path(uuid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    front.authorise(&headers)?;
    let call = uuid.parse().map_err(|_| unknown(&uuid))?;
    let standing = front.calls.settled_standing(call).await.ok_or_else(|| unknown(&uuid))?;
    let (state, ended) = match standing {
        Standing::Announced => ("announced", None),
        Standing::Live => ("live", None),
        Standing::Ended(call) => ("ended", Some(call)),
    };
    let duration_ms = ended.as_ref().map(|call| call.duration_ms);
    let reason = ended.map(|call| call.reason.to_string());
    Ok(Json(StandingAnswer { state, reason, duration_ms }).into_response())
}

pub fn unknown(uuid: &str) -> HttpError {
    HttpError::not_found(format!("no call {uuid:?} is known"))
}

/// # Errors
/// 400, with the field, or the place in the JSON.
pub fn parse(body: &[u8]) -> Result<(CallId, Payload), HttpError> {
    let raw = body::event(body)?;
    let read = || Ok::<_, String>((raw.call()?, raw.payload()?));
    read().map_err(HttpError::bad_request)
}

impl Front {
    /// Puts `call_initiated` into the call's lane; `false` if there is no room, so that nobody decides.
    ///
    /// # Errors
    /// While callhook stops: nobody would take the call.
    fn initiate(&self, call: CallId, payload: &Payload) -> Result<(Slot, bool), Refused> {
        match self.queue.ask(Event::now(call, EventType::CallInitiated, payload)) {
            Ok(slot) => Ok((slot, true)),
            Err(Refused::Draining) => Err(Refused::Draining),
            Err(refused) => {
                error!(uuid = %call, error = %refused, "call_initiated is lost; the call goes to STS_URL");
                Ok((Slot::refused(), false))
            }
        }
    }
}
