//! `GET /api/calls` and `GET /api/calls/{uuid}`: the calls that are remembered, newest first, and what
//! happened in one.
//!
//! Limits: a page has at most [`MOST_ITEMS`] calls, and at most [`MOST_SEARCHED`] are looked at for one;
//! `next` is where the next page begins.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::admin::Inspector;
use super::dead::Envelope;
use crate::attempt::{Attempt, Deliver};
use crate::event::{CallId, EventType, Item, Spent};
use crate::history::{AttemptRecord, CallPhase, CallRecord, EventRecord};
use crate::http::Fault;
use crate::time::{timestamp_of, unix_millis};

/// The most calls of a page.
const MOST_ITEMS: usize = 1000;

/// The calls of a page, unless `limit` says otherwise.
const ITEMS: usize = 100;

/// The most calls that are looked at for a page: all there can be.
const MOST_SEARCHED: usize = 20_000;

/// Calls that are copied at a time: the queue waits for no longer than that.
const AT_A_TIME: usize = 50;

/// What a list is restricted to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Part of the call's UUID, with dashes.
    uuid: Option<String>,
    /// Part of the caller's or the callee's number.
    number: Option<String>,
    /// A type that one of its events has.
    r#type: Option<String>,
    state: Option<CallState>,
    health: Option<Health>,
    limit: Option<usize>,
    cursor: Option<u64>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum CallState {
    Announced,
    Live,
    Ended,
    Abandoned,
}

/// How the delivery of a call's events goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    /// All are delivered.
    Ok,
    /// Some wait.
    Waiting,
    /// Some were given up.
    Dead,
}

/// A page of calls.
#[derive(Debug, Serialize)]
pub struct Page {
    items: Vec<Summary>,
    next: Option<u64>,
}

/// A call, in short.
#[derive(Debug, Serialize)]
pub struct Summary {
    uuid: String,
    /// Its place among the calls, in the order they were first seen.
    place: u64,
    state: CallState,
    /// Why it ended, if callhook bridged it.
    reason: Option<&'static str>,
    from: Option<Box<str>>,
    to: Option<Box<str>>,
    first_at: String,
    last_at: String,
    duration_ms: Option<u64>,
    health: Health,
    events: u32,
    waiting: u32,
    /// Those of them of which an attempt failed.
    retrying: u32,
    dead: u32,
    types: Vec<String>,
    bridged: bool,
    /// Where the receiver routed it to; `null` if it did not.
    routed_to: Option<Box<str>>,
}

/// A call and its events.
#[derive(Debug, Serialize)]
pub struct Timeline {
    #[serde(flatten)]
    summary: Summary,
    /// The receiver, without its user part.
    url: String,
    /// Attempts allowed for each event.
    attempts_allowed: u32,
    /// The oldest, which are not remembered any more.
    events_omitted: u32,
    timeline: Vec<TimelineItem>,
}

/// An event.
#[derive(Debug, Serialize)]
struct TimelineItem {
    id: String,
    r#type: String,
    /// `null` for a type that is not delivered.
    sequence: Option<u64>,
    timestamp: String,
    accepted_at: String,
    payload: Box<RawValue>,
    /// `waiting`, `delivered`, `dead`, `deleted` or `dropped`.
    state: &'static str,
    replays: u32,
    /// Those of the last attempt, as `[name, value]`; what is secret is masked.
    headers: Option<Vec<(String, String)>>,
    attempts: Vec<AttemptItem>,
    /// Attempts that are not remembered.
    attempts_omitted: u32,
}

/// An attempt.
#[derive(Debug, Serialize)]
struct AttemptItem {
    number: u32,
    at: String,
    duration_ms: u64,
    status: Option<u16>,
    code: Option<&'static str>,
    error: Option<String>,
    probe: bool,
}

/// What a call must be to be listed.
struct Filter {
    uuid: Option<String>,
    number: Option<String>,
    kind: Option<EventType>,
    state: Option<CallState>,
    health: Option<Health>,
}

impl Parameters {
    fn filter(self) -> Result<Filter, Fault> {
        let kind = self.r#type.map(|text| {
            let kind = text.parse();
            kind.map_err(|fault| Fault::bad_request(format!("type: {fault}, not {text:?}")))
        });
        Ok(Filter {
            uuid: self.uuid.map(|text| text.to_lowercase()),
            number: self.number.map(|text| text.to_lowercase()),
            kind: kind.transpose()?,
            state: self.state,
            health: self.health,
        })
    }
}

impl Filter {
    fn admits(&self, call: &CallRecord, now: u64) -> bool {
        self.uuid.as_ref().is_none_or(|part| call.id.to_string().contains(part))
            && self.state.is_none_or(|state| CallState::of(call, now) == state)
            && self.health.is_none_or(|health| Health::of(call) == health)
            && self.kind.as_ref().is_none_or(|kind| call.types().any(|name| name == kind.name()))
            && self.number.as_ref().is_none_or(|part| has_number(call, part))
    }
}

