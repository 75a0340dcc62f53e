//! Intake: how events get into the queue.
//!
//! Owns what is checked before, what is answered, and the order of the two records: the dispatcher's,
//! which makes an event due at once, and the journal's, which makes it a promise.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, error};

use super::dispatcher::Dispatcher;
use super::slot::Slot;
use super::window::Known;
use super::{Inner, Queue, Refused, Shared};
use crate::event::{Event, EventId, EventType};
use crate::journal::{DeadLetter, Entry, Haste, KnownId, LiveCall, Mark, Ticket};
use crate::time::unix_millis;

/// What became of the events that were handed in, and the promise to keep them.
pub struct Receipt {
    pub(super) taken: Taken,
    pub(super) queue: Queue,
}

/// What was taken.
pub(super) struct Taken {
    pub accepted: Vec<Accepted>,
    /// The promise for the new ones.
    ticket: Ticket,
    /// The promises for those that were given before.
    earlier: Vec<Ticket>,
}

impl Receipt {
    /// What became of each event, once every one is on disk or settled. They are under way before.
    ///
    /// # Errors
    /// [`Refused::Disk`] if the disk does not take them.
    pub async fn promised(self) -> Result<Vec<Accepted>, Refused> {
        let Taken { accepted, ticket, earlier } = self.taken;
        for ticket in earlier.iter().chain([&ticket]) {
            if !ticket.kept().await {
                return Err(Refused::Disk(self.queue.0.disk_error()));
            }
        }
        Ok(accepted)
    }
}

/// What became of an event that was handed in.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its id; `None` for a type that is not delivered.
    pub id: Option<EventId>,
    /// Where its decision is found, for `call_initiated`.
    pub slot: Option<Slot>,
}

/// What is being made of the events that came in together.
struct Intake {
    taken: Taken,
    entries: Vec<Entry>,
    ids: Vec<KnownId>,
}

impl Inner {
    /// Takes events, all or none.
    pub(super) fn take(&self, events: Vec<Event>, haste: Haste) -> Result<Taken, Refused> {
        let now = Instant::now();
        let mut shared = self.lock();
        let (mut news, mut given) = (0, 0);
        for event in &events {
            if self.delivers(&event.kind) && shared.window.find(&event.id, now).is_none() {
                news += 1;
                given += usize::from(matches!(event.id, EventId::Given(_)));
            }
        }
        self.check_room(&shared, news)?;
        let ticket = self.journal.ticket(news, given);
        let accepted = Vec::with_capacity(events.len());
        let mut intake = Intake {
            taken: Taken { accepted, ticket, earlier: Vec::new() },
            entries: Vec::with_capacity(news),
            ids: Vec::new(),
        };
        for event in events {
            self.take_one(&mut shared, event, now, &mut intake);
        }
        // Under the lock, so that no event can be settled in the journal before it is there.
        let Intake { taken, entries, ids } = intake;
        self.journal.append(entries, ids, &taken.ticket, haste);
        self.journal.forget(shared.window.take_forgotten());
        Ok(taken)
    }

    /// Takes dead letters again, as far as there is room.
    pub(super) fn take_again(
        &self,
        mut letters: Vec<DeadLetter>,
    ) -> Result<(usize, Ticket), Refused> {
        let now = Instant::now();
        let mut shared = self.lock();
        self.check_room(&shared, 1)?;
        letters.truncate(self.settings.limits.queue - shared.dispatcher.unsettled());
        let ticket = self.journal.ticket(letters.len(), 0);
        let entries: Vec<Entry> = letters
            .into_iter()
            .map(|DeadLetter { order: dead, sequence, event, .. }| {
                let order = shared.dispatcher.replay(Arc::clone(&event), sequence, now);
                self.history.replayed(&event, dead, order, sequence);
                let (spent, first_at, replays, bridged) = (0, 0, Some(dead), false);
                Entry { order, sequence, spent, first_at, event, replays, bridged }
            })
            .collect();
        let count = entries.len();
        self.metrics.events.replayed.inc_by(count as u64);
        self.journal.append(entries, Vec::new(), &ticket, Haste::Soon);
        Ok((count, ticket))
    }

