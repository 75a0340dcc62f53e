//! The API of the dead letters: list, replay, delete; oldest first everywhere.
//!
//! A page has at most [`MOST_ITEMS`] items; `next` is the cursor of the next page.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::admin::{Inspector, MOST_ITEMS, page_size, read_parameter};
use crate::event::Event;
use crate::http::HttpError;
use crate::journal::{DeadFilter, DeadLetter};
use crate::queue::Refused;
use crate::receiver::{ReceiverId, Receivers};
use crate::time::{timestamp_of, unix_millis_of};

/// What becomes of a letter that is replayed.
const AGAIN: &str = "queued again";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    receiver: Option<String>,
    call: Option<String>,
    r#type: Option<String>,
    code: Option<String>,
    status: Option<u16>,
    since: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
    cursor: Option<u64>,
}

/// At which receiver a dead letter is meant; at every one where it is not set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneQuery {
    receiver: Option<String>,
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
    /// The name of the one that did not get it.
    pub receiver: String,
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
    /// Dead letters for which there was no room.
    pub left: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Deleted {
    pub deleted: usize,
    /// Events that waited for a receiver that is not in the settings any more.
    pub waiting: usize,
}

impl Replayed {
    fn add(&mut self, replayed: usize, found: usize) {
        self.replayed += replayed;
        self.left += found - replayed;
    }
}

