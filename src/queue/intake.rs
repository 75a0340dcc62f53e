//! Intake: how events get into the queue, and out again where the disk refuses them.
//!
//! Owns what is checked before, what is answered, and the order of the two records: the dispatcher's,
//! which makes an event due at once, and the journal's, which makes it a promise. Both are made under the
//! queue's lock, so that no event can be settled in the journal before it is there.

use std::num::NonZero;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, error};

use super::dispatcher::{Dispatcher, Limits};
use super::metrics::RefusalReason;
use super::shared::{Known, QueueState, Shared};
use super::slot::Slot;
use crate::event::{CallId, Event, EventId, EventType, Item, Origin};
use crate::journal::{DeadLetter, DiskError, Ticket};
use crate::routing::NoDecision;
use crate::time::unix_millis;

/// How many events are taken back before others have their turn: a fraction of a millisecond.
const TAKEN_BACK_AT_ONCE: usize = 100;

/// The most events of a call that are kept in memory while the disk fails; its end always has room.
const MOST_IN_MEMORY: usize = 1000;

/// Why events were not taken. None of a batch is, then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `QUEUE_LIMIT` is reached.
    #[error("the queue is full: QUEUE_LIMIT={limit} events wait for the receiver; try again later")]
    Full { limit: usize },
    /// `QUEUE_BYTES` is reached.
    #[error(
        "the queue is full: the events that wait for the receiver take QUEUE_BYTES={limit} bytes; try again later"
    )]
    FullOfBytes { limit: usize },
    /// More than ever find room came at once.
    #[error("{count} events at once exceed QUEUE_LIMIT={limit}; send fewer")]
    TooMany { count: usize, limit: usize },
    #[error("{0}; what was promised before is kept; try again later")]
    Disk(DiskError),
    #[error("callhook is stopping; try again in a moment")]
    Draining,
    /// Its sender would lose it: whoever knows the id takes it for the event before.
    #[error(
        "the id {id:?} (Idempotency-Key or webhook-id) was given to another event within the last hour; \
         each event needs an id of its own"
    )]
    KeyReused { id: String },
}

impl From<&Refused> for RefusalReason {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::Full { .. } | Refused::FullOfBytes { .. } | Refused::TooMany { .. } => {
                Self::Full
            }
            Refused::Disk(_) => Self::Disk,
            Refused::Draining => Self::Stopping,
            Refused::KeyReused { .. } => Self::KeyReused,
        }
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

/// What became of the events that were handed in, and the promises to keep them.
#[derive(Clone)]
pub struct Receipt {
    accepted: Vec<Accepted>,
    /// For the new ones, and for those that were given before.
    promises: Vec<Ticket>,
    shared: Arc<Shared>,
}

impl Receipt {
    /// For the same events, handed in once more; `None` if the disk did not take them.
    pub fn again(&self) -> Option<Self> {
        if self.promises.iter().any(|promise| promise.answered() == Some(false)) {
            return None;
        }
        self.shared.parts.metrics.events.repeated.inc_by(self.events() as u64);
        Some(self.clone())
    }

    pub fn events(&self) -> usize {
        self.accepted.len()
    }

    /// What became of each event, once every one is on disk or settled. They are under way before.
    ///
    /// # Errors
    /// [`Refused::Disk`] if the disk does not take them.
    pub async fn promised(self) -> Result<Vec<Accepted>, Refused> {
        for promise in &self.promises {
            if !promise.kept().await {
                return Err(Refused::Disk(self.shared.disk_error()));
            }
        }
        Ok(self.accepted)
    }
}

impl Shared {
    /// Takes events, all or none, in their order.
    pub fn take(self: &Arc<Self>, events: Vec<Event>) -> Result<Receipt, Refused> {
        let now = Instant::now();
        let mut state = self.lock();
        let is_new = |event: &&Event| {
            self.delivers(&event.kind) && state.known.get(&event.id, now).is_none()
        };
        check_ids(&state, &events, now)?;
        let sizes = events.iter().filter(is_new).map(|event| event.body.len());
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        self.check_room(&state, count, bytes)?;
        if count > 0
            && let Some(fault) = self.parts.journal.fault()
            && !goes_from_memory(&state, &events)
        {
            return Err(Refused::Disk(fault));
        }
        let mut accepted = Vec::with_capacity(events.len());
        let (mut items, mut given, mut promises) = (Vec::new(), Vec::new(), Vec::new());
        for event in events {
            let known = state.known.get(&event.id, now).filter(|_| self.delivers(&event.kind));
            if let Some(known) = known.cloned() {
                self.parts.metrics.events.repeated.inc();
                promises.extend(known.promise);
                accepted.push(Accepted { id: Some(event.id), slot: known.slot });
                continue;
            }
            let id = event.id.clone();
            let digest = matches!(id, EventId::Given(_)).then(|| event.digest());
            let Some((item, slot)) = self.take_one(&mut state, event, Origin::Relayed, now) else {
                accepted.push(Accepted { id: None, slot: None });
                continue;
            };
            if digest.is_some() {
                given.push((id.clone(), digest, slot.clone()));
            }
            items.push(item);
            accepted.push(Accepted { id: Some(id), slot });
        }
        let promise = self.parts.journal.put(items);
        let mut forgotten = Vec::new();
        for (id, digest, slot) in given {
            let known = Known { digest, slot, promise: Some(promise.clone()) };
            state.known.insert(id, known, now, |id, _| forgotten.push(id));
        }
        self.parts.journal.forget(forgotten);
        promises.push(promise);
        Ok(Receipt { accepted, promises, shared: Arc::clone(self) })
    }

