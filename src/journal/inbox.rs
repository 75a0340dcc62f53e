//! The inbox: what waits to be written, what is being written, and when the writer is to look.
//!
//! Invariants:
//! - A row is in one of two places, [`Inbox::pending`] or [`Inbox::writing`]; those who wait for it are found
//!   there. A batch that fails goes back under what came meanwhile.
//! - What is being written is not taken back: it is decided by the write.

use std::time::{Duration, Instant};

use super::row::{Changes, DeadLetter, End, EndedCall, GivenId, Row, Settlement, Waiters};
use super::store::DiskError;
use super::ticket::{Answers, Ticket};
use crate::event::{Event, EventId, EventType, Item, Origin, Spent};

/// How often the writer looks for events that nobody waits for. One that it sees twice is written: a
/// receiver that is well has answered by then, and its events never touch the disk.
pub const UNHURRIED: Duration = Duration::from_millis(25);

/// The most ends of calls that wait for a disk that fails.
const MOST_ENDED: usize = 10_000;

/// The most dead letters of copies that had no room and wait to be written, of at most 64 KiB each: they are under no
/// other limit, and a disk may hang.
const MOST_BURIED: usize = 1000;

/// When something is to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Due {
    /// There is nothing to write.
    #[default]
    Never,
    /// When the writer looks whether something still waits that waited at its last look.
    Look {
        at: Instant,
        /// The newest event of the last look.
        seen: Option<u64>,
    },
    /// As soon as there was time for company.
    Soon,
}

#[derive(Default)]
pub struct Inbox {
    pub pending: Changes,
    pub writing: Changes,
    /// Why the last batch could not be written.
    pub failing: Option<DiskError>,
    /// Nothing more will come.
    pub closing: bool,
    /// Dead letters among the pending that were never sent.
    buried: usize,
    pub due: Due,
    /// What the writer knew of that when it went to rest; nothing while it is at work.
    pub resting: Option<Due>,
    /// Batches that the writer took, and those it is done with.
    pub taken: u64,
    pub done: u64,
}

impl Inbox {
    /// Takes an event to keep, and what must be written with it: its id if a client gave one, since an id
    /// without its event would be taken for a repeat; and the begin or end of a bridged call. `now` is in Unix
    /// milliseconds.
    pub fn put(&mut self, item: Item, promise: Option<Ticket>, now: u64) {
        let promise = self.unless_from_memory(item.origin, promise);
        self.add_with_event(item.place, Row::put(item, promise), now);
    }

    /// Takes a dead letter that was never sent. `now` is in Unix milliseconds.
    pub fn bury(&mut self, letter: DeadLetter, promise: Option<Ticket>, now: u64) {
        self.buried += 1;
        let promise = self.unless_from_memory(letter.item.origin, promise);
        let waiters = Waiters { promise, lane: None };
        let place = letter.item.place;
        let row = Row { waiters, ..Row::end(End::Dead(letter.into()), None) };
        self.add_with_event(place, row, now);
    }

    /// Whether a dead letter more, that was never sent, may wait to be written.
    pub fn can_bury(&self) -> bool {
        self.failing.is_none() && self.buried < MOST_BURIED
    }

    /// Adds an event's first row, with what must be written beside it.
    fn add_with_event(&mut self, place: u64, row: Row, now: u64) {
        if let Some(item) = row.put.as_ref().or(row.unsent())
            && item.origin == Origin::Bridged
        {
            self.note_bounds(&item.event, now);
        }
        if let Some(id) = row.given_id() {
            self.note_id(id.clone(), Some(GivenId { at: now, decision: None }));
        }
        self.add(place, row);
    }

    /// While the disk fails nobody waits for a copy.
    fn unless_from_memory(&self, origin: Origin, promise: Option<Ticket>) -> Option<Ticket> {
        if origin == Origin::Copy && self.failing.is_some() {
            promise.iter().for_each(|promise| promise.answer(true));
            return None;
        }
        promise
    }

    /// Takes the event of a dead letter that is replayed.
    pub fn replay(&mut self, item: Item, dead: u64, promise: Ticket) {
        self.delete(dead);
        self.add(item.place, Row { replays: Some(dead), ..Row::put(item, Some(promise)) });
    }

    /// If the event begins or ends a bridged call, at this time in Unix milliseconds, that is written too.
    pub fn note_bounds(&mut self, event: &Event, now: u64) {
        if event.kind.bounds_call() {
            let since = (event.kind == EventType::CallStarted).then_some(now);
            self.pending.calls.insert(event.call, since);
            self.due = Due::Soon;
        }
    }

    /// A call ended.
    pub fn end_call(&mut self, ended: EndedCall, promise: Ticket) {
        if self.pending.ended.len() == MOST_ENDED {
            // The disk fails for long; those who ask are answered from memory.
            self.pending.ended.remove(0);
        }
        self.pending.ended.push((ended, Some(promise)));
        self.due = Due::Soon;
    }

