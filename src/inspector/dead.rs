//! The API of the dead letters: list, replay, delete.
//!
//! Oldest first everywhere. A page has at most [`MOST_ITEMS`] items; `next` is the cursor of the
//! next one.

use std::num::NonZero;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::admin::Inspector;
use crate::event::Event;
use crate::http::Fault;
use crate::journal::{DeadFilter, DeadLetter};
use crate::time::{timestamp_of, unix_millis_of};

/// The most items of a page.
const MOST_ITEMS: usize = 1000;

/// The items of a page, unless `limit` says otherwise.
const ITEMS: usize = 100;

/// What a list or a replay of all is restricted to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    call: Option<String>,
    r#type: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    cursor: Option<u64>,
}

/// A page of dead letters.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadPage {
    /// The dead letters.
    pub items: Vec<DeadItem>,
    /// The cursor of the next page.
    pub next: Option<u64>,
}

/// A dead letter.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadItem {
    /// The event's id.
    pub id: String,
    /// The call.
    pub uuid: String,
    /// The event type.
    pub r#type: String,
    /// When it happened.
    pub timestamp: String,
    /// What happened.
    pub payload: Box<RawValue>,
    /// Attempts made.
    pub attempts: u32,
    /// The status of the last one, if it was answered.
    pub status: Option<u16>,
    /// The code of the last failure.
    pub code: String,
    /// The last failure.
    pub error: String,
    /// When the first attempt failed.
    pub first_at: String,
    /// When the last attempt failed.
    pub last_at: String,
}

/// What a replay did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Replayed {
    /// Dead letters that are under way again.
    pub replayed: usize,
    /// Dead letters that found no room in the queue.
    pub left: usize,
}

/// What a deletion did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// Dead letters that are gone.
    pub deleted: usize,
}

impl Parameters {
    fn filter(&self) -> Result<DeadFilter, Fault> {
        fn read<T>(
            name: &str,
            text: Option<&String>,
            read: impl Fn(&str) -> Result<T, String>,
        ) -> Result<Option<T>, Fault> {
            let read = text
                .map(|text| read(text).map_err(|fault| format!("{name}: {fault}, not {text:?}")));
            read.transpose().map_err(Fault::bad_request)
        }
        Ok(DeadFilter {
            call: read("call", self.call.as_ref(), |text| {
                text.parse().map_err(|fault| format!("{fault}"))
            })?,
            kind: read("type", self.r#type.as_ref(), |text| {
                text.parse().map_err(|fault| format!("{fault}"))
            })?,
            since: read("since", self.since.as_ref(), unix_millis_of)?,
            id: None,
        })
    }
}

/// What is read from an event's body.
#[derive(Deserialize)]
pub struct Envelope {
    /// When it happened.
    pub timestamp: String,
    /// What happened.
    pub payload: Box<RawValue>,
}

impl Envelope {
    /// That of this event.
    pub fn of(event: &Event) -> Self {
        serde_json::from_slice(&event.body).expect("an event's body was made as JSON")
    }
}

impl From<DeadLetter> for DeadItem {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { item, status, code, error, last_at } = letter;
        let envelope = Envelope::of(&item.event);
        Self {
            id: item.event.id.to_string(),
            uuid: item.event.call.to_string(),
            r#type: item.event.kind.name().to_owned(),
            timestamp: envelope.timestamp,
            payload: envelope.payload,
            attempts: item.spent.attempts,
            status,
            code,
            error,
            first_at: timestamp_of(item.spent.first_failed_at.map_or(0, NonZero::get)),
            last_at: timestamp_of(last_at),
        }
    }
}

/// `GET /api/dead?call=&type=&since=&limit=&cursor=`
pub async fn list(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<DeadPage>, Fault> {
    let parameters = readable(query)?;
    let limit = parameters.limit.unwrap_or(ITEMS);
    if !(1..=MOST_ITEMS).contains(&limit) {
        return Err(Fault::bad_request(format!("limit: expected 1 to {MOST_ITEMS}, not {limit}")));
    }
    let from = parameters.cursor.unwrap_or_default();
    let (letters, next) = page(&inspector, parameters.filter()?, from, limit).await?;
    Ok(Json(DeadPage { items: letters.into_iter().map(DeadItem::from).collect(), next }))
}

/// `POST /api/dead/{id}/replay`
pub async fn replay(
    State(inspector): State<Arc<Inspector>>,
    Path(id): Path<String>,
) -> Result<Json<Replayed>, Fault> {
    let _moving = inspector.moving.lock().await;
    let letters = find(&inspector, id).await?;
    let found = letters.len();
    let replayed = inspector.queue.replay(letters).await?;
    Ok(Json(Replayed { replayed, left: found - replayed }))
}

/// `POST /api/dead/replay?call=&type=&since=`: all, or all that the filter admits, as far as there
/// is room.
pub async fn replay_all(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Replayed>, Fault> {
    let _moving = inspector.moving.lock().await;
    let filter = readable(query)?.filter()?;
    // What fails again while this goes on is a new dead letter, and not for this replay.
    let end = inspector.queue.next_place();
    let (mut done, mut from) = (Replayed { replayed: 0, left: 0 }, 0);
    loop {
        let (mut letters, next) = page(&inspector, filter.clone(), from, MOST_ITEMS).await?;
        letters.retain(|letter| letter.item.place < end);
        let found = letters.len();
        if found > 0 && done.left == 0 {
            let replayed = match inspector.queue.replay(letters).await {
                Err(crate::queue::Refused::Full { .. }) => 0,
                replayed => replayed?,
            };
            done.replayed += replayed;
            done.left += found - replayed;
        } else {
            done.left += found;
        }
        match next {
            Some(next) if next < end => from = next,
            Some(_) | None => return Ok(Json(done)),
        }
    }
}

/// `DELETE /api/dead/{id}`
pub async fn delete(
    State(inspector): State<Arc<Inspector>>,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, Fault> {
    let _moving = inspector.moving.lock().await;
    let letters = find(&inspector, id).await?;
    let deleted = letters.len();
    for letter in &letters {
        inspector.parts.history.deleted(letter.item.event.call, letter.item.place);
    }
    inspector.parts.journal.delete(letters.iter().map(|letter| letter.item.place));
    Ok(Json(Deleted { deleted }))
}

fn readable(query: Result<Query<Parameters>, QueryRejection>) -> Result<Parameters, Fault> {
    match query {
        Ok(Query(parameters)) => Ok(parameters),
        Err(rejection) => Err(Fault::bad_request(rejection.body_text())),
    }
}

/// The dead letters with this id; there is more than one if the id was given again much later.
async fn find(inspector: &Arc<Inspector>, id: String) -> Result<Vec<DeadLetter>, Fault> {
    let filter = DeadFilter { id: Some(id.clone()), ..DeadFilter::default() };
    let (letters, _) = page(inspector, filter, 0, MOST_ITEMS).await?;
    if letters.is_empty() {
        let error = format!("there is no dead letter with the id {id:?}; see GET /api/dead");
        return Err(Fault::new(StatusCode::NOT_FOUND, error));
    }
    Ok(letters)
}

async fn page(
    inspector: &Arc<Inspector>,
    filter: DeadFilter,
    from: u64,
    limit: usize,
) -> Result<(Vec<DeadLetter>, Option<u64>), Fault> {
    let journal = Arc::clone(&inspector.parts.journal);
    let read = move || journal.dead_letters(&filter, from, limit);
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.expect("reading the journal does not panic, and nobody aborts it")?)
}
