//! Row: one pending write, and who waits for it.
//!
//! Owns what two writes to the same place come to ([`Row::merge`]), and who is told what ([`Row::settle`]).
//!
//! Invariants:
//! - A promise stands in the row of its event and nowhere else, so it cannot be lost where the row is not.
//! - [`Row::settle`] is the only place where one who waits is answered.
//! - An event that ends before it is written is not written; where a transaction with it has failed, what
//!   it may have left on disk is taken away.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ticket::Ticket;
use crate::event::{CallId, EventId, Item, Origin, Spent};
use crate::routing::destination::Destination;

/// What is to be written of one place.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// An event to keep.
    pub put: Option<Item>,
    /// The place of the dead letter that it was, which goes in the same transaction.
    pub replays: Option<u64>,
    pub spent: Option<Spent>,
    pub end: Option<End>,
    pub waiters: Waiters,
    /// Whether a transaction with it failed: it may be on disk all the same.
    pub tried: bool,
}

/// How a place ends.
#[derive(Clone, Debug)]
pub enum End {
    /// Delivered, taken back, or a dead letter that is replayed or deleted: nothing of it is left.
    Gone,
    /// Given up.
    Dead(Arc<DeadLetter>),
}

/// Who waits for a row.
#[derive(Clone, Debug, Default)]
pub struct Waiters {
    /// Whoever was promised that the event is kept.
    pub promise: Option<Ticket>,
    /// The next event of the call, until this one's end is written: a crash before would deliver both again.
    pub lane: Option<Ticket>,
}

/// An event that was given up.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub item: Item,
    /// That of the last answer, if there was one.
    pub status: Option<u16>,
    /// Those of the last failure.
    pub code: String,
    pub error: String,
    /// The beginning of the last answer's body.
    pub answer: Option<Box<str>>,
    /// When the last attempt failed, in Unix milliseconds.
    pub last_at: u64,
}

/// What is kept of an id that a client gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenId {
    /// When it was given, in Unix milliseconds.
    pub at: u64,
    /// The receiver's `sts_url`, for a `call_initiated` that brought one.
    pub decision: Option<Box<str>>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedCall {
    pub call: CallId,
    pub reason: Cow<'static, str>,
    pub duration_ms: u64,
    /// When it ended, in Unix milliseconds.
    pub at: u64,
    /// Where its dialplan is to send the caller on to.
    pub next: Option<Destination>,
}

/// All that is to be written: into one transaction, since its parts depend on each other.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// By place.
    pub rows: BTreeMap<u64, Row>,
    /// Ids that were given, and those to forget.
    pub ids: HashMap<EventId, Option<GivenId>>,
    /// Calls that are bridged, with when they began in Unix milliseconds, and those that ended.
    pub calls: HashMap<CallId, Option<u64>>,
    /// When all that are bridged were alive, in Unix milliseconds.
    pub live_at: Option<u64>,
    /// How calls ended, with whoever was promised that it is kept.
    pub ended: Vec<(EndedCall, Option<Ticket>)>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    Written,
    /// The disk failed; the row is tried again.
    NotWritten,
    /// The event was delivered before it was written.
    Delivered,
    /// The queue does not keep the event.
    Withdrawn,
}

impl Row {
    /// An event to keep, and the promise that it is.
    pub fn put(item: Item, promise: Option<Ticket>) -> Self {
        let waiters = Waiters { promise, lane: None };
        Self { put: Some(item), waiters, ..Self::default() }
    }

    pub fn spent(spent: Spent) -> Self {
        Self { spent: Some(spent), ..Self::default() }
    }

    /// An end, and the call's next event that waits for it.
    pub fn end(end: End, lane: Option<Ticket>) -> Self {
        let waiters = Waiters { promise: None, lane };
        Self { end: Some(end), waiters, ..Self::default() }
    }

    /// Both as one.
    pub fn merge(older: Self, newer: Self) -> Self {
        let waiters = Waiters {
            promise: older.waiters.promise.or(newer.waiters.promise),
            lane: newer.waiters.lane.or(older.waiters.lane),
        };
        let tried = older.tried || newer.tried;
        let put = older.put.or(newer.put);
        match newer.end.or(older.end) {
            // It never came to the disk.
            Some(End::Gone) if put.is_some() && !tried => Self { waiters, ..Self::default() },
            Some(end) => Self { end: Some(end), waiters, tried, ..Self::default() },
            None => {
                let (spent, replays) =
                    (newer.spent.or(older.spent), older.replays.or(newer.replays));
                Self { put, replays, spent, end: None, waiters, tried }
            }
        }
    }