    /// The calls that are bridged were alive, at this time in Unix milliseconds.
    pub fn note_live(&mut self, now: u64) {
        self.pending.live_at = Some(now);
        self.due = Due::Soon;
    }

    /// An id that a client gave learnt its decision, or is to be forgotten.
    pub fn note_id(&mut self, id: EventId, given: Option<GivenId>) {
        self.pending.ids.insert(id, given);
        self.due = Due::Soon;
    }

    pub fn spend(&mut self, place: u64, spent: Spent) {
        self.add(place, Row::spent(spent));
    }

    /// The event was delivered. The ticket is for the call's next event, which must not be sent before this
    /// one is taken off the disk; there is none where it is not there, or the disk fails.
    pub fn deliver(&mut self, place: u64) -> Option<Ticket> {
        let unwritten = self.pending.rows.get_mut(&place).filter(|row| row.put.is_some());
        // Whoever was promised it need not wait for the end of the batch that is being written, either.
        if let Some(row) = unwritten.or_else(|| self.writing.rows.get_mut(&place)) {
            row.settle(Settlement::Delivered, |ticket, kept| ticket.answer(kept));
        }
        self.end(place, End::Gone)
    }

    /// The event was given up; the ticket is as for a delivery.
    pub fn give_up(&mut self, letter: DeadLetter) -> Option<Ticket> {
        self.end(letter.item.place, End::Dead(letter.into()))
    }

    /// A dead letter is deleted.
    pub fn delete(&mut self, place: u64) {
        self.add(place, Row::end(End::Gone, None));
    }

    /// As if the event had never come; a dead letter that it was stays one. `false` if it is being written,
    /// or is written.
    pub fn withdraw(&mut self, place: u64) -> bool {
        let row = self.pending.rows.get_mut(&place);
        let Some(row) = row.filter(|row| row.put.is_some() || row.unsent().is_some()) else {
            return false;
        };
        row.settle(Settlement::Withdrawn, |ticket, kept| ticket.answer(kept));
        let (given, was_buried) = (row.given_id().cloned(), row.unsent().is_some());
        match row.replays {
            // Should both be on disk after all, the event is found there again, and is not lost.
            Some(dead) => {
                self.pending.rows.remove(&place);
                self.pending.rows.remove(&dead);
            }
            None => self.delete(place),
        }
        self.buried = self.buried.saturating_sub(usize::from(was_buried));
        if let Some(id) = given {
            self.note_id(id, None);
        }
        true
    }

    /// The events that no write has begun for, oldest first.
    pub fn unwritten(&self) -> impl Iterator<Item = &Item> {
        self.pending.rows.values().filter_map(|row| row.put.as_ref())
    }

    /// The events that were dead letters from the start and that no write has begun for, oldest first.
    pub fn unsent(&self) -> impl Iterator<Item = &Item> {
        self.pending.rows.values().filter_map(Row::unsent)
    }

    fn end(&mut self, place: u64, end: End) -> Option<Ticket> {
        let row = self.pending.add(place, Row::end(end, None))?;
        self.due = Due::Soon;
        let waits = row.end.is_some() && self.failing.is_none();
        waits.then(|| row.waiters.lane.insert(Ticket::new(1)).clone())
    }

    fn add(&mut self, place: u64, row: Row) {
        if let Some(row) = self.pending.add(place, row) {
            let unhurried = row.is_unhurried();
            self.hasten(unhurried);
        }
    }

    fn hasten(&mut self, unhurried: bool) {
        match (unhurried, self.due) {
            (false, _) => self.due = Due::Soon,
            (true, Due::Never) => self.look_again(None),
            (true, Due::Look { .. } | Due::Soon) => {}
        }
    }

    /// Whether an event still waits that was seen at the last look. If not, there will be another look, as
    /// long as one waits.
    pub fn is_overdue(&mut self, seen: Option<u64>) -> bool {
        let rows = &self.pending.rows;
        let oldest = rows.first_key_value().map(|(place, _)| *place);
        let overdue = oldest.is_some_and(|oldest| Some(oldest) <= seen);
        if !overdue {
            match rows.last_key_value() {
                Some((newest, _)) => self.look_again(Some(*newest)),
                None => self.due = Due::Never,
            }
        }
        overdue
    }

    fn look_again(&mut self, seen: Option<u64>) {
        self.due = Due::Look { at: Instant::now() + UNHURRIED, seen };
    }

    /// Whether something is to be written that may change the dead letters. It leaves the inbox with a batch
    /// and in no other way, while an event that is delivered leaves it unwritten.
    pub fn has_ends(&self) -> bool {
        self.pending.rows.values().any(|row| row.end.is_some())
    }

    /// Begins to write all that waits; what is to be written is a copy, so that those who wait are found
    /// here meanwhile.
    pub fn take(&mut self) -> Changes {
        self.taken += 1;
        self.buried = 0;
        self.due = Due::Never;
        self.writing = std::mem::take(&mut self.pending);
        self.writing.clone()
    }