impl DeadQuery {
    fn filter(&self, receivers: &Receivers) -> Result<DeadFilter, HttpError> {
        let Self { receiver, call, r#type, code, status, since, before, .. } = self;
        let known = |name: &str| receivers.id(name).ok_or_else(|| unknown(name, receivers));
        let call = call.as_ref().map(|text| read_parameter("call", text, str::parse));
        let kind = r#type.as_ref().map(|text| read_parameter("type", text, str::parse));
        let since = since.as_ref().map(|text| read_parameter("since", text, unix_millis_of));
        let before = before.as_ref().map(|text| read_parameter("before", text, unix_millis_of));
        Ok(DeadFilter {
            receiver: receiver.as_deref().map(known).transpose()?,
            code: code.clone(),
            status: *status,
            call: call.transpose()?,
            kind: kind.transpose()?,
            since: since.transpose()?,
            before: before.transpose()?,
            id: None,
        })
    }

    /// For what goes to all that the filter admits: whoever gives a limit does not want all.
    fn whole_filter(&self, receivers: &Receivers) -> Result<DeadFilter, HttpError> {
        if self.limit.is_some() || self.cursor.is_some() {
            return Err(HttpError::bad_request(
                "limit and cursor are for lists alone: GET /api/dead",
            ));
        }
        self.filter(receivers)
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

fn unknown(name: &str, receivers: &Receivers) -> HttpError {
    let names: Vec<&str> = receivers.iter().map(|(_, name)| name.as_str()).collect();
    HttpError::bad_request(format!(
        "receiver={name:?}: there is no such receiver; there are {}",
        names.join(", ")
    ))
}

impl DeadItem {
    fn of(letter: DeadLetter, receivers: &Receivers) -> Self {
        let DeadLetter { item, status, code, error, answer, last_at } = letter;
        let (timestamp, payload) = timestamp_and_payload(&item.event);
        Self {
            id: item.event.id.to_string(),
            receiver: receivers.name(item.receiver).to_string(),
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

/// `GET /api/dead?receiver=&call=&type=&code=&status=&since=&before=&limit=&cursor=`
pub async fn list(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<DeadQuery>, QueryRejection>,
) -> Result<Json<DeadPage>, HttpError> {
    let Query(query) = query?;
    let limit = page_size(query.limit)?;
    let (receivers, from) = (inspector.parts.journal.receivers(), query.cursor.unwrap_or_default());
    let (letters, next) = page(&inspector, query.filter(receivers)?, from, limit).await?;
    let items = letters.into_iter().map(|letter| DeadItem::of(letter, receivers)).collect();
    Ok(Json(DeadPage { items, next }))
}

/// `POST /api/dead/{id}/replay?receiver=`
pub async fn replay(
    State(inspector): State<Arc<Inspector>>,
    Path(id): Path<String>,
    query: Result<Query<OneQuery>, QueryRejection>,
) -> Result<Json<Replayed>, HttpError> {
    let _moving = inspector.moving.lock().await;
    let (mut done, mut refused) = (Replayed { replayed: 0, left: 0 }, None);
    for (receiver, letters) in by_receiver(&inspector, find(&inspector, id, query?.0).await?)? {
        let found = letters.len();
        match inspector.queue.replay(receiver, letters).await {
            Ok(replayed) => done.add(replayed, found),
            Err(full @ (Refused::Full { .. } | Refused::FullOfBytes { .. })) => {
                done.add(0, found);
                refused = Some(full);
            }
            Err(error) => return Err(broken_off(error.into(), done.replayed, AGAIN)),
        }
    }
    match refused {
        Some(full) if done.replayed == 0 => Err(full.into()),
        Some(_) | None => Ok(Json(done)),
    }
}

/// Those that can be sent: at receivers of the settings.
///
/// # Errors
/// 409 if there are none.
fn by_receiver(
    inspector: &Inspector,
    letters: Vec<DeadLetter>,
) -> Result<BTreeMap<ReceiverId, Vec<DeadLetter>>, HttpError> {
    let (mut sendable, mut gone) = (BTreeMap::<_, Vec<_>>::new(), Ok(()));
    for letter in letters {
        match check_is_set(inspector, letter.item.receiver) {
            Ok(()) => sendable.entry(letter.item.receiver).or_default().push(letter),
            Err(error) => gone = Err(error),
        }
    }
    if sendable.is_empty() { gone.map(|()| sendable) } else { Ok(sendable) }
}

/// `POST /api/dead/replay?receiver=&call=&type=&code=&status=&since=&before=`: all that the filter admits, as far as there is
/// room, but for those of receivers that are not in the settings any more.
pub async fn replay_all(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<DeadQuery>, QueryRejection>,
) -> Result<Json<Replayed>, HttpError> {
    let _moving = inspector.moving.lock().await;
    let receivers = inspector.parts.journal.receivers();
    let filter = query?.whole_filter(receivers)?;
    if let Some(receiver) = filter.receiver {
        check_is_set(&inspector, receiver)?;
    }
    let mut done = Replayed { replayed: 0, left: 0 };
    for (receiver, _) in receivers.iter().take(inspector.settings.receivers.len()) {
        if filter.receiver.is_none_or(|asked| asked == receiver) {
            let filter = DeadFilter { receiver: Some(receiver), ..filter.clone() };
            let replaying = replay_of(receiver, Pages::of(&inspector, filter), &mut done).await;
            replaying.map_err(|error| broken_off(error, done.replayed, AGAIN))?;
        }
    }
    Ok(Json(done))
}

async fn replay_of(
    receiver: ReceiverId,
    mut pages: Pages<'_>,
    done: &mut Replayed,
) -> Result<(), HttpError> {
    let mut is_full = false;
    while let Some(letters) = pages.next().await? {
        let found = letters.len();
        // Later letters of a call must not go before earlier ones.
        let replayed = match is_full {
            true => 0,
            false => match pages.inspector.queue.replay(receiver, letters).await {
                Err(Refused::Full { .. } | Refused::FullOfBytes { .. }) => 0,
                replayed => replayed?,
            },
        };
        done.add(replayed, found);
        is_full = replayed < found;
    }
    Ok(())
}

/// `DELETE /api/dead/{id}?receiver=`
pub async fn delete(
    State(inspector): State<Arc<Inspector>>,
    Path(id): Path<String>,
    query: Result<Query<OneQuery>, QueryRejection>,
) -> Result<Json<Deleted>, HttpError> {
    let _moving = inspector.moving.lock().await;
    let letters = find(&inspector, id, query?.0).await?;
    take_away(&inspector, &letters);
    Ok(Json(Deleted { deleted: letters.len(), waiting: 0 }))
}

/// `DELETE /api/dead?receiver=&call=&type=&code=&status=&since=&before=`: all that the filter admits. Of a receiver that is not
/// in the settings any more, what waits for it goes too, if nothing else is asked for.
pub async fn delete_all(
    State(inspector): State<Arc<Inspector>>,
    query: Result<Query<DeadQuery>, QueryRejection>,
) -> Result<Json<Deleted>, HttpError> {
    let _moving = inspector.moving.lock().await;
    let journal = &inspector.parts.journal;
    let filter = query?.whole_filter(journal.receivers())?;
    let is_receiver_alone =
        DeadFilter { receiver: None, ..filter.clone() } == DeadFilter::default();
    let retired = match filter.receiver {
        None if is_receiver_alone => {
            return Err(HttpError::bad_request(
                "this would delete every dead letter: say which, by receiver, call, type, code, status, since or before",
            ));
        }
        receiver => receiver.filter(|_| is_receiver_alone),
    };
    let mut done = Deleted { deleted: 0, waiting: 0 };
    let mut pages = Pages::of(&inspector, filter);
    let after = |error, deleted| broken_off(error, deleted, "deleted");
    while let Some(letters) = pages.next().await.map_err(|error| after(error, done.deleted))? {
        take_away(&inspector, &letters);
        done.deleted += letters.len();
    }
    if let Some(receiver) = retired {
        done.waiting = drop_waiting(&inspector, receiver).await;
    }
    Ok(Json(done))
}

async fn drop_waiting(inspector: &Inspector, receiver: ReceiverId) -> usize {
    let mut dropped = 0;
    loop {
        let journal = Arc::clone(&inspector.parts.journal);
        let some = tokio::task::spawn_blocking(move || journal.drop_waiting(receiver)).await;
        match some.expect("the journal does not panic, and nobody aborts it") {
            0 => return dropped,
            some => dropped += some,
        }
    }
}

/// What was done before a fault stays done, so that is told with it.
fn broken_off(HttpError { status, error }: HttpError, count: usize, done: &str) -> HttpError {
    match count {
        0 => HttpError { status, error },
        _ => HttpError { status, error: format!("{error}; {count} were {done} before") },
    }
}

fn take_away(inspector: &Inspector, letters: &[DeadLetter]) {
    for letter in letters {
        inspector.parts.history.deleted(letter.item.event.call, letter.item.place);
    }
    inspector.parts.journal.delete(letters.iter().map(|letter| letter.item.place));
}

/// Nothing can be sent to a receiver that is gone.
fn check_is_set(inspector: &Inspector, receiver: ReceiverId) -> Result<(), HttpError> {
    if receiver.index() < inspector.settings.receivers.len() {
        return Ok(());
    }
    let name = inspector.parts.journal.receivers().name(receiver);
    let error = format!(
        "the receiver {name} is not in the settings any more; set it again, or delete what is kept for it \
         (callhook dead purge --receiver {name})"
    );
    Err(HttpError::new(StatusCode::CONFLICT, error))
}

/// The dead letters with this id: at every receiver, unless one is asked for, and several of each, if a sender used it
/// again long after.
async fn find(
    inspector: &Arc<Inspector>,
    id: String,
    OneQuery { receiver }: OneQuery,
) -> Result<Vec<DeadLetter>, HttpError> {
    let query = DeadQuery { receiver, ..DeadQuery::default() };
    let filter = query.filter(inspector.parts.journal.receivers())?;
    let filter = DeadFilter { id: Some(id.clone()), ..filter };
    let (letters, _) = page(inspector, filter, 0, MOST_ITEMS).await?;
    if letters.is_empty() {
        return Err(HttpError::not_found(format!(
            "no dead letter has the id {id:?}; see GET /api/dead"
        )));
    }
    Ok(letters)
}

/// All that a filter admits, a page at a time. What is accepted meanwhile is left alone, even if it is what was just
/// replayed and failed again. An event that was accepted before and is given up meanwhile may be among them.
struct Pages<'a> {
    inspector: &'a Arc<Inspector>,
    filter: DeadFilter,
    /// Where the next page begins; `None` after the last.
    from: Option<u64>,
    end: u64,
}

impl<'a> Pages<'a> {
    fn of(inspector: &'a Arc<Inspector>, filter: DeadFilter) -> Self {
        Self { inspector, filter, from: Some(0), end: inspector.queue.next_place() }
    }

    /// Returns none that is empty.
    async fn next(&mut self) -> Result<Option<Vec<DeadLetter>>, HttpError> {
        let Some(from) = self.from.take() else { return Ok(None) };
        let (mut letters, next) =
            page(self.inspector, self.filter.clone(), from, MOST_ITEMS).await?;
        letters.retain(|letter| letter.item.place < self.end);
        self.from = next.filter(|next| *next < self.end);
        Ok(Some(letters).filter(|letters| !letters.is_empty()))
    }
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