    /// Whether nothing is to be written and nobody waits.
    pub fn is_empty(&self) -> bool {
        self.put.is_none()
            && self.spent.is_none()
            && self.end.is_none()
            && self.waiters.promise.is_none()
            && self.waiters.lane.is_none()
    }

    /// The event of a dead letter that was never sent.
    pub fn unsent(&self) -> Option<&Item> {
        match &self.end {
            Some(End::Dead(letter)) if letter.item.spent.attempts == 0 => Some(&letter.item),
            Some(End::Dead(_) | End::Gone) | None => None,
        }
    }

    /// Whether it can wait for its event to be delivered, since nobody waits for it.
    pub fn is_unhurried(&self) -> bool {
        self.put.is_some() && self.spent.is_none() && self.waiters.promise.is_none()
    }

    /// The id that a client gave and that is written with the event.
    pub fn given_id(&self) -> Option<&EventId> {
        let item = self.put.as_ref().or(self.unsent())?;
        Some(&item.event.id)
            .filter(|_| item.origin == Origin::Relayed)
            .filter(|id| matches!(id, EventId::Given(_)))
    }

    /// Answers those who wait; each gets a ticket's answer through `answer`. Whoever is not answered yet
    /// stays in the row.
    pub fn settle(&mut self, settlement: Settlement, mut answer: impl FnMut(Ticket, bool)) {
        let kept = match settlement {
            Settlement::Written => Some(true),
            // Its id is promised too, and written with the next batch.
            Settlement::Delivered if self.given_id().is_some() => None,
            Settlement::Delivered => Some(true),
            Settlement::Withdrawn => Some(false),
            Settlement::NotWritten => match (&self.put, &self.end) {
                (Some(item), None) => kept_unwritten(item.origin),
                // It may be lost with the memory.
                (Some(item), Some(_)) => Some(item.origin == Origin::Copy),
                (None, Some(End::Dead(letter))) => Some(letter.item.origin == Origin::Copy),
                // It was delivered; only its id is left to write, which the process remembers.
                (None, Some(End::Gone) | None) => Some(true),
            },
        };
        let promise = self.waiters.promise.take_if(|_| kept.is_some());
        if let Some((promise, kept)) = promise.zip(kept) {
            answer(promise, kept);
        }
        let ends = matches!(settlement, Settlement::Written | Settlement::NotWritten);
        if let Some(lane) = self.waiters.lane.take_if(|_| ends) {
            // Deliveries go on without a disk that fails: nobody knows for how long.
            answer(lane, settlement == Settlement::Written);
        }
    }
}

/// Whether an event counts as kept that waits in memory only, since the disk fails.
fn kept_unwritten(origin: Origin) -> Option<bool> {
    match origin {
        // It may be delivered yet, or be withdrawn.
        Origin::Relayed | Origin::Replay => None,
        Origin::Bridged => Some(false),
        // Another item answers for its event.
        Origin::Copy => Some(true),
    }
}

impl Changes {
    /// Takes a row, which comes to one with what waits at its place.
    pub fn add(&mut self, place: u64, newer: Row) -> Option<&mut Row> {
        let merged = match self.rows.remove(&place) {
            Some(older) => Row::merge(older, newer),
            None => newer,
        };
        match merged.is_empty() {
            true => None,
            false => Some(self.rows.entry(place).insert_entry(merged).into_mut()),
        }
    }

