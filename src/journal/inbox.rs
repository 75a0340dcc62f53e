//! The inbox: what waits to be written, and what happens to it while a batch is under way.
//!
//! Invariant: an event that is settled before it is written is not written, and one that is settled
//! while it is being written is taken away by the next batch.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::store::{Batch, IdChange};
use super::ticket::Promises;
use super::{DeadLetter, DiskError, Entry, Haste, KnownId, Mark, Ticket, UNHURRIED};

/// When something is to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Due {
    /// There is nothing to write.
    #[default]
    Never,
    /// When the writer looks whether something still waits that waited at its last look.
    Look {
        /// The next time.
        at: Instant,
        /// The newest event of the last time.
        seen: Option<u64>,
    },
    /// As soon as there was time for company.
    Soon,
}

/// What waits to be written.
#[derive(Default)]
pub struct Inbox {
    /// Events, each with its promise.
    pub appends: BTreeMap<u64, (Entry, Ticket)>,
    /// The promises for ids.
    pub known: Vec<Ticket>,
    /// The promises for the events that are being written.
    pub writing: HashMap<u64, Ticket>,
    /// Attempts spent on events, with the time of the first one.
    pub spent: BTreeMap<u64, (u32, u64)>,
    /// Events that were given up, with who waits for it.
    pub dead: BTreeMap<u64, Buried>,
    /// Events that are to be taken away, with who waits for it.
    pub gone: BTreeMap<u64, Option<Ticket>>,
    /// Dead letters that are replayed or deleted.
    pub undead: Vec<u64>,
    /// What happened to ids, in this order.
    pub ids: Vec<IdChange>,
    /// Calls that began or ended, in this order.
    pub marks: Vec<Mark>,
    /// Why the last batch could not be written.
    pub failing: Option<DiskError>,
    /// Nothing more will come.
    pub closing: bool,
    /// When the writer is to take all this.
    pub due: Due,
    /// What the writer knew of that when it went to rest; nothing while it is at work.
    pub resting: Option<Due>,
    /// Batches that the writer took, and those it is done with.
    pub taken: u64,
    pub done: u64,
}

impl Inbox {
    /// Something came that is to be written in time.
    pub fn hasten(&mut self, haste: Haste) {
        match (haste, self.due) {
            (Haste::Soon, _) => self.due = Due::Soon,
            (Haste::Unhurried, Due::Never) => self.look_again(None),
            (Haste::Unhurried, Due::Look { .. } | Due::Soon) => {}
        }
    }

    /// Whether something still waits that was seen at the last look. If not, there will be another look,
    /// as long as something waits.
    pub fn is_overdue(&mut self, seen: Option<u64>) -> bool {
        let oldest = self.appends.first_key_value().map(|(order, _)| *order);
        let overdue = oldest.is_some_and(|oldest| Some(oldest) <= seen);
        if !overdue {
            match self.appends.last_key_value() {
                Some((newest, _)) => self.look_again(Some(*newest)),
                None => self.due = Due::Never,
            }
        }
        overdue
    }

    fn look_again(&mut self, seen: Option<u64>) {
        self.due = Due::Look { at: Instant::now() + UNHURRIED, seen };
    }

    /// Takes events with their ids, and the promise for all of them.
    pub fn append(
        &mut self,
        entries: Vec<Entry>,
        ids: Vec<KnownId>,
        ticket: &Ticket,
        haste: Haste,
    ) {
        if entries.is_empty() && ids.is_empty() {
            return;
        }
        // An id is written even if its event is delivered before, so somebody waits for it.
        let haste = if ids.is_empty() { haste } else { Haste::Soon };
        self.known.extend(ids.iter().map(|_| ticket.clone()));
        self.ids.extend(ids.into_iter().map(IdChange::Known));
        let promised = |entry: Entry| (entry.order, (entry, ticket.clone()));
        self.appends.extend(entries.into_iter().map(promised));
        self.hasten(haste);
    }

    /// Takes a mark of a bridged call.
    pub fn mark(&mut self, mark: Option<Mark>) {
        if mark.is_some() {
            self.marks.extend(mark);
            self.hasten(Haste::Soon);
        }
    }

    /// Takes what happened to ids.
    pub fn note_ids(&mut self, changes: impl IntoIterator<Item = IdChange>) {
        self.ids.extend(changes);
        self.hasten(Haste::Soon);
    }

    /// Takes dead letters away, which are replayed or deleted.
    pub fn revive(&mut self, orders: impl IntoIterator<Item = u64>) {
        let before = self.undead.len();
        self.undead.extend(orders);
        if self.undead.len() > before {
            self.hasten(Haste::Soon);
        }
    }

