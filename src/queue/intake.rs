//! Intake: how events get into the queue, and out again where the disk refuses them.
//!
//! Owns what is checked before, what is answered, and the order of the two records: the dispatcher's,
//! which makes an event due at once, and the journal's, which makes it a promise. Both are made under the
//! queue's lock, so that no event can be settled in the journal before it is there.
//!
//! An event becomes an item for each receiver that takes it, and all of them go into one transaction. The first item
//! answers for it, which is the main receiver's if that takes it: only its limits refuse, and a copy that finds no room
//! is a dead letter from the start.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, error};

use super::dispatcher::{Dispatcher, Limits};
use super::metrics::RefusalReason;
use super::shared::{Known, QueueState, ReceiverRules, Shared};
use super::slot::Slot;
use crate::event::{Event, EventId, EventType, Item, Origin, Share, Spent};
use crate::journal::{DeadLetter, DiskError, Ticket};
use crate::receiver::ReceiverId;
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

/// What is to be written of events that are being taken, in one transaction.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    /// What found no room, and is a dead letter from the start.
    unsent: Vec<DeadLetter>,
}

/// Why a receiver gets no item of an event.
enum NoRoom {
    /// Its queue is full: the event is a dead letter of it.
    InQueue(Refused),
    /// The disk takes none, and what can be kept in memory is there already: it never gets it.
    InMemory,
}

/// What may be taken back as long as it is not on disk.
struct Refusable {
    item: Item,
    /// It is a dead letter from the start, and not in the dispatcher.
    unsent: bool,
}

impl Shared {
    /// Takes events, all or none, in their order.
    pub fn take(self: &Arc<Self>, events: Vec<Event>) -> Result<Receipt, Refused> {
        let now = Instant::now();
        let mut state = self.lock();
        check_ids(&state, &events, now)?;
        let is_new = |event: &&Event| {
            self.is_taken(&event.kind) && state.known.get(&event.id, now).is_none()
        };
        self.check_room(&state, events.iter().filter(is_new))?;
        if let Some(fault) = self.parts.journal.fault()
            && events.iter().any(|event| is_new(&event))
            && !self.goes_from_memory(&state, &events)
        {
            return Err(Refused::Disk(fault));
        }
        let mut accepted = Vec::with_capacity(events.len());
        let (mut batch, mut given, mut promises) = (Batch::default(), Vec::new(), Vec::new());
        for event in events {
            let known = state.known.get(&event.id, now).filter(|_| self.is_taken(&event.kind));
            if let Some(known) = known.cloned() {
                self.parts.metrics.events.repeated.inc();
                promises.extend(known.promise);
                accepted.push(Accepted { id: Some(event.id), slot: known.slot });
                continue;
            }
            let id = event.id.clone();
            let digest = matches!(id, EventId::Given(_)).then(|| event.digest());
            let taken = self.take_one(&mut state, event, Origin::Relayed, &mut batch, now);
            let Some(slot) = taken else {
                accepted.push(Accepted { id: None, slot: None });
                continue;
            };
            if digest.is_some() {
                given.push((id.clone(), digest, slot.clone()));
            }
            accepted.push(Accepted { id: Some(id), slot });
        }
        let promise = self.parts.journal.put(batch.items, batch.unsent);
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
        self.check_room(&state, [&event])?;
        let mut batch = Batch::default();
        let slot = self.take_one(&mut state, event, Origin::Bridged, &mut batch, now);
        self.parts.journal.put_unhurried(batch.items, batch.unsent);
        // Where call_initiated is not delivered nobody will decide.
        Ok(slot.flatten().unwrap_or_else(Slot::without_decision))
    }

