//! `GET /api/calls` and `GET /api/calls/{uuid}`: the remembered calls, newest first, and what happened
//! in one. `POST /api/calls/{uuid}/hangup` ends a live one, as its agent can.
//!
//! Limits: a page has at most [`MOST_ITEMS`](super::admin::MOST_ITEMS) calls, and at most
//! [`MOST_SEARCHED`] are looked at for it; `next` is where the next page begins.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::admin::{Inspector, page_size, read_parameter};
use super::dead::timestamp_and_payload;
use crate::attempt::Attempt;
use crate::event::{CallId, EventType, Item, Spent};
use crate::history::{
    AttemptRecord, CallPhase, CallRecord, EventRecord, EventState, RequestRecord,
};
use crate::http::HttpError;
use crate::http::agent::{Asker, Asking};
use crate::queue::{QueueParts, QueueSettings};
use crate::receiver::{ReceiverId, ReceiverName};
use crate::time::{millis, timestamp_of, unix_millis};

/// The most calls that are looked at for a page: all there can be.
const MOST_SEARCHED: usize = 20_000;

/// Calls that are copied at a time: the queue waits for the history's lock no longer than that.
const AT_A_TIME: usize = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallQuery {
    /// Part of the call's UUID, with dashes.
    uuid: Option<String>,
    /// Part of the caller's or the callee's number.
    number: Option<String>,
    /// The type of one of its events.
    r#type: Option<String>,
    state: Option<CallPhase>,
    health: Option<DeliveryHealth>,
    limit: Option<usize>,
    cursor: Option<u64>,
}

/// How the delivery of a call's events goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum DeliveryHealth {
    Ok,
    /// Some wait.
    Waiting,
    /// Some were given up.
    Dead,
}