    /// Takes the `call_initiated` of a call that is announced, whose decision is to be waited for; nobody is
    /// promised that it is kept. A disk that fails does not matter: it is asked from memory.
    pub fn take_question(&self, event: Event) -> Result<Slot, Refused> {
        let now = Instant::now();
        let mut state = self.lock();
        self.check_room(&state, 1, event.body.len())?;
        let Some((item, slot)) = self.take_one(&mut state, event, Origin::Bridged, now) else {
            // Where call_initiated is not delivered nobody will decide.
            return Ok(Slot::without_decision());
        };
        self.parts.journal.put_unhurried(item);
        Ok(slot.unwrap_or_else(Slot::without_decision))
    }

    /// Takes dead letters again, as far as there is room.
    pub fn take_again(&self, mut letters: Vec<DeadLetter>) -> Result<(usize, Ticket), Refused> {
        let now = Instant::now();
        let mut state = self.lock();
        self.check_room(&state, 1, 0)?;
        if let Some(fault) = self.parts.journal.fault() {
            return Err(Refused::Disk(fault));
        }
        letters.truncate(self.settings.main().limits.queue - state.dispatcher.unsettled());
        let items: Vec<(Item, u64)> = letters
            .into_iter()
            .map(|DeadLetter { item: dead, .. }| {
                let item = state.dispatcher.replay(dead.event, dead.sequence, now);
                self.parts.history.replayed(&item, dead.place);
                (item, dead.place)
            })
            .collect();
        let count = items.len();
        self.parts.metrics.events.replayed.inc_by(count as u64);
        Ok((count, self.parts.journal.replay(items)))
    }