    /// Takes dead letters of a receiver again, as far as there is room.
    pub fn take_again(
        &self,
        receiver: ReceiverId,
        letters: Vec<DeadLetter>,
    ) -> Result<(usize, Ticket), Refused> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.draining {
            return Err(Refused::Draining);
        }
        if let Some(fault) = self.parts.journal.fault() {
            return Err(Refused::Disk(fault));
        }
        let limits = self.settings.of(receiver).limits;
        let mut items = Vec::with_capacity(letters.len());
        for DeadLetter { item: dead, .. } in letters {
            match fullness(state.of(receiver), limits, 1, dead.event.body.len()) {
                Some(full) if items.is_empty() => return Err(full),
                Some(_) => break,
                None => {}
            }
            let (share, spent) = (own_share(receiver), Spent::default());
            let place = state.take_place();
            let item = Item { place, share, spent, origin: Origin::Replay, ..dead };
            state.of(receiver).restore(item.clone(), now, now);
            self.parts.history.replayed(&item, dead.place);
            items.push((item, dead.place));
        }
        let count = items.len();
        self.parts.metrics.of(receiver).replayed.inc_by(count as u64);
        Ok((count, self.parts.journal.replay(items)))
    }

    /// Takes what happened in a bridged call; returns what is to join its lanes once it is on disk, and
    /// the promise for it. What finds no room becomes a dead letter, since nobody could send it again.
    pub fn take_bridged(&self, event: Event) -> Option<(Vec<Item>, Ticket)> {
        let now = Instant::now();
        let mut state = self.lock();
        if !self.is_taken(&event.kind) {
            self.parts.journal.note_bounds(&event);
            self.drop_event(event);
            return None;
        }
        self.parts.metrics.events.accepted.count((&event.kind).into());
        let journal = &self.parts.journal;
        let waits = event.kind.bounds_call() && journal.is_durable() && journal.fault().is_none();
        let (event, mut batch) = (Arc::new(event), Batch::default());
        for mut item in self.items(&mut state, &event, Origin::Bridged) {
            if let Some(lack) = self.lack_of_room(&mut state, &item) {
                self.turn_away(&mut state, item, lack, &mut batch, now);
                continue;
            }
            match waits {
                true => state.of(item.receiver).reserve(&mut item, now),
                false => state.of(item.receiver).accept(&mut item, None, now),
            }
            self.parts.history.accepted(&item);
            batch.items.push(item);
        }
        let joining = if waits { batch.items.clone() } else { Vec::new() };
        let promise = journal.put(batch.items, batch.unsent);
        waits.then_some((joining, promise))
    }

    /// Takes back what the disk refuses and is not on its way: it is not kept in memory either, as its
    /// sender is told so. What happened in bridged calls stays, and is tried again.
    pub async fn take_back(&self) {
        let journal = &self.parts.journal;
        let waiting = journal.unwritten().into_iter().map(|item| Refusable { item, unsent: false });
        let unsent = journal.unsent().into_iter().map(|item| Refusable { item, unsent: true });
        let mut refused: Vec<Refusable> = waiting.chain(unsent).collect();
        refused.sort_unstable_by_key(|refusable| refusable.item.place);
        // The last ones first, so that numbers within calls are given again.
        let mut left = refused.len();
        while left > 0 {
            let begin = left.saturating_sub(TAKEN_BACK_AT_ONCE);
            self.take_some_back(&refused, begin..left);
            left = begin;
            // Callers and their audio come first.
            tokio::task::yield_now().await;
        }
    }

    /// Those in the range, each with its copies, which are right behind it.
    fn take_some_back(&self, items: &[Refusable], range: Range<usize>) {
        let now = Instant::now();
        let mut state = self.lock();
        for at in range.rev() {
            let item = &items[at].item;
            if matches!(item.origin, Origin::Bridged | Origin::Copy)
                || !self.take_one_back(&mut state, &items[at], now)
            {
                continue;
            }
            let copies = items[at + 1..].iter().take_while(|Refusable { item: copy, .. }| {
                copy.origin == Origin::Copy && copy.shared_at() == item.shared_at()
            });
            for copy in copies {
                self.take_one_back(&mut state, copy, now);
            }
        }
    }

    /// `false` where it is on its way, or on disk after all.
    fn take_one_back(&self, state: &mut QueueState, refusable: &Refusable, now: Instant) -> bool {
        let Refusable { item, unsent } = refusable;
        let event = &*item.event;
        let withdraw = || self.parts.journal.withdraw(item.place);
        let slot = if *unsent {
            if !withdraw() {
                return false;
            }
            None
        } else {
            let dispatcher = state.of(item.receiver);
            let Some(queued) = dispatcher.withdraw(event.call, item.place, now, withdraw) else {
                return false;
            };
            queued.slot
        };
        self.parts.history.withdrawn(event.call, item.place);
        if item.origin == Origin::Copy {
            return true;
        }
        state.known.remove(&event.id);
        self.parts.metrics.events.refused.count(RefusalReason::Disk);
        if let Some(slot) = slot {
            slot.close(NoDecision::Refused);
        }
        if event.kind == EventType::CallInitiated {
            error!(uuid = %event.call, "call_initiated is lost: the journal cannot be written");
        }
        true
    }

    /// Whether any receiver takes events of the type.
    fn is_taken(&self, kind: &EventType) -> bool {
        self.takers(kind).next().is_some()
    }

    /// The receivers that take events of the type.
    fn takers<'a>(&'a self, kind: &'a EventType) -> impl Iterator<Item = ReceiverId> + use<'a> {
        let receivers = self.parts.journal.receivers().iter().zip(&self.settings.receivers);
        let takes = |rules: &ReceiverRules, id: ReceiverId| {
            self.parts.deliver[id.index()].is_some() && rules.filter.admits(kind)
        };
        receivers.filter(move |((id, _), rules)| takes(rules, *id)).map(|((id, _), _)| id)
    }

    fn check_room<'e>(
        &self,
        state: &QueueState,
        events: impl IntoIterator<Item = &'e Event>,
    ) -> Result<(), Refused> {
        let limits = self.settings.main().limits;
        let is_main = |event: &&Event| self.takers(&event.kind).next() == Some(ReceiverId::MAIN);
        let sizes = events.into_iter().filter(is_main).map(|event| event.body.len());
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        if state.draining {
            Err(Refused::Draining)
        } else if count > limits.queue {
            Err(Refused::TooMany { count, limit: limits.queue })
        } else if count > 0
            && let Some(full) = fullness(state.main(), limits, count, bytes)
        {
            Err(full)
        } else {
            Ok(())
        }
    }

    /// Whether this can be taken while the disk fails: one event that is sent to the main receiver at once, so that its
    /// delivery is the answer.
    fn goes_from_memory(&self, state: &QueueState, events: &[Event]) -> bool {
        let main = state.main();
        match events {
            [event] => {
                self.takers(&event.kind).next() == Some(ReceiverId::MAIN)
                    && main.waiting_of(event.call) == 0
                    && main.sends_at_once()
            }
            _ => false,
        }
    }

    /// Returns where the decision will be found, for `call_initiated`; `None` for a type that nobody takes. The main
    /// receiver has room for it.
    fn take_one(
        &self,
        state: &mut QueueState,
        event: Event,
        origin: Origin,
        batch: &mut Batch,
        now: Instant,
    ) -> Option<Option<Slot>> {
        if !self.is_taken(&event.kind) {
            debug!(r#type = event.kind.name(), uuid = %event.call, "event of a type that is not delivered");
            self.drop_event(event);
            return None;
        }
        self.parts.metrics.events.accepted.count((&event.kind).into());
        let slot = (event.kind == EventType::CallInitiated)
            .then(|| self.open_slot(state.main(), &event, origin, now));
        let event = Arc::new(event);
        for mut item in self.items(state, &event, origin) {
            let is_main = item.receiver == ReceiverId::MAIN;
            if !is_main && let Some(lack) = self.lack_of_room(state, &item) {
                self.turn_away(state, item, lack, batch, now);
                continue;
            }
            let slot = slot.clone().filter(|_| is_main);
            state.of(item.receiver).accept(&mut item, slot, now);
            self.parts.history.accepted(&item);
            batch.items.push(item);
        }
        Some(slot)
    }

    /// An item for each receiver that takes the event, not numbered yet. The first one answers for it.
    fn items(&self, state: &mut QueueState, event: &Arc<Event>, origin: Origin) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        for receiver in self.takers(&event.kind) {
            let origin = if items.is_empty() { origin } else { Origin::Copy };
            let item = Item::new(Arc::clone(event), state.take_place(), origin);
            items.push(Item { receiver, share: own_share(receiver), ..item });
        }
        if items.len() > 1 {
            for (nth, item) in (0..).zip(&mut items) {
                item.share = Share::Nth(nth);
            }
        }
        items
    }

    /// Why the receiver cannot take an item, if so.
    fn lack_of_room(&self, state: &mut QueueState, item: &Item) -> Option<NoRoom> {
        let (event, is_failing) = (&item.event, self.parts.journal.fault().is_some());
        let dispatcher = state.of(item.receiver);
        let is_backlog = is_failing
            && dispatcher.waiting_of(event.call) >= MOST_IN_MEMORY
            && event.kind != EventType::CallEnded;
        let limits = self.settings.of(item.receiver).limits;
        let full = fullness(dispatcher, limits, 1, event.body.len());
        // A copy's dead letter would wait in memory for a disk that takes none.
        let can_bury = || item.receiver == ReceiverId::MAIN || self.parts.journal.can_bury();
        match full {
            None if !is_backlog => None,
            Some(full) if !is_backlog && can_bury() => Some(NoRoom::InQueue(full)),
            Some(_) | None => Some(NoRoom::InMemory),
        }
    }

    /// Numbers an item that its receiver cannot take, so that it sees a gap.
    fn turn_away(
        &self,
        state: &mut QueueState,
        mut item: Item,
        lack: NoRoom,
        batch: &mut Batch,
        now: Instant,
    ) {
        state.of(item.receiver).reserve(&mut item, now);
        self.tell_turned_away(&item, &lack);
        let (event, metrics) = (&item.event, self.parts.metrics.of(item.receiver));
        match lack {
            NoRoom::InQueue(full) => {
                metrics.dead.count((&event.kind).into());
                self.parts.history.accepted(&item);
                self.parts.history.died_unsent(event.call, item.place);
                batch.unsent.push(unsent(item, &full));
            }
            NoRoom::InMemory => {
                metrics.missed.inc();
                if item.origin == Origin::Bridged {
                    self.parts.journal.note_bounds(event);
                }
            }
        }
    }

    fn tell_turned_away(&self, item: &Item, lack: &NoRoom) {
        let (event, kind) = (&item.event, item.event.kind.name());
        match lack {
            _ if item.receiver != ReceiverId::MAIN => {
                let ReceiverRules { name, limits, .. } = self.settings.of(item.receiver);
                let is_kept = matches!(lack, NoRoom::InQueue(_));
                self.full_copies.note(item.receiver, name, limits.queue, is_kept);
            }
            NoRoom::InQueue(error) => error!(
                r#type = kind,
                uuid = %event.call,
                id = %event.id,
                %error,
                "event of a bridged call becomes a dead letter"
            ),
            NoRoom::InMemory => {
                self.parts.metrics.events.refused.count(RefusalReason::Backlog);
                error!(uuid = %event.call, r#type = kind, "an event is lost: the disk takes none");
            }
        }
    }

    fn drop_event(&self, event: Event) {
        self.parts.metrics.events.dropped.count((&event.kind).into());
        self.parts.history.dropped(event);
    }

    fn open_slot(&self, main: &Dispatcher, event: &Event, origin: Origin, now: Instant) -> Slot {
        if self.takers(&event.kind).next() != Some(ReceiverId::MAIN) {
            return Slot::without_decision();
        }
        let deadline = now
            + match origin {
                Origin::Relayed | Origin::Copy => self.settings.relay_timeout,
                Origin::Bridged | Origin::Replay => self.settings.main().limits.routing_timeout,
            };
        let slot = Slot::until(deadline);
        if let Some(why) = main.cannot_decide_by(deadline, event.call, now) {
            slot.close(why);
        }
        slot
    }
}

/// Which limit leaves no room for so many events more, with so many bytes.
fn fullness(
    dispatcher: &Dispatcher,
    limits: Limits,
    events: usize,
    bytes: usize,
) -> Option<Refused> {
    if !dispatcher.has_room_for(events, 0) {
        Some(Refused::Full { limit: limits.queue })
    } else if !dispatcher.has_room_for(events, bytes) {
        Some(Refused::FullOfBytes { limit: limits.bytes })
    } else {
        None
    }
}

/// The dead letter of an event that was never sent.
fn unsent(mut item: Item, why: &Refused) -> DeadLetter {
    let now = unix_millis();
    item.spent.first_failed_at = NonZero::new(now);
    let (code, error) = ("ERR_QUEUE_FULL".to_owned(), why.to_string());
    DeadLetter { item, status: None, code, error, answer: None, last_at: now }
}

/// Of an event that goes to this receiver alone.
fn own_share(receiver: ReceiverId) -> Share {
    if receiver == ReceiverId::MAIN { Share::Own } else { Share::Nth(0) }
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
