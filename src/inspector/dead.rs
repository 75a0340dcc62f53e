//! The API of the dead letters: list, replay, delete; oldest first everywhere.
//!
//! A page has at most [`MOST_ITEMS`] items; `next` is the cursor of the next page.

use std::num::NonZero;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::admin::{Inspector, MOST_ITEMS, page_size, read_parameter};
use crate::event::Event;
use crate::http::HttpError;
use crate::journal::{DeadFilter, DeadLetter};
use crate::queue::Refused;
use crate::time::{timestamp_of, unix_millis_of};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    call: Option<String>,
    r#type: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    cursor: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct DeadPage {
    pub items: Vec<DeadItem>,
    /// The cursor of the next page.
    pub next: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct DeadItem {
    /// The event's.
    pub id: String,
    /// The call's.
    pub uuid: String,
    pub r#type: String,
    pub timestamp: String,
    pub payload: Box<RawValue>,
    pub attempts: u32,
    /// The last attempt's, if it was answered.
    pub status: Option<u16>,
    /// Of the last failure.
    pub code: String,
    /// Of the last failure.
    pub error: String,
    /// What the receiver said of it.
    pub answer: Option<Box<str>>,
    /// When the first attempt failed.
    pub first_at: String,
    /// When the last attempt failed.
    pub last_at: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Replayed {
    pub replayed: usize,
    /// Dead letters for which the queue had no room.
    pub left: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Deleted {
    pub deleted: usize,
}

impl DeadQuery {
    fn filter(&self) -> Result<DeadFilter, HttpError> {
        let Self { call, r#type, since, .. } = self;
        let call = call.as_ref().map(|text| read_parameter("call", text, str::parse));
        let kind = r#type.as_ref().map(|text| read_parameter("type", text, str::parse));
        let since = since.as_ref().map(|text| read_parameter("since", text, unix_millis_of));
        Ok(DeadFilter {
            call: call.transpose()?,
            kind: kind.transpose()?,
            since: since.transpose()?,
            id: None,
        })
    }
}

/// Read from the event's body, which alone has them.
pub fn timestamp_and_payload(event: &Event) -> (String, Box<RawValue>) {
    #[derive(Deserialize)]
    struct TimedPayload {
        timestamp: String,
        payload: Box<RawValue>,
    }
    let TimedPayload { timestamp, payload } =
        serde_json::from_slice(&event.body).expect("an event's body was made as JSON");
    (timestamp, payload)
}

impl From<DeadLetter> for DeadItem {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { item, status, code, error, answer, last_at } = letter;
        let (timestamp, payload) = timestamp_and_payload(&item.event);
        Self {
            id: item.event.id.to_string(),
            uuid: item.event.call.to_string(),
            r#type: item.event.kind.name().to_owned(),
            timestamp,
            payload,
            attempts: item.spent.attempts,
            status,
            code,
            error,
            answer,
            first_at: timestamp_of(item.spent.first_failed_at.map_or(0, NonZero::get)),
            last_at: timestamp_of(last_at),
        }
    }
}

/// `GET /api/dead?call=&type=&since=&limit=&cursor=`
pub async fn list(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<DeadQuery>, QueryRejection>,
) -> Result<Json<DeadPage>, HttpError> {
    let Query(query) = query?;
    let limit = page_size(query.limit)?;
    let from = query.cursor.unwrap_or_default();
    let (letters, next) = page(&inspector, query.filter()?, from, limit).await?;
    Ok(Json(DeadPage { items: letters.into_iter().map(DeadItem::from).collect(), next }))
}

/// `POST /api/dead/{id}/replay`
pub async fn replay(
    State(inspector): State<Arc<Inspector>>,
    Path(id): Path<String>,
) -> Result<Json<Replayed>, HttpError> {
    let _moving = inspector.moving.lock().await;
    let letters = find(&inspector, id).await?;
    let found = letters.len();
    let replayed = inspector.queue.replay(letters).await?;
    Ok(Json(Replayed { replayed, left: found - replayed }))
}

/// `POST /api/dead/replay?call=&type=&since=`: all that the filter admits, as far as there is room.
pub async fn replay_all(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<DeadQuery>, QueryRejection>,
) -> Result<Json<Replayed>, HttpError> {
    let _moving = inspector.moving.lock().await;
    let filter = query?.filter()?;
    // What fails again meanwhile is a new dead letter, which this replay leaves alone.
    let end = inspector.queue.next_place();
    let (mut done, mut from) = (Replayed { replayed: 0, left: 0 }, 0);
    loop {
        let (mut letters, next) = page(&inspector, filter.clone(), from, MOST_ITEMS).await?;
        letters.retain(|letter| letter.item.place < end);
        let found = letters.len();
        if found > 0 && done.left == 0 {
            let replayed = match inspector.queue.replay(letters).await {
                Err(Refused::Full { .. }) => 0,
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
) -> Result<Json<Deleted>, HttpError> {
    let _moving = inspector.moving.lock().await;
    let letters = find(&inspector, id).await?;
    let deleted = letters.len();
    for letter in &letters {
        inspector.parts.history.deleted(letter.item.event.call, letter.item.place);
    }
    inspector.parts.journal.delete(letters.iter().map(|letter| letter.item.place));
    Ok(Json(Deleted { deleted }))
}

/// The dead letters with this id: several, if a sender used it again long after.
async fn find(inspector: &Arc<Inspector>, id: String) -> Result<Vec<DeadLetter>, HttpError> {
    let filter = DeadFilter { id: Some(id.clone()), ..DeadFilter::default() };
    let (letters, _) = page(inspector, filter, 0, MOST_ITEMS).await?;
    if letters.is_empty() {
        return Err(HttpError::not_found(format!(
            "no dead letter has the id {id:?}; see GET /api/dead"
        )));
    }
    Ok(letters)
}

async fn page(
    inspector: &Arc<Inspector>,
    filter: DeadFilter,
    from: u64,
    limit: usize,
) -> Result<(Vec<DeadLetter>, Option<u64>), HttpError> {
    let journal = Arc::clone(&inspector.parts.journal);
    let read = move || journal.dead_letters(&filter, from, limit);
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.expect("reading the journal does not panic, and nobody aborts it")?)
}