#[derive(Debug, Serialize)]
pub struct CallPage {
    items: Vec<CallSummary>,
    next: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct CallSummary {
    uuid: String,
    /// Its place among the calls, in the order they were first seen.
    place: u64,
    state: CallPhase,
    /// Why it ended, if callhook bridged it.
    reason: Option<&'static str>,
    from: Option<Box<str>>,
    to: Option<Box<str>>,
    first_at: String,
    last_at: String,
    duration_ms: Option<u64>,
    health: DeliveryHealth,
    events: u32,
    waiting: u32,
    /// Those of `waiting` with a failed attempt.
    retrying: u32,
    dead: u32,
    types: Vec<String>,
    bridged: bool,
    /// `null` if the receiver did not route it.
    routed_to: Option<Box<str>>,
}

#[derive(Debug, Serialize)]
pub struct Timeline {
    #[serde(flatten)]
    summary: CallSummary,
    /// Where its events go to, the main one first.
    receivers: Vec<TimelineReceiver>,
    /// The oldest events, no longer remembered.
    events_omitted: u32,
    /// From its first frame to its agent's first audio.
    first_audio_ms: Option<u64>,
    /// How often the user said something and the agent answered.
    responses: u32,
    /// From a transcript of the user's to the agent's next audio.
    last_response_ms: Option<u64>,
    worst_response_ms: Option<u64>,
    /// Oldest first.
    requests: Vec<RequestItem>,
    /// The oldest requests, no longer remembered.
    requests_omitted: u32,
    timeline: Vec<TimelineItem>,
}

#[derive(Debug, Serialize)]
struct TimelineReceiver {
    name: String,
    /// Without its user part.
    url: String,
    /// For each event.
    attempts_allowed: u32,
}

/// What was asked about the call.
#[derive(Debug, Serialize)]
struct RequestItem {
    at: String,
    by: &'static str,
    asked: &'static str,
    /// Where a transfer should lead: `context,exten,priority`.
    next: Option<Box<str>>,
    /// `taken`, or why it was not.
    answer: &'static str,
}

/// An event on its way to one receiver.
#[derive(Debug, Serialize)]
struct TimelineItem {
    /// `null` for a type that is not delivered.
    receiver: Option<String>,
    id: String,
    r#type: String,
    /// `null` for a type that is not delivered.
    sequence: Option<u64>,
    timestamp: String,
    accepted_at: String,
    payload: Box<RawValue>,
    state: EventState,
    replays: u32,
    /// The last attempt's, as `[name, value]`, with secrets masked.
    headers: Option<Vec<(String, String)>>,
    attempts: Vec<AttemptItem>,
    attempts_omitted: u32,
}

#[derive(Debug, Serialize)]
struct AttemptItem {
    number: u32,
    at: String,
    duration_ms: u64,
    status: Option<u16>,
    code: Option<&'static str>,
    error: Option<String>,
    /// What the receiver said of the failure.
    answer: Option<Box<str>>,
    probe: bool,
}

struct CallFilter {
    uuid: Option<String>,
    number: Option<String>,
    kind: Option<EventType>,
    state: Option<CallPhase>,
    health: Option<DeliveryHealth>,
}

impl CallQuery {
    fn filter(self) -> Result<CallFilter, HttpError> {
        let kind = self.r#type.map(|text| read_parameter("type", &text, str::parse));
        Ok(CallFilter {
            uuid: self.uuid.map(|text| text.to_lowercase()),
            number: self.number.map(|text| text.to_lowercase()),
            kind: kind.transpose()?,
            state: self.state,
            health: self.health,
        })
    }
}

impl CallFilter {
    fn admits(&self, call: &CallRecord, now: u64) -> bool {
        self.uuid.as_ref().is_none_or(|part| call.id.to_string().contains(part))
            && self.state.is_none_or(|state| call.phase(now) == state)
            && self.health.is_none_or(|health| DeliveryHealth::of(call) == health)
            && self.kind.as_ref().is_none_or(|kind| call.types().any(|name| name == kind.name()))
            && self.number.as_ref().is_none_or(|part| has_number(call, part))
    }
}

fn has_number(call: &CallRecord, part: &str) -> bool {
    let Some(parties) = call.parties() else { return false };
    let numbers = [&parties.from, &parties.to].into_iter().flatten();
    numbers.into_iter().any(|number| number.to_lowercase().contains(part))
}

impl DeliveryHealth {
    fn of(call: &CallRecord) -> Self {
        match (call.counts.dead, call.counts.waiting) {
            (0, 0) => Self::Ok,
            (0, _) => Self::Waiting,
            (_, _) => Self::Dead,
        }
    }
}

impl CallSummary {
    pub fn of(call: &CallRecord, now: u64) -> Self {
        let parties = call.parties().cloned().unwrap_or_default();
        Self {
            uuid: call.id.to_string(),
            place: call.cursor,
            state: call.phase(now),
            reason: call.end.map(|(reason, _)| reason),
            from: parties.from,
            to: parties.to,
            first_at: timestamp_of(call.first_at),
            last_at: timestamp_of(call.last_at),
            duration_ms: call.duration_ms(now),
            health: DeliveryHealth::of(call),
            events: call.counts.events,
            waiting: call.counts.waiting,
            retrying: call.counts.retrying,
            dead: call.counts.dead,
            types: call.types().map(str::to_owned).collect(),
            bridged: call.bridged,
            routed_to: call.routed_to.clone(),
        }
    }
}

impl Timeline {
    fn of(call: &CallRecord, inspector: &Inspector) -> Self {
        let (parts, settings, waits) = (&inspector.parts, &inspector.settings, &call.waits);
        let events = call.events.iter();
        Self {
            summary: CallSummary::of(call, unix_millis()),
            receivers: TimelineReceiver::all(parts, settings),
            events_omitted: call.events_omitted,
            first_audio_ms: waits.first_audio.map(millis),
            responses: waits.responses,
            last_response_ms: waits.last_response.map(millis),
            worst_response_ms: waits.worst_response.map(millis),
            requests: call.requests.kept.iter().map(RequestItem::of).collect(),
            requests_omitted: call.requests.omitted,
            timeline: events.map(|kept| TimelineItem::of(kept, parts, settings)).collect(),
        }
    }
}

impl TimelineReceiver {
    fn all(parts: &QueueParts, settings: &QueueSettings) -> Vec<Self> {
        let of = |(receiver, name): (ReceiverId, &ReceiverName)| {
            let attempts_allowed = settings.of(receiver).retry.attempts();
            Self { name: name.to_string(), url: parts.url_of(receiver), attempts_allowed }
        };
        settings.names().iter().map(of).collect()
    }
}

impl RequestItem {
    fn of(request: &RequestRecord) -> Self {
        let RequestRecord { at, by, asked, next, answer } = request;
        Self { at: timestamp_of(*at), by, asked, next: next.clone(), answer }
    }
}

impl TimelineItem {
    fn of(kept: &EventRecord, parts: &QueueParts, settings: &QueueSettings) -> Self {
        let item = &kept.item;
        let deliver = parts.deliver[item.receiver.index()].as_deref();
        let is_sent = kept.state != EventState::Dropped;
        let (timestamp, payload) = timestamp_and_payload(&item.event);
        let headers = kept.attempts.last().zip(deliver).map(|(last, deliver)| {
            let spent = Spent { attempts: last.number - 1, ..item.spent };
            let (item, timeout) = (Item { spent, ..item.clone() }, Duration::ZERO);
            let attempt = Attempt { item, probe: last.probe, timeout };
            deliver.shown_headers(&attempt, UNIX_EPOCH + Duration::from_millis(last.at))
        });
        Self {
            receiver: is_sent.then(|| settings.of(item.receiver).name.to_string()),
            id: item.event.id.to_string(),
            r#type: item.event.kind.name().to_owned(),
            sequence: (item.sequence > 0).then_some(item.sequence),
            timestamp,
            accepted_at: timestamp_of(kept.accepted_at),
            payload,
            state: kept.state,
            replays: kept.replays,
            headers,
            attempts: kept.attempts.iter().map(AttemptItem::of).collect(),
            attempts_omitted: kept.attempts_omitted,
        }
    }
}

impl AttemptItem {
    fn of(tried: &AttemptRecord) -> Self {
        let (code, error) = tried.failure.clone().unzip();
        Self {
            number: tried.number,
            at: timestamp_of(tried.at),
            duration_ms: tried.duration_ms,
            status: tried.status,
            code,
            error: error.map(Into::into),
            answer: tried.answer.clone(),
            probe: tried.probe,
        }
    }
}

/// `GET /api/calls?uuid=&number=&type=&state=&health=&limit=&cursor=`
pub async fn list(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<CallQuery>, QueryRejection>,
) -> Result<Json<CallPage>, HttpError> {
    let Query(query) = query?;
    let limit = page_size(query.limit)?;
    let mut cursor = query.cursor.unwrap_or(u64::MAX);
    let filter = query.filter()?;
    let (mut items, now) = (Vec::new(), unix_millis());
    for _ in 0..MOST_SEARCHED / AT_A_TIME {
        let calls = inspector.parts.history.calls_before(cursor, AT_A_TIME);
        for call in &calls {
            if items.len() == limit {
                return Ok(Json(CallPage { items, next: Some(cursor) }));
            }
            cursor = call.cursor;
            if filter.admits(call, now) {
                items.push(CallSummary::of(call, now));
            }
        }
        if calls.len() < AT_A_TIME {
            return Ok(Json(CallPage { items, next: None }));
        }
        // A search is long; other requests and attempts go first.
        tokio::task::yield_now().await;
    }
    Ok(Json(CallPage { items, next: Some(cursor) }))
}

/// What is said of a call that was asked to end.
#[derive(Debug, Serialize)]
pub struct HangUpAnswer {
    message: String,
}

/// `POST /api/calls/{uuid}/hangup`
pub async fn hang_up(
    State(inspector): State<Arc<Inspector>>,
    Path(uuid): Path<String>,
) -> Result<Json<HangUpAnswer>, HttpError> {
    let call: CallId = read_parameter("uuid", &uuid, str::parse)?;
    let (calls, history) = (&inspector.calls, &inspector.parts.history);
    Asking { calls, history, by: Asker::Inspector }.hang_up(call)?;
    let message = "the call ends as soon as its agent has said goodbye, within 20 s".to_owned();
    Ok(Json(HangUpAnswer { message }))
}

/// `GET /api/calls/{uuid}`
pub async fn timeline(
    State(inspector): State<Arc<Inspector>>,
    Path(uuid): Path<String>,
) -> Result<Json<Timeline>, HttpError> {
    let id: CallId = read_parameter("uuid", &uuid, str::parse)?;
    let history = &inspector.parts.history;
    let Some(call) = history.call(id) else {
        let most = history.size().limit;
        return Err(HttpError::not_found(format!(
            "{id} is not among the last calls; INSPECTOR_CALLS={most} are kept"
        )));
    };
    Ok(Json(Timeline::of(&call, &inspector)))
}