    /// Whether something is to be written that changes the dead letters.
    pub fn concerns_dead_letters(&self) -> bool {
        let replays = |(entry, _): &(Entry, Ticket)| entry.replays.is_some();
        !self.dead.is_empty() || !self.undead.is_empty() || self.appends.values().any(replays)
    }

    /// The event was delivered. Where it is on disk it must be taken away before the call's next
    /// event is sent, or a crash would deliver both again: the ticket tells when it is. There is
    /// none while the disk fails, as nobody knows for how long.
    pub fn deliver(&mut self, order: u64) -> Option<Ticket> {
        if let Some(promise) = self.settle_unwritten(order) {
            promise.keep();
            return None;
        }
        // The sender need not wait for the end of the batch that is being written.
        if let Some(promise) = self.writing.remove(&order) {
            promise.keep();
        }
        let lane = self.lane();
        self.gone.insert(order, lane.clone());
        self.hasten(Haste::Soon);
        lane
    }

    /// The event was given up. The ticket tells when that is on disk, for the same reason.
    pub fn bury(&mut self, letter: DeadLetter) -> Option<Ticket> {
        let promise = self.settle_unwritten(letter.order);
        if promise.is_none() {
            self.gone.entry(letter.order).or_default();
        }
        let lane = self.lane();
        let buried = Buried { promise, lane: lane.clone(), letter };
        self.dead.insert(buried.letter.order, buried);
        self.hasten(Haste::Soon);
        lane
    }

    /// As if the event had never come; a dead letter that it was stays one.
    pub fn withdraw(&mut self, order: u64) -> Option<Ticket> {
        self.spent.remove(&order);
        // It may be on disk all the same, if the fault came after the write.
        self.gone.entry(order).or_default();
        self.hasten(Haste::Soon);
        self.appends.remove(&order).map(|(_, ticket)| ticket)
    }

    /// What a call's next event waits for.
    fn lane(&self) -> Option<Ticket> {
        self.failing.is_none().then(|| Ticket::new(1))
    }

    fn settle_unwritten(&mut self, order: u64) -> Option<Ticket> {
        self.spent.remove(&order);
        let (entry, ticket) = self.appends.remove(&order)?;
        self.revive(entry.replays);
        Some(ticket)
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty()
            && self.spent.is_empty()
            && self.dead.is_empty()
            && self.gone.is_empty()
            && self.undead.is_empty()
            && self.ids.is_empty()
            && self.marks.is_empty()
    }
}

/// An event that was given up, with who waits until that is written.
pub struct Buried {
    letter: DeadLetter,
    /// Whoever was promised that the event is kept.
    promise: Option<Ticket>,
    /// The call's next event.
    lane: Option<Ticket>,
}

/// A batch under way, with those who wait for it.
pub struct Work {
    spent: BTreeMap<u64, (u32, u64)>,
    dead: BTreeMap<u64, Buried>,
    gone: BTreeMap<u64, Option<Ticket>>,
    known: Vec<Ticket>,
    /// What is written.
    pub batch: Batch,
}

impl Work {
    /// Takes everything that waits.
    pub fn of(inbox: &mut Inbox) -> Self {
        inbox.due = Due::Never;
        let appends = std::mem::take(&mut inbox.appends);
        let spent = std::mem::take(&mut inbox.spent);
        let dead = std::mem::take(&mut inbox.dead);
        let gone = std::mem::take(&mut inbox.gone);
        let mut batch = Batch {
            appends: Vec::with_capacity(appends.len()),
            gone: gone.keys().copied().collect(),
            spent: spent.iter().map(|(order, (n, at))| (*order, *n, *at)).collect(),
            dead: dead.values().map(|buried| buried.letter.clone()).collect(),
            undead: std::mem::take(&mut inbox.undead),
            ids: std::mem::take(&mut inbox.ids),
            marks: std::mem::take(&mut inbox.marks),
        };
        for (order, (entry, ticket)) in appends {
            batch.appends.push(entry);
            inbox.writing.insert(order, ticket);
        }
        // A dead letter is replayed in the same transaction that keeps its event.
        let replayed = batch.appends.iter().filter_map(|entry| entry.replays);
        batch.undead.extend(replayed);
        let known = std::mem::take(&mut inbox.known);
        Self { spent, dead, gone, known, batch }
    }

    /// It is written; returns the promises that are to be kept.
    pub fn keep(self, inbox: &mut Inbox) -> Promises {
        let appended = inbox.writing.drain().map(|(_, ticket)| ticket);
        let buried =
            self.dead.into_values().flat_map(|buried| [buried.promise, buried.lane]).flatten();
        let gone = self.gone.into_values().flatten();
        Promises(appended.chain(buried).chain(gone).chain(self.known).collect())
    }