fn has_number(call: &CallRecord, part: &str) -> bool {
    let Some(parties) = call.parties() else { return false };
    let numbers = [&parties.from, &parties.to].into_iter().flatten();
    numbers.into_iter().any(|number| number.to_lowercase().contains(part))
}

impl CallState {
    fn of(call: &CallRecord, now: u64) -> Self {
        match call.phase(now) {
            CallPhase::Announced => Self::Announced,
            CallPhase::Live => Self::Live,
            CallPhase::Ended => Self::Ended,
            CallPhase::Abandoned => Self::Abandoned,
        }
    }
}

impl Health {
    fn of(call: &CallRecord) -> Self {
        match (call.counts.dead, call.counts.waiting) {
            (0, 0) => Self::Ok,
            (0, _) => Self::Waiting,
            (_, _) => Self::Dead,
        }
    }
}

impl Summary {
    /// A call, in short, as it stands at that time.
    pub fn of(call: &CallRecord, now: u64) -> Self {
        let parties = call.parties().cloned().unwrap_or_default();
        Self {
            uuid: call.id.to_string(),
            place: call.cursor,
            state: CallState::of(call, now),
            reason: call.end.map(|(reason, _)| reason),
            from: parties.from,
            to: parties.to,
            first_at: timestamp_of(call.first_at),
            last_at: timestamp_of(call.last_at),
            duration_ms: call.duration_ms(now),
            health: Health::of(call),
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

impl TimelineItem {
    fn of(kept: &EventRecord, deliver: Option<&dyn Deliver>) -> Self {
        let item = &kept.item;
        let Envelope { timestamp, payload } = Envelope::of(&item.event);
        let headers = kept.attempts.last().zip(deliver).map(|(last, deliver)| {
            let spent = Spent { attempts: last.number - 1, ..item.spent };
            let attempt = Attempt { item: Item { spent, ..item.clone() }, probe: last.probe };
            deliver.shown_headers(&attempt, UNIX_EPOCH + Duration::from_millis(last.at))
        });
        Self {
            id: item.event.id.to_string(),
            r#type: item.event.kind.name().to_owned(),
            sequence: (item.sequence > 0).then_some(item.sequence),
            timestamp,
            accepted_at: timestamp_of(kept.accepted_at),
            payload,
            state: kept.state.name(),
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
            probe: tried.probe,
        }
    }
}

/// `GET /api/calls?uuid=&number=&type=&state=&health=&limit=&cursor=`
pub async fn list(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Page>, Fault> {
    let Query(parameters) = query.map_err(|fault| Fault::bad_request(fault.body_text()))?;
    let limit = parameters.limit.unwrap_or(ITEMS);
    if !(1..=MOST_ITEMS).contains(&limit) {
        return Err(Fault::bad_request(format!("limit: expected 1 to {MOST_ITEMS}, not {limit}")));
    }
    let mut cursor = parameters.cursor.unwrap_or(u64::MAX);
    let filter = parameters.filter()?;
    let (mut items, now) = (Vec::new(), unix_millis());
    for _ in 0..MOST_SEARCHED / AT_A_TIME {
        let calls = inspector.parts.history.calls_before(cursor, AT_A_TIME);
        for call in &calls {
            if items.len() == limit {
                return Ok(Json(Page { items, next: Some(cursor) }));
            }
            cursor = call.cursor;
            if filter.admits(call, now) {
                items.push(Summary::of(call, now));
            }
        }
        if calls.len() < AT_A_TIME {
            return Ok(Json(Page { items, next: None }));
        }
        // Other requests, and attempts, come first.
        tokio::task::yield_now().await;
    }
    Ok(Json(Page { items, next: Some(cursor) }))
}

/// `GET /api/calls/{uuid}`
pub async fn timeline(
    State(inspector): State<Arc<Inspector>>,
    Path(uuid): Path<String>,
) -> Result<Json<Timeline>, Fault> {
    let id: CallId =
        uuid.parse().map_err(|fault| Fault::bad_request(format!("uuid: {fault}, not {uuid:?}")))?;
    let (parts, settings) = (&inspector.parts, &inspector.settings);
    let Some(call) = parts.history.call(id) else {
        let most = parts.history.size().limit;
        let error = format!("{id} is not among the last calls; INSPECTOR_CALLS={most} are kept");
        return Err(Fault::new(StatusCode::NOT_FOUND, error));
    };
    Ok(Json(Timeline {
        summary: Summary::of(&call, unix_millis()),
        url: settings.receiver.clone(),
        attempts_allowed: settings.retry.attempts(),
        events_omitted: call.events_omitted,
        timeline: call
            .events
            .iter()
            .map(|kept| TimelineItem::of(kept, parts.deliver.as_deref()))
            .collect(),
    }))
}