    /// Takes what happened in a bridged call; returns what is to join its lane once it is on disk, and
    /// the promise for it. What finds no room becomes a dead letter, since nobody could send it again.
    pub fn take_bridged(&self, event: Event) -> Option<(Item, Ticket)> {
        let now = Instant::now();
        let mut state = self.lock();
        if !self.delivers(&event.kind) {
            self.parts.journal.note_bounds(&event);
            self.drop_event(event);
            return None;
        }
        self.parts.metrics.events.accepted.count((&event.kind).into());
        let journal = &self.parts.journal;
        let waits = event.kind.bounds_call() && journal.is_durable() && journal.fault().is_none();
        if journal.fault().is_some()
            && state.dispatcher.waiting_of(event.call) >= MOST_IN_MEMORY
            && event.kind != EventType::CallEnded
        {
            self.parts.metrics.events.refused.count(RefusalReason::Backlog);
            error!(uuid = %event.call, r#type = event.kind.name(), "an event is lost: the disk takes none");
            return None;
        }
        let full = !state.dispatcher.has_room_for(1, event.body.len());
        let event = Arc::new(event);
        let item = match waits || full {
            true => state.dispatcher.reserve(event, Origin::Bridged, now),
            false => state.dispatcher.accept(event, Origin::Bridged, None, now),
        };
        self.parts.history.accepted(&item);
        if full {
            drop(state);
            self.bury_unsent(item);
            return None;
        }
        let promise = journal.put(vec![item.clone()]);
        waits.then_some((item, promise))
    }

    /// Takes back what the disk refuses and is not on its way: it is not kept in memory either, as its
    /// sender is told so. What happened in bridged calls stays, and is tried again.
    pub async fn take_back(&self) {
        let refused = self.parts.journal.unwritten();
        // The last ones first, so that numbers within calls are given again.
        for some in refused.rchunks(TAKEN_BACK_AT_ONCE) {
            self.take_some_back(some);
            // Callers and their audio come first.
            tokio::task::yield_now().await;
        }
    }

    fn take_some_back(&self, items: &[Item]) {
        let now = Instant::now();
        let mut state = self.lock();
        for item in items.iter().rev().filter(|item| item.origin != Origin::Bridged) {
            self.take_one_back(&mut state, item, now);
        }
    }

    fn take_one_back(&self, state: &mut QueueState, item: &Item, now: Instant) {
        let event = &*item.event;
        let withdraw = || self.parts.journal.withdraw(item.place);
        let Some(queued) = state.dispatcher.withdraw(event.call, item.place, now, withdraw) else {
            return;
        };
        state.known.remove(&event.id);
        self.parts.metrics.events.refused.count(RefusalReason::Disk);
        self.parts.history.withdrawn(event.call, item.place);
        if let Some(slot) = queued.slot {
            slot.close(NoDecision::Refused);
        }
        if event.kind == EventType::CallInitiated {
            error!(uuid = %event.call, "call_initiated is lost: the journal cannot be written");
        }
    }

    /// Keeps a bridged call's event that finds no room.
    fn bury_unsent(&self, mut item: Item) {
        let now = unix_millis();
        let error = Refused::Full { limit: self.settings.main().limits.queue }.to_string();
        let event = Arc::clone(&item.event);
        error!(
            r#type = event.kind.name(),
            uuid = %event.call,
            id = %event.id,
            error,
            "event of a bridged call becomes a dead letter"
        );
        self.parts.metrics.events.dead.count((&event.kind).into());
        self.parts.history.died_unsent(event.call, item.place);
        self.parts.journal.note_bounds(&event);
        item.spent.first_failed_at = NonZero::new(now);
        let (status, code) = (None, "ERR_QUEUE_FULL".to_owned());
        // Nothing of its call waits for a letter that was never sent.
        self.parts.journal.died(DeadLetter {
            item,
            status,
            code,
            error,
            answer: None,
            last_at: now,
        });
    }

    fn delivers(&self, kind: &EventType) -> bool {
        self.parts.deliver.is_some() && self.settings.main().filter.admits(kind)
    }

    fn check_room(&self, state: &QueueState, count: usize, bytes: usize) -> Result<(), Refused> {
        let Limits { queue: limit, bytes: most_bytes, .. } = self.settings.main().limits;
        if state.draining {
            Err(Refused::Draining)
        } else if count > limit {
            Err(Refused::TooMany { count, limit })
        } else if !state.dispatcher.has_room_for(count, 0) {
            Err(Refused::Full { limit })
        } else if count > 0 && !state.dispatcher.has_room_for(count, bytes) {
            Err(Refused::FullOfBytes { limit: most_bytes })
        } else {
            Ok(())
        }
    }

    /// `None` for a type that is not delivered.
    fn take_one(
        &self,
        state: &mut QueueState,
        event: Event,
        origin: Origin,
        now: Instant,
    ) -> Option<(Item, Option<Slot>)> {
        if !self.delivers(&event.kind) {
            debug!(r#type = event.kind.name(), uuid = %event.call, "event of a type that is not delivered");
            self.drop_event(event);
            return None;
        }
        let routed = event.kind == EventType::CallInitiated;
        let waits = match origin {
            Origin::Relayed => self.settings.relay_timeout,
            Origin::Bridged | Origin::Replay => self.settings.main().limits.routing_timeout,
        };
        let slot = routed.then(|| open_slot(&state.dispatcher, event.call, now, now + waits));
        self.parts.metrics.events.accepted.count((&event.kind).into());
        let event = Arc::new(event);
        let item = state.dispatcher.accept(event, origin, slot.clone(), now);
        self.parts.history.accepted(&item);
        Some((item, slot))
    }

    fn drop_event(&self, event: Event) {
        self.parts.metrics.events.dropped.count((&event.kind).into());
        self.parts.history.dropped(event);
    }
}

/// Whether this can be taken while the disk fails: one event that is sent at once, so that its delivery is
/// the answer.
fn goes_from_memory(state: &QueueState, events: &[Event]) -> bool {
    match events {
        [event] => state.dispatcher.waiting_of(event.call) == 0 && state.dispatcher.sends_at_once(),
        _ => false,
    }
}

/// Whether each id that is known was given to this very event.
fn check_ids(state: &QueueState, events: &[Event], now: Instant) -> Result<(), Refused> {
    let is_another = |event: &&Event| {
        let known = state.known.get(&event.id, now).and_then(|known| known.digest);
        known.is_some_and(|digest| digest != event.digest())
    };
    match events.iter().find(is_another) {
        Some(event) => Err(Refused::KeyReused { id: event.id.to_string() }),
        None => Ok(()),
    }
}

fn open_slot(dispatcher: &Dispatcher, call: CallId, now: Instant, deadline: Instant) -> Slot {
    let slot = Slot::until(deadline);
    if let Some(why) = dispatcher.cannot_decide_by(deadline, call, now) {
        slot.close(why);
    }
    slot
}