    /// Puts what could not be written back under what came since.
    pub fn put_back(&mut self, older: Self) {
        for (place, mut older) in older.rows {
            older.tried = true;
            if let Some(newer) = self.rows.remove(&place) {
                older = Row::merge(older, newer);
            }
            if !older.is_empty() {
                self.rows.insert(place, older);
            }
        }
        for (id, older) in older.ids {
            self.ids.entry(id).or_insert(older);
        }
        for (call, older) in older.calls {
            self.calls.entry(call).or_insert(older);
        }
        self.live_at = self.live_at.or(older.live_at);
        let newer = std::mem::replace(&mut self.ended, older.ended);
        self.ended.extend(newer);
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rows are written or taken away.
    pub fn len(&self) -> usize {
        let live = usize::from(self.live_at.is_some());
        self.rows.len() + self.ids.len() + self.calls.len() + live + self.ended.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventType, Payload};

    fn item(origin: Origin, id: EventId) -> Item {
        let kind = EventType::Transcription;
        let event = Event::new(id, CallId::random(), kind, "now", &Payload::empty());
        Item::new(Arc::new(event), 1, origin)
    }

    fn put() -> Row {
        Row::put(item(Origin::Relayed, EventId::make()), Some(Ticket::new(1)))
    }

    fn dead() -> Row {
        dead_of(Origin::Relayed)
    }

    fn dead_of(origin: Origin) -> Row {
        let item = item(origin, EventId::make());
        let (code, error) = (String::new(), String::new());
        let letter = DeadLetter { item, status: None, code, error, answer: None, last_at: 1 };
        Row::end(End::Dead(Arc::new(letter)), Some(Ticket::new(1)))
    }

    fn gone() -> Row {
        Row::end(End::Gone, Some(Ticket::new(1)))
    }

    fn tried(row: Row) -> Row {
        Row { tried: true, ..row }
    }

    /// What is written of a row: the event, what was spent, its end (`g`one or `d`ead).
    fn written(row: &Row) -> String {
        let end = row.end.as_ref().map(|end| if let End::Gone = end { 'g' } else { 'd' });
        let parts = [row.put.as_ref().map(|_| 'p'), row.spent.map(|_| 's'), end];
        parts.into_iter().flatten().collect()
    }

    #[test]
    fn two_writes_to_a_place_come_to_what_the_table_says_and_lose_nobody_who_waits() {
        let spent = || Row::spent(Spent { attempts: 1, first_failed_at: None });
        for (older, newer, expected) in [
            (put(), spent(), "ps"),
            (put(), gone(), ""),
            (put(), dead(), "d"),
            (tried(put()), gone(), "g"),
            (tried(put()), dead(), "d"),
            (Row::merge(put(), spent()), gone(), ""),
            (spent(), spent(), "s"),
            (spent(), gone(), "g"),
            (spent(), dead(), "d"),
            (dead(), gone(), "g"),
            (gone(), gone(), "g"),
        ] {
            let promised = older.waiters.promise.is_some();
            let awaited = older.waiters.lane.is_some() || newer.waiters.lane.is_some();
            let case = format!("{older:?} {newer:?}");
            let merged = Row::merge(older, newer);
            assert_eq!(written(&merged), expected, "{case}");
            assert_eq!(merged.waiters.promise.is_some(), promised, "{case}");
            assert_eq!(merged.waiters.lane.is_some(), awaited, "{case}");
        }
    }

    #[test]
    fn who_waits_is_answered_as_the_table_says() {
        use Settlement::{Delivered, NotWritten, Withdrawn, Written};
        let of = |origin, id| Row::put(item(origin, id), Some(Ticket::new(1)));
        let given = || EventId::given("a").unwrap();
        let keyed = || of(Origin::Relayed, given());
        let bridged = || of(Origin::Bridged, EventId::make());
        let copy = || of(Origin::Copy, given());
        let left = || Row { put: None, ..put() };
        let (yes, no) = (Some(true), Some(false));
        for (row, settlement, promise, lane) in [
            (put(), Written, yes, None),
            (put(), NotWritten, None, None),
            (put(), Delivered, yes, None),
            (put(), Withdrawn, no, None),
            (keyed(), Delivered, None, None),
            (keyed(), Withdrawn, no, None),
            (bridged(), Written, yes, None),
            (bridged(), NotWritten, no, None),
            (copy(), Written, yes, None),
            (copy(), NotWritten, yes, None),
            (copy(), Delivered, yes, None),
            (copy(), Withdrawn, no, None),
            (left(), Written, yes, None),
            (left(), NotWritten, yes, None),
            (Row::merge(put(), dead()), Written, yes, yes),
            (Row::merge(put(), dead()), NotWritten, no, no),
            (Row::merge(copy(), dead_of(Origin::Copy)), NotWritten, yes, no),
            (Row::merge(tried(put()), gone()), NotWritten, yes, no),
            (gone(), Written, None, yes),
            (gone(), NotWritten, None, no),
        ] {
            let mut row = row;
            let (has_promise, has_lane) =
                (row.waiters.promise.is_some(), row.waiters.lane.is_some());
            let case = format!("{row:?} {settlement:?}");
            let mut answers = Vec::new();
            row.settle(settlement, |_, kept| answers.push(kept));
            let expected: Vec<bool> = [promise, lane].into_iter().flatten().collect();
            assert_eq!(answers, expected, "{case}");
            assert_eq!(row.waiters.promise.is_some(), has_promise && promise.is_none(), "{case}");
            assert_eq!(row.waiters.lane.is_some(), has_lane && lane.is_none(), "{case}");
        }
    }
}
