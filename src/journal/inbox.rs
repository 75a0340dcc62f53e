//! The inbox: what waits to be written, and what happens to it while a batch is under way.
//!
//! Invariant: an event that is settled before it is written is not written, and one that is settled
//! while it is being written is taken away by the next batch.

use std::collections::BTreeMap;

use super::store::Batch;
use super::{DeadLetter, DiskError, Entry, Ticket};

/// What waits to be written.
#[derive(Default)]
pub struct Inbox {
    /// Events, each with its promise.
    pub appends: BTreeMap<u64, (Entry, Ticket)>,
    /// Attempts spent on events, with the time of the first one.
    pub spent: BTreeMap<u64, (u32, u64)>,
    /// Events that were given up, with the promise that is still open.
    pub dead: BTreeMap<u64, (DeadLetter, Option<Ticket>)>,
    /// Everything that nobody waits for.
    pub rest: Batch,
    /// Why the last batch could not be written.
    pub failing: Option<DiskError>,
    /// Nothing more will come.
    pub closing: bool,
    /// Batches that the writer took, and those it is done with.
    pub taken: u64,
    pub done: u64,
}

impl Inbox {
    /// The event is settled: it need not be written, or must be taken away again.
    pub fn settle(&mut self, order: u64) -> Option<Ticket> {
        let Some((entry, ticket)) = self.appends.remove(&order) else {
            return self.take_away(order);
        };
        self.spent.remove(&order);
        self.rest.undead.extend(entry.replays);
        Some(ticket)
    }

    /// As if the event had never come; a dead letter that it was stays one.
    pub fn settle_as_gone(&mut self, order: u64) -> Option<Ticket> {
        let ticket = self.appends.remove(&order).map(|(_, ticket)| ticket);
        self.take_away(order);
        ticket
    }

    fn take_away(&mut self, order: u64) -> Option<Ticket> {
        self.spent.remove(&order);
        self.rest.gone.push(order);
        None
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Batch { appends, gone, spent, dead, undead, ids } = &self.rest;
        debug_assert!(appends.is_empty() && spent.is_empty() && dead.is_empty());
        self.appends.is_empty()
            && self.spent.is_empty()
            && self.dead.is_empty()
            && gone.is_empty()
            && undead.is_empty()
            && ids.is_empty()
    }
}

/// A batch under way, with those who wait for it.
pub struct Work {
    appends: BTreeMap<u64, (Entry, Ticket)>,
    spent: BTreeMap<u64, (u32, u64)>,
    dead: BTreeMap<u64, (DeadLetter, Option<Ticket>)>,
    /// What is written.
    pub batch: Batch,
}

impl Work {
    /// Takes everything that waits.
    pub fn of(inbox: &mut Inbox) -> Self {
        let appends = std::mem::take(&mut inbox.appends);
        let spent = std::mem::take(&mut inbox.spent);
        let dead = std::mem::take(&mut inbox.dead);
        let mut batch = std::mem::take(&mut inbox.rest);
        batch.appends = appends.values().map(|(entry, _)| entry.clone()).collect();
        batch.spent = spent.iter().map(|(order, (n, at))| (*order, *n, *at)).collect();
        batch.dead = dead.values().map(|(letter, _)| letter.clone()).collect();
        // A dead letter is replayed in the same transaction that keeps its event.
        let replayed = batch.appends.iter().filter_map(|entry| entry.replays);
        batch.undead.extend(replayed);
        Self { appends, spent, dead, batch }
    }

    /// It is written.
    pub fn keep(self) {
        let dead = self.dead.into_values().filter_map(|(_, ticket)| ticket);
        self.appends
            .into_values()
            .map(|(_, ticket)| ticket)
            .chain(dead)
            .for_each(|ticket| ticket.keep());
    }

    /// Puts everything back, to be tried again. What was settled meanwhile is taken away.
    pub fn put_back(self, inbox: &mut Inbox) {
        let replayed: Vec<u64> =
            self.appends.values().filter_map(|(entry, _)| entry.replays).collect();
        let settled = std::mem::take(&mut inbox.rest.gone);
        inbox.appends.extend(self.appends);
        for (order, spent) in self.spent {
            inbox.spent.entry(order).or_insert(spent);
        }
        inbox.dead.extend(self.dead);
        let rest = &mut inbox.rest;
        rest.gone.extend(self.batch.gone);
        rest.undead.extend(self.batch.undead.into_iter().filter(|order| !replayed.contains(order)));
        let newer = std::mem::take(&mut rest.ids);
        rest.ids = self.batch.ids.into_iter().chain(newer).collect();
        for order in settled {
            let Some(ticket) = inbox.settle(order) else { continue };
            match inbox.dead.get_mut(&order) {
                Some((_, waiting)) => *waiting = Some(ticket),
                None => ticket.keep(),
            }
            // The failed transaction may have reached the disk.
            inbox.rest.gone.push(order);
        }
    }
}