    /// Puts everything back, to be tried again. What was settled meanwhile is taken away. Deliveries
    /// that wait for the disk go on without it.
    pub fn put_back(self, inbox: &mut Inbox) {
        let replayed: Vec<u64> =
            self.batch.appends.iter().filter_map(|entry| entry.replays).collect();
        for entry in self.batch.appends {
            let order = entry.order;
            match inbox.writing.remove(&order) {
                Some(ticket) if !inbox.gone.contains_key(&order) => {
                    let ticket = if entry.bridged { ticket.renewed() } else { ticket };
                    inbox.appends.insert(order, (entry, ticket));
                }
                // It was settled meanwhile.
                promise => {
                    inbox.undead.extend(entry.replays);
                    if let Some(buried) = inbox.dead.get_mut(&order) {
                        buried.promise = promise;
                    }
                }
            }
        }
        for (order, spent) in self.spent {
            inbox.spent.entry(order).or_insert(spent);
        }
        inbox.dead.extend(self.dead);
        inbox.gone.extend(self.gone);
        let undead = self.batch.undead.into_iter().filter(|order| !replayed.contains(order));
        inbox.undead.extend(undead);
        inbox.ids.splice(..0, self.batch.ids);
        inbox.marks.splice(..0, self.batch.marks);
        let buried = inbox.dead.values_mut().filter_map(|buried| buried.lane.take());
        let gone = inbox.gone.values_mut().filter_map(Option::take);
        buried.chain(gone).for_each(|lane| lane.refuse());
        inbox.hasten(Haste::Soon);
        // Whether an event is kept is for its own promise to say. Its id is written when the disk
        // works again; until then it is remembered by the process alone.
        self.known.into_iter().for_each(|id| id.keep());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{CallId, Event, EventType, Payload};

    fn entry(order: u64) -> Entry {
        let event = Event::now(CallId::random(), EventType::CallInitiated, &Payload::empty());
        let (sequence, spent, first_at, replays, bridged) = (1, 0, 0, None, false);
        Entry { order, sequence, spent, first_at, event: Arc::new(event), replays, bridged }
    }

    fn take(inbox: &mut Inbox, order: u64, haste: Haste) {
        inbox.append(vec![entry(order)], Vec::new(), &Ticket::new(1), haste);
    }

    #[test]
    fn what_nobody_waits_for_is_overdue_when_it_is_seen_twice() {
        let mut inbox = Inbox::default();
        take(&mut inbox, 1, Haste::Unhurried);
        let look = |inbox: &mut Inbox| match inbox.due {
            Due::Look { seen, .. } => inbox.is_overdue(seen),
            Due::Never | Due::Soon => panic!("there is nothing to look for: {:?}", inbox.due),
        };
        assert!(!look(&mut inbox));
        assert!(look(&mut inbox));
        inbox.deliver(1);
        take(&mut inbox, 2, Haste::Unhurried);
        assert!(!look(&mut inbox), "the one that was seen was delivered");
        inbox.deliver(2);
        assert!(!look(&mut inbox));
        assert_eq!(inbox.due, Due::Never);
    }

    #[test]
    fn dead_letters_depend_on_nothing_that_may_leave_unwritten() {
        let mut inbox = Inbox::default();
        take(&mut inbox, 1, Haste::Soon);
        assert!(!inbox.concerns_dead_letters(), "it may be delivered, and no batch follow");
        inbox.append(
            vec![Entry { replays: Some(7), ..entry(2) }],
            Vec::new(),
            &Ticket::new(1),
            Haste::Soon,
        );
        assert!(inbox.concerns_dead_letters());
        inbox.deliver(2);
        assert!(inbox.concerns_dead_letters(), "the letter goes all the same");
        Work::of(&mut inbox);
        assert!(!inbox.concerns_dead_letters(), "it is on its way to the disk");
    }

    #[test]
    fn where_nothing_comes_nothing_is_due() {
        let mut inbox = Inbox::default();
        inbox.revive(None);
        inbox.append(Vec::new(), Vec::new(), &Ticket::new(0), Haste::Soon);
        assert_eq!(inbox.due, Due::Never);
    }

    #[test]
    fn what_somebody_waits_for_hastens_all() {
        let mut inbox = Inbox::default();
        take(&mut inbox, 1, Haste::Unhurried);
        take(&mut inbox, 2, Haste::Soon);
        take(&mut inbox, 3, Haste::Unhurried);
        assert_eq!(inbox.due, Due::Soon);
        assert_eq!(Work::of(&mut inbox).batch.appends.len(), 3);
        assert_eq!(inbox.due, Due::Never);
    }
}
