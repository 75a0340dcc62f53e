//! The layout of a file, format version [`FORMAT`]:
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | name | number: the format version, and when the calls that are bridged were last alive |
//! | `receivers` | name | nothing: for whom there may be something, besides the main one |
//! | `events` | place | sequence, call, id, type, agent, envelope: an event for the main receiver alone |
//! | `copies` | place of the event's first copy | of an event that goes to others, too, the copies that are left: which, receiver, sequence |
//! | `bodies` | as `copies` | call, id, type, agent, envelope |
//! | `spent` | place | attempts spent, when the first one failed |
//! | `ids` | id that a client gave | when, the decision it brought |
//! | `dead`, `dead_NAME` | place | as `events`, and why it was given up; each receiver has a table |
//! | `answers` | place of a dead letter | its time, what the receiver said of it |
//! | `calls` | call that is bridged | when it began |
//! | `ended` | when, call | why it ended, and how many milliseconds it took |
//! | `next` | as `ended`, of those that have one | context and extension where the caller is sent on to |
//!
//! Format 1 had no receivers but the main one; a file of it is upgraded when it is opened. `ended`, `next` and `answers`
//! came during format 1: a file of it may lack them, and the time of a letter tells whether an answer is its own. Each
//! is a table of its own because a table's type is fixed once it is made. Times are Unix milliseconds.
//!
//! The copies of an event are at adjacent places, [`MOST_RECEIVERS`](crate::receiver::MOST_RECEIVERS) at most; its body
//! goes with the last of them.

use std::num::NonZero;
use std::sync::Arc;

use bytes::Bytes;
use redb::TableDefinition;

use super::super::row::DeadLetter;
use crate::event::{CallId, Event, EventHeaders, EventId, EventType, Item, Origin, Spent};
use crate::receiver::ReceiverId;

/// The version of the layout; a later one is refused, not guessed at.
pub const FORMAT: u64 = 2;

/// Sequence, call, id, type, agent, envelope.
pub type EventRow<'a> = (u64, [u8; 16], &'a str, &'a str, Option<&'a str>, &'a [u8]);
/// Of each copy which it is, from 0 on, receiver, sequence.
pub type CopiesRow<'a> = Vec<(u8, &'a str, u64)>;
/// Call, id, type, agent, envelope.
pub type BodyRow<'a> = ([u8; 16], &'a str, &'a str, Option<&'a str>, &'a [u8]);
/// As an event's, then attempts, status, code, error, first failed at, last failed at.
pub type DeadRow<'a> = (
    u64,
    [u8; 16],
    &'a str,
    &'a str,
    Option<&'a str>,
    &'a [u8],
    u32,
    Option<u16>,
    &'a str,
    &'a str,
    u64,
    u64,
);

pub const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub const EVENTS: TableDefinition<'_, u64, EventRow<'_>> = TableDefinition::new("events");
pub const COPIES: TableDefinition<'_, u64, CopiesRow<'_>> = TableDefinition::new("copies");
pub const BODIES: TableDefinition<'_, u64, BodyRow<'_>> = TableDefinition::new("bodies");
pub const RECEIVERS: TableDefinition<'_, &str, ()> = TableDefinition::new("receivers");
pub const SPENT: TableDefinition<'_, u64, (u32, u64)> = TableDefinition::new("spent");
pub const IDS: TableDefinition<'_, &str, (u64, Option<&str>)> = TableDefinition::new("ids");
pub const ANSWERS: TableDefinition<'_, u64, (u64, &str)> = TableDefinition::new("answers");
pub const CALLS: TableDefinition<'_, [u8; 16], u64> = TableDefinition::new("calls");
pub const ENDED: TableDefinition<'_, (u64, [u8; 16]), (&str, u64)> = TableDefinition::new("ended");
pub const NEXT: TableDefinition<'_, (u64, [u8; 16]), (&str, &str)> = TableDefinition::new("next");

/// In `meta`.
pub const LIVE_AT: &str = "live_at";

/// The name of a receiver's table of dead letters; the main one's is that of format 1.
pub fn dead_table(name: &str) -> String {
    match name {
        "main" => "dead".to_owned(),
        name => format!("dead_{name}"),
    }
}

pub fn dead_letters_in(table: &str) -> TableDefinition<'_, u64, DeadRow<'static>> {
    TableDefinition::new(table)
}

pub fn body_row<'a>(event: &'a Event, id: &'a str) -> BodyRow<'a> {
    (event.call.to_bytes(), id, event.kind.name(), event.agent(), &event.body)
}

pub fn dead_row<'a>(letter: &'a DeadLetter, id: &'a str) -> DeadRow<'a> {
    let (call, id, kind, agent, body) = body_row(&letter.item.event, id);
    let (sequence, Spent { attempts, first_failed_at }) = (letter.item.sequence, letter.item.spent);
    let (code, error) = (letter.code.as_str(), letter.error.as_str());
    let (first_at, last_at) = (millis(first_failed_at), letter.last_at);
    (sequence, call, id, kind, agent, body, attempts, letter.status, code, error, first_at, last_at)
}

pub fn event((call, id, kind, agent, body): BodyRow<'_>) -> Result<Event, redb::Error> {
    let kind: EventType =
        kind.parse().map_err(|_| redb::Error::Corrupted(format!("{kind:?} is no event type")))?;
    Ok(Event {
        id: EventId::from_text(id),
        call: CallId::from_bytes(call),
        kind,
        headers: EventHeaders { agent: agent.map(Into::into), ..EventHeaders::default() }.shared(),
        body: Bytes::copy_from_slice(body),
    })
}

pub fn dead_letter(
    receiver: ReceiverId,
    place: u64,
    row: DeadRow<'_>,
) -> Result<DeadLetter, redb::Error> {
    let (sequence, call, id, kind, agent, body, attempts, status, code, error, first_at, last_at) =
        row;
    let event = Arc::new(event((call, id, kind, agent, body))?);
    let (code, error) = (code.to_owned(), error.to_owned());
    let spent = Spent { attempts, first_failed_at: NonZero::new(first_at) };
    let item = Item { receiver, sequence, spent, ..Item::new(event, place, Origin::Relayed) };
    Ok(DeadLetter { item, status, code, error, answer: None, last_at })
}

/// 0 stands for never.
pub fn millis(at: Option<NonZero<u64>>) -> u64 {
    at.map_or(0, NonZero::get)
}

pub fn no_receiver(place: u64, name: &str) -> redb::Error {
    redb::Error::Corrupted(format!("the event at {place} is for {name:?}, which is no receiver"))
}