    /// Takes what happened in a bridged call; returns what is to join its lane once it is on disk, and
    /// the promise for it. What finds no room becomes a dead letter, since nobody could send it again.
    pub(super) fn take_bridged(&self, event: Event) -> Option<(Entry, Ticket)> {
        let now = Instant::now();
        let mut shared = self.lock();
        let mark = mark_of(&event);
        if !self.delivers(&event.kind) {
            self.metrics.events.dropped.count((&event.kind).into());
            self.history.dropped(event);
            self.journal.record(None, mark, &self.journal.ticket(0, 0));
            return None;
        }
        self.metrics.events.accepted.count((&event.kind).into());
        let event = Arc::new(event);
        let waits = mark.is_some() && self.journal.is_durable() && self.journal.fault().is_none();
        let full = !shared.dispatcher.has_room_for(1);
        let (order, sequence) = if waits || full {
            shared.dispatcher.reserve(event.call, now)
        } else {
            shared.dispatcher.accept(Arc::clone(&event), None, now)
        };
        self.history.accepted(&event, order, sequence);
        let entry =
            Entry { order, sequence, spent: 0, first_at: 0, event, replays: None, bridged: true };
        if full {
            drop(shared);
            self.bury_unsent(&entry, mark);
            return None;
        }
        let ticket = self.journal.ticket(1, 0);
        self.journal.record(Some(entry.clone()), mark, &ticket);
        waits.then_some((entry, ticket))
    }

    /// Keeps a bridged call's event that finds no room.
    fn bury_unsent(&self, entry: &Entry, mark: Option<Mark>) {
        let now = unix_millis();
        let error = Refused::Full { limit: self.settings.limits.queue }.to_string();
        error!(
            r#type = entry.event.kind.name(),
            uuid = %entry.event.call,
            id = %entry.event.id,
            error,
            "event of a bridged call becomes a dead letter"
        );
        self.metrics.events.dead.count((&entry.event.kind).into());
        self.history.died_unsent(entry.event.call, entry.order);
        self.journal.record(None, mark, &self.journal.ticket(0, 0));
        // Nothing of its call waits for a letter that was never sent.
        self.journal.died(DeadLetter {
            order: entry.order,
            sequence: entry.sequence,
            event: Arc::clone(&entry.event),
            attempts: 0,
            status: None,
            code: "ERR_QUEUE_FULL".to_owned(),
            error,
            first_at: now,
            last_at: now,
        });
    }

    fn delivers(&self, kind: &EventType) -> bool {
        self.deliver.is_some() && self.settings.filter.admits(kind)
    }

    fn check_room(&self, shared: &Shared, count: usize) -> Result<(), Refused> {
        let limit = self.settings.limits.queue;
        if shared.draining {
            Err(Refused::Draining)
        } else if let Some(fault) = self.journal.fault().filter(|_| count > 0) {
            Err(Refused::Disk(fault))
        } else if count > limit {
            Err(Refused::TooMany { count, limit })
        } else if !shared.dispatcher.has_room_for(count) {
            Err(Refused::Full { limit })
        } else {
            Ok(())
        }
    }

    fn take_one(&self, shared: &mut Shared, event: Event, now: Instant, intake: &mut Intake) {
        if !self.delivers(&event.kind) {
            debug!(r#type = event.kind.name(), uuid = %event.call, "event of a type that is not delivered");
            self.metrics.events.dropped.count((&event.kind).into());
            self.history.dropped(event);
            intake.taken.accepted.push(Accepted { id: None, slot: None });
            return;
        }
        let id = Some(event.id.clone());
        if let Some(known) = shared.window.find(&event.id, now) {
            self.metrics.events.repeated.inc();
            intake.taken.earlier.extend(known.ticket);
            intake.taken.accepted.push(Accepted { id, slot: known.slot });
            return;
        }
        let routed = event.kind == EventType::CallInitiated;
        let slot = routed.then(|| self.open_slot(&shared.dispatcher, now));
        if matches!(event.id, EventId::Given(_)) {
            let known = Known { slot: slot.clone(), ticket: Some(intake.taken.ticket.clone()) };
            shared.window.remember(event.id.clone(), known, now);
            intake.ids.push(KnownId { id: event.id.clone(), at: unix_millis(), decision: None });
        }
        self.metrics.events.accepted.count((&event.kind).into());
        let event = Arc::new(event);
        let (order, sequence) = shared.dispatcher.accept(Arc::clone(&event), slot.clone(), now);
        self.history.accepted(&event, order, sequence);
        let entry =
            Entry { order, sequence, spent: 0, first_at: 0, event, replays: None, bridged: false };
        intake.entries.push(entry);
        intake.taken.accepted.push(Accepted { id, slot });
    }

    fn open_slot(&self, dispatcher: &Dispatcher, now: Instant) -> Slot {
        let deadline = now + self.settings.routing_timeout;
        let slot = Slot::until(deadline);
        if let Some(why) = dispatcher.cannot_decide_by(deadline) {
            slot.close(why);
        }
        slot
    }
}

/// What the journal remembers of a bridged call with this event: that it began, or ended.
fn mark_of(event: &Event) -> Option<Mark> {
    match event.kind {
        EventType::CallStarted => {
            Some(Mark::Live(LiveCall { call: event.call, since: unix_millis() }))
        }
        EventType::CallEnded => Some(Mark::Over(event.call)),
        EventType::CallInitiated
        | EventType::Transcription
        | EventType::Interruption
        | EventType::DtmfDigit
        | EventType::Error
        | EventType::Other(_) => None,
    }
}