    /// The batch is written.
    pub fn written(&mut self) -> Answers {
        self.done += 1;
        let mut answers = Answers::default();
        let written = std::mem::take(&mut self.writing);
        for mut row in written.rows.into_values() {
            row.settle(Settlement::Written, |ticket, kept| answers.0.push((ticket, kept)));
        }
        let promises = written.ended.into_iter().filter_map(|(_, promise)| promise);
        answers.0.extend(promises.map(|promise| (promise, true)));
        answers
    }

    /// The batch is not written, and will be tried again.
    pub fn not_written(&mut self) -> Answers {
        self.done += 1;
        self.due = Due::Soon;
        let mut answers = Answers::default();
        self.pending.put_back(std::mem::take(&mut self.writing));
        self.buried = self.unsent().count();
        for row in self.pending.rows.values_mut() {
            row.settle(Settlement::NotWritten, |ticket, kept| answers.0.push((ticket, kept)));
        }
        self.pending.rows.retain(|_, row| !row.is_empty());
        let promises = self.pending.ended.iter_mut().filter_map(|(_, promise)| promise.take());
        answers.0.extend(promises.map(|promise| (promise, false)));
        answers
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{CallId, Payload};

    fn item(place: u64) -> Item {
        let event = Event::now(CallId::random(), EventType::CallInitiated, &Payload::empty());
        Item::new(Arc::new(event), place, Origin::Relayed)
    }

    fn replay(place: u64) -> Item {
        Item { origin: Origin::Replay, ..item(place) }
    }

    #[test]
    fn what_nobody_waits_for_is_overdue_when_it_is_seen_twice() {
        let mut inbox = Inbox::default();
        inbox.put(item(1), None, 0);
        let look = |inbox: &mut Inbox| match inbox.due {
            Due::Look { seen, .. } => inbox.is_overdue(seen),
            Due::Never | Due::Soon => panic!("there is nothing to look for: {:?}", inbox.due),
        };
        assert!(!look(&mut inbox));
        assert!(look(&mut inbox));
        inbox.deliver(1);
        inbox.put(item(2), None, 0);
        assert!(!look(&mut inbox), "the one that was seen was delivered");
        inbox.deliver(2);
        assert!(!look(&mut inbox));
        assert_eq!(inbox.due, Due::Never);
    }

    #[test]
    fn dead_letters_depend_on_nothing_that_may_leave_unwritten() {
        let mut inbox = Inbox::default();
        inbox.put(item(1), Some(Ticket::new(1)), 0);
        assert!(!inbox.has_ends(), "it may be delivered, and no batch follow");
        inbox.replay(replay(9), 7, Ticket::new(1));
        assert!(inbox.has_ends());
        inbox.deliver(9);
        assert!(inbox.has_ends(), "the letter goes all the same");
        inbox.take();
        assert!(!inbox.has_ends(), "it is on its way to the disk");
    }

    #[test]
    fn a_replay_that_is_withdrawn_leaves_its_dead_letter() {
        let mut inbox = Inbox::default();
        inbox.replay(replay(9), 7, Ticket::new(1));
        inbox.take();
        assert!(!inbox.withdraw(9), "the write decides");
        drop(inbox.not_written());
        assert!(inbox.withdraw(9));
        assert!(inbox.pending.is_empty());
    }

    #[test]
    fn what_somebody_waits_for_hastens_all() {
        let mut inbox = Inbox::default();
        inbox.put(item(1), None, 0);
        inbox.put(item(2), Some(Ticket::new(1)), 0);
        inbox.put(item(3), None, 0);
        assert_eq!(inbox.due, Due::Soon);
        assert_eq!(inbox.take().rows.len(), 3);
        assert_eq!(inbox.due, Due::Never);
    }

    #[test]
    fn an_event_that_is_delivered_while_it_is_written_is_answered_and_taken_away() {
        let (mut inbox, promise) = (Inbox::default(), Ticket::new(1));
        inbox.put(item(1), Some(promise.clone()), 0);
        inbox.take();
        assert!(inbox.deliver(1).is_some(), "the call's next event waits");
        assert_eq!(promise.answered(), Some(true));
        drop(inbox.written());
        assert_eq!(inbox.take().len(), 1);
    }

    #[test]
    fn whoever_waits_is_answered_whatever_happens_between_two_writes_that_fail() {
        let deliver = |inbox: &mut Inbox| drop(inbox.deliver(1));
        let withdraw = |inbox: &mut Inbox| {
            inbox.withdraw(1);
        };
        let happens: [fn(&mut Inbox); 2] = [deliver, withdraw];
        for (early, what) in [false, true].into_iter().zip([happens, happens]) {
            for happen in what {
                let (mut inbox, promise) = (Inbox::default(), Ticket::new(1));
                inbox.failing = Some(DiskError("full".into()));
                inbox.put(item(1), Some(promise.clone()), 0);
                inbox.take();
                if early {
                    happen(&mut inbox);
                }
                drop(inbox.not_written());
                if !early || promise.answered().is_none() {
                    happen(&mut inbox);
                }
                assert!(promise.answered().is_some(), "early: {early}");
            }
        }
    }
}
