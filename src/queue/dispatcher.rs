//! Dispatcher: what is due?
//!
//! Owns all lanes, the order in which their front events go, and what an outcome means for an
//! event. Pure: time is an argument, sending and logging are left to [`super::Queue`]. Public for
//! `benches/hot.rs` alone, which measures it without the tasks around it.
//!
//! Invariants:
//! - One attempt per call, at most `concurrency` in all. Among lanes that are ready those for whose
//!   decision a caller waits go first, and then the one with the oldest front event: a backlog
//!   must not make new callers wait.
//! - While the receiver is down only probes go, one at a time, and what they find costs the event
//!   no attempt. While it is paused nothing goes.
//! - An event leaves only as delivered, given up or withdrawn; each frees its room under `limit`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ages::Ages;
use super::breaker::{Breaker, BreakerSign, BreakerState, ReceiverChange, RoutingBreaker};
use super::lane::{Lane, LaneState, LaneStep, Queued};
use super::slot::Slot;
use super::status::{QueueStatus, ReceiverStatus};
use crate::attempt::{Attempt, Failure};
use crate::event::{CallId, Event, EventType, Item, Origin, Spent};
use crate::expiring::Expiring;
use crate::retry::RetryPolicy;
use crate::routing::NoDecision;

/// How long the numbering of a call without events is kept: longer than calls stay silent.
const NUMBERING_KEPT: Duration = Duration::from_secs(4 * 60 * 60);

/// The most calls without events whose numbering is kept, the longest silent forgotten first.
/// At under 128 bytes each that is 13 MB.
const MOST_NUMBERINGS: usize = 100_000;

/// The numbers that a dispatcher works with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts in flight in all (`WEBHOOK_CONCURRENCY`).
    pub concurrency: usize,
    /// Events accepted and not yet settled (`QUEUE_LIMIT`).
    pub queue: usize,
    /// Failures in a row after which the receiver counts as down, or its routing as broken
    /// (`WEBHOOK_BREAKER`); 0 = never.
    pub breaker: u32,
}

/// What becomes of an item after a failed attempt.
#[derive(Debug)]
pub enum AfterFailure {
    /// It is tried again, and nothing was spent on it.
    Unspent,
    /// It is tried again; this attempt counts.
    Retry(Item),
    /// It is refused, or out of attempts. It holds its lane until [`Dispatcher::settle`].
    GivenUp(Item),
}

/// All lanes, and the state of the receiver.
#[derive(Debug)]
pub struct Dispatcher {
    limits: Limits,
    policy: RetryPolicy,
    /// Of the calls with events.
    lanes: HashMap<CallId, Lane>,
    /// The last sequence of calls without events.
    numbering: Expiring<CallId, u64>,
    /// Lanes whose front event may go, by its place: those that a caller waits for, and the others.
    awaited: BTreeMap<u64, CallId>,
    ready: BTreeMap<u64, CallId>,
    /// Lanes whose front event waits for its next attempt, by its time and place.
    held: BTreeMap<(Instant, u64), CallId>,
    breaker: Breaker,
    routing: RoutingBreaker,
    paused_until: Option<Instant>,
    ages: Ages,
    in_flight: usize,
    unsettled: usize,
    next_place: u64,
    stopped: bool,
}

impl Dispatcher {
    /// Without any event.
    pub fn new(limits: Limits, policy: RetryPolicy) -> Self {
        Self {
            limits,
            policy,
            lanes: HashMap::new(),
            numbering: Expiring::new(NUMBERING_KEPT, MOST_NUMBERINGS),
            awaited: BTreeMap::new(),
            ready: BTreeMap::new(),
            held: BTreeMap::new(),
            breaker: Breaker::new(limits.breaker),
            routing: RoutingBreaker::new(limits.breaker),
            paused_until: None,
            ages: Ages::default(),
            in_flight: 0,
            unsettled: 0,
            next_place: 0,
            stopped: false,
        }
    }

    /// Whether so many events more find room.
    pub fn has_room_for(&self, events: usize) -> bool {
        self.unsettled + events <= self.limits.queue
    }

    /// Events accepted and not yet settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Why nobody need wait for a decision until then, if so: nobody is there, the
    /// receiver's routing is broken, or the receiver asked to be left alone for longer.
    pub fn cannot_decide_by(&self, deadline: Instant) -> Option<NoDecision> {
        let paused = self.paused_until.is_some_and(|until| until > deadline);
        if self.breaker.is_down() {
            Some(NoDecision::ReceiverDown)
        } else if self.routing.is_open() {
            Some(NoDecision::RoutingBroken)
        } else {
            paused.then_some(NoDecision::ReceiverPaused)
        }
    }

    /// Takes a new event into its call's lane.
    pub fn accept(
        &mut self,
        event: Arc<Event>,
        origin: Origin,
        slot: Option<Slot>,
        now: Instant,
    ) -> Item {
        let call = event.call;
        let place = self.take_place();
        let lane = self.lane(call, now);
        let item = new_item(event, place, lane.next_sequence(), origin);
        self.join(Queued { item: item.clone(), slot }, now, now);
        item
    }

    /// Gives a new event its place and sequence; it joins later ([`Dispatcher::restore`]) or never.
    pub fn reserve(&mut self, event: Arc<Event>, origin: Origin, now: Instant) -> Item {
        let call = event.call;
        let place = self.take_place();
        let sequence = match self.lanes.get_mut(&call) {
            Some(lane) => lane.next_sequence(),
            None => {
                let next = self.numbering.get(&call, now).map_or(1, |last| last + 1);
                self.numbering.insert(call, next, now, |_, _| {});
                next
            }
        };
        new_item(event, place, sequence, origin)
    }

    /// Takes an event again that was given up, with its sequence of then.
    pub fn replay(&mut self, event: Arc<Event>, sequence: u64, now: Instant) -> Item {
        let item = new_item(event, self.take_place(), sequence, Origin::Replay);
        self.join(Queued { item: item.clone(), slot: None }, now, now);
        item
    }

    /// Takes an item that has its place already and was accepted then. They come in the order of their
    /// places.
    pub fn restore(&mut self, item: Item, since: Instant, now: Instant) {
        self.join(Queued { item, slot: None }, since, now);
    }

    /// The place that the next event gets.
    pub fn next_place(&self) -> u64 {
        self.next_place
    }

    /// Sets the place that the next event gets.
    pub fn continue_from(&mut self, place: u64) {
        self.next_place = place;
    }

    /// Takes an item away that is not on its way and shall not be sent, if `confirm` agrees.
    pub fn withdraw(
        &mut self,
        call: CallId,
        place: u64,
        now: Instant,
        confirm: impl FnOnce() -> bool,
    ) -> Option<Queued> {
        let lane = self.lanes.get_mut(&call)?;
        if lane.is_sending(place) || !confirm() {
            return None;
        }
        let before = lane.state();
        let (withdrawn, was_front) = lane.withdraw(place)?;
        self.ages.remove(place);
        self.unsettled -= 1;
        if was_front {
            self.awaited.remove(&place);
            self.ready.remove(&place);
            if let LaneState::Held(at) = before {
                self.held.remove(&(at, place));
            }
            self.go_on(call, now);
        }
        Some(withdrawn)
    }

    /// Nothing more is sent; what is on its way may end.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }

    /// The next attempt that is due, if any.
    pub fn next(&mut self, now: Instant) -> Option<Attempt> {
        self.release(now);
        if self.stopped || self.in_flight >= self.limits.concurrency || self.is_paused(now) {
            return None;
        }
        let probe = match self.breaker.state() {
            BreakerState::Up { .. } => false,
            BreakerState::Down { probe_at, .. } if probe_at <= now => true,
            BreakerState::Down { .. } | BreakerState::Probing { .. } => return None,
        };
        let call = if probe { self.pop_oldest() } else { self.pop_most_urgent(now) }?;
        if probe {
            self.breaker.note(BreakerSign::ProbeSent, now);
        }
        self.in_flight += 1;
        let lane = self.lane_mut(call);
        lane.step(LaneStep::Sent);
        Some(Attempt { item: lane.front().item.clone(), probe })
    }

    /// When [`Dispatcher::next`] may have something that it has not now, if time alone brings it.
    pub fn wake_at(&self) -> Option<Instant> {
        let release = self.held.first_key_value().map(|((at, _), _)| *at);
        let waiting_for_receiver = match self.breaker.state() {
            BreakerState::Up { .. } => self.paused_until,
            BreakerState::Down { probe_at, .. } => {
                Some(self.paused_until.map_or(probe_at, |until| until.max(probe_at)))
            }
            BreakerState::Probing { .. } => None,
        };
        let any_ready = !self.ready.is_empty() || !self.awaited.is_empty();
        let blocked = waiting_for_receiver.filter(|_| any_ready);
        release.into_iter().chain(blocked).min()
    }

    /// Takes note of a delivered attempt; returns where its decision goes. The event holds its lane
    /// until [`Dispatcher::settle`].
    pub fn delivered(
        &mut self,
        sent: &Attempt,
        now: Instant,
    ) -> (Option<Slot>, Vec<ReceiverChange>) {
        self.in_flight -= 1;
        let event = &sent.item.event;
        let works = event.kind == EventType::CallInitiated && self.routing.note_success();
        let back = self.breaker.note(BreakerSign::Answered, now);
        let changes = back.into_iter().chain(works.then_some(ReceiverChange::RoutingWorks));
        let changes = changes.collect();
        (self.lane_mut(event.call).front().slot.clone(), changes)
    }

    /// Takes note of a failed attempt. `unix_millis` is now, too, as people read it.
    pub fn failed(
        &mut self,
        sent: &Attempt,
        failure: &Failure,
        now: Instant,
        unix_millis: u64,
    ) -> (AfterFailure, Vec<ReceiverChange>) {
        self.in_flight -= 1;
        let was_down = self.breaker.is_down();
        let mut changes = Vec::new();
        self.note_first_failure(sent, unix_millis, &mut changes);
        self.note_failure(sent, failure, now, &mut changes);
        let call = sent.item.event.call;
        let spared = failure.is_nobody_there() && was_down && self.breaker.is_down();
        let after = if spared {
            self.lane_mut(call).step(LaneStep::Concluded);
            self.enqueue(call);
            AfterFailure::Unspent
        } else {
            let front = self.lane_mut(call).front_mut();
            front.item.spent.attempts = sent.number();
            let item = front.item.clone();
            if failure.is_final() || sent.number() >= self.policy.attempts() {
                self.close_front(call);
                AfterFailure::GivenUp(item)
            } else {
                self.hold(call, failure, now);
                AfterFailure::Retry(item)
            }
        };
        if changes.contains(&ReceiverChange::WentDown) {
            self.close_slots(NoDecision::ReceiverDown);
            self.release_all();
        }
        (after, changes)
    }

    /// The event that was delivered or given up is gone, and the call's next one may go.
    pub fn settle(&mut self, call: CallId, now: Instant) {
        self.unsettled -= 1;
        let settled = self.lane_mut(call).settle_front();
        self.ages.remove(settled.item.place);
        self.go_on(call, now);
    }

    /// No decision will come for anybody who waits now, and why.
    pub fn close_slots(&mut self, why: NoDecision) {
        for queued in self.lanes.values().flat_map(Lane::waiting) {
            if let Some(slot) = &queued.slot {
                slot.close(why);
            }
        }
    }

    /// How things stand.
    pub fn status(&self, now: Instant) -> QueueStatus {
        let paused = self.paused_until.filter(|until| *until > now);
        let receiver = match (self.breaker.state(), paused) {
            (BreakerState::Down { probe_at, probes }, paused) => {
                let probe_at = Some(paused.map_or(probe_at, |until| until.max(probe_at)));
                ReceiverStatus::Down { probe_at, probes }
            }
            (BreakerState::Probing { probes }, _) => {
                ReceiverStatus::Down { probe_at: None, probes }
            }
            (BreakerState::Up { .. }, Some(until)) => ReceiverStatus::Paused { until },
            (BreakerState::Up { unanswered }, None) => ReceiverStatus::Up { unanswered },
        };
        QueueStatus {
            receiver,
            routing_broken: self.routing.is_open(),
            unsettled: self.unsettled,
            in_flight: self.in_flight,
            oldest_since: self.ages.oldest(),
        }
    }

    fn take_place(&mut self) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        place
    }

    /// The call's lane, which is made where there is none; an item joins it at once.
    fn lane(&mut self, call: CallId, now: Instant) -> &mut Lane {
        match self.lanes.entry(call) {
            Entry::Occupied(lane) => lane.into_mut(),
            Entry::Vacant(vacant) => {
                let last = self.numbering.get(&call, now).copied().unwrap_or_default();
                self.numbering.remove(&call);
                vacant.insert(Lane::after(last))
            }
        }
    }

    /// The lane of a call that has events.
    fn lane_mut(&mut self, call: CallId) -> &mut Lane {
        self.lanes.get_mut(&call).expect("a call with events has a lane")
    }

    fn join(&mut self, queued: Queued, since: Instant, now: Instant) {
        let call = queued.item.event.call;
        self.unsettled += 1;
        self.ages.add(queued.item.place, since);
        if self.lane(call, now).join(queued) {
            self.enqueue(call);
        }
    }

    /// When the event failed for the first time; a call's first failure counts for its routing.
    fn note_first_failure(
        &mut self,
        sent: &Attempt,
        unix_millis: u64,
        changes: &mut Vec<ReceiverChange>,
    ) {
        let item = &mut self.lane_mut(sent.item.event.call).front_mut().item;
        if item.spent.first_failed_at.is_some() {
            return;
        }
        item.spent.first_failed_at = NonZero::new(unix_millis);
        let routes = item.event.kind == EventType::CallInitiated;
        if routes && self.routing.note_failure() {
            changes.push(ReceiverChange::RoutingBroke { failed: self.limits.breaker });
        }
    }

    fn note_failure(
        &mut self,
        sent: &Attempt,
        failure: &Failure,
        now: Instant,
        changes: &mut Vec<ReceiverChange>,
    ) {
        if let Some(wait) = failure.pause().filter(|wait| !wait.is_zero()) {
            let until = now + wait;
            if self.paused_until.is_none_or(|old| old < until) {
                self.paused_until = Some(until);
                changes.push(ReceiverChange::Paused { wait });
            }
        }
        let sign = match (failure.is_nobody_there(), sent.probe) {
            (false, _) => BreakerSign::Answered,
            (true, false) => BreakerSign::NobodyThere,
            (true, true) => BreakerSign::ProbeFailed,
        };
        changes.extend(self.breaker.note(sign, now));
    }

    /// The front event waits for its next attempt; whoever waits for its decision in vain is told.
    fn hold(&mut self, call: CallId, failure: &Failure, now: Instant) {
        let (is_down, routing_broken) = (self.breaker.is_down(), self.routing.is_open());
        let policy = self.policy;
        let lane = self.lane_mut(call);
        let front = lane.front();
        let delay = policy.delay_after(front.item.spent.attempts);
        let at = now + delay.max(failure.retry_after.unwrap_or_default());
        let place = front.item.place;
        if let Some(slot) = &front.slot {
            if routing_broken {
                slot.close(NoDecision::RoutingBroken);
            } else if at > slot.deadline() {
                slot.close(NoDecision::Failed);
            }
        }
        if is_down {
            // This attempt found the receiver down: now the event waits for a probe instead.
            lane.step(LaneStep::Concluded);
            self.enqueue(call);
        } else {
            lane.step(LaneStep::Retry(at));
            self.held.insert((at, place), call);
        }
    }

    fn close_front(&mut self, call: CallId) {
        if let Some(slot) = &self.lane_mut(call).front().slot {
            slot.close(NoDecision::Failed);
        }
    }

    /// The front event is gone: the next one may go, or the call has none.
    fn go_on(&mut self, call: CallId, now: Instant) {
        let lane = self.lane_mut(call);
        if lane.is_over() {
            let last = lane.last_sequence();
            self.lanes.remove(&call);
            self.numbering.insert(call, last, now, |_, _| {});
        } else {
            self.enqueue(call);
        }
    }

    /// Puts a lane that is ready into its queue.
    fn enqueue(&mut self, call: CallId) {
        let front = self.lane_mut(call).front();
        let awaited = front.slot.as_ref().is_some_and(|slot| !slot.is_settled());
        let place = front.item.place;
        let queue = if awaited { &mut self.awaited } else { &mut self.ready };
        queue.insert(place, call);
    }

    fn pop_oldest(&mut self) -> Option<CallId> {
        let first =
            |queue: &BTreeMap<u64, CallId>| queue.first_key_value().map(|(place, _)| *place);
        let awaited_is_older = match (first(&self.awaited), first(&self.ready)) {
            (Some(awaited), Some(ready)) => awaited < ready,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let queue = if awaited_is_older { &mut self.awaited } else { &mut self.ready };
        queue.pop_first().map(|(_, call)| call)
    }

    fn pop_most_urgent(&mut self, now: Instant) -> Option<CallId> {
        while let Some((place, call)) = self.awaited.pop_first() {
            let front = self.lane_mut(call).front();
            if front.slot.as_ref().is_some_and(|slot| slot.is_open(now)) {
                return Some(call);
            }
            // Nobody waits for it any more.
            self.ready.insert(place, call);
        }
        self.ready.pop_first().map(|(_, call)| call)
    }

    /// The receiver went down: delays between attempts are void.
    fn release_all(&mut self) {
        while let Some((_, call)) = self.held.pop_first() {
            self.make_ready(call);
        }
    }

    fn release(&mut self, now: Instant) {
        while let Some(entry) = self.held.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let call = entry.remove();
            self.make_ready(call);
        }
    }

    fn make_ready(&mut self, call: CallId) {
        self.lane_mut(call).step(LaneStep::Released);
        self.enqueue(call);
    }

    fn is_paused(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.paused_until.is_some()
    }
}

fn new_item(event: Arc<Event>, place: u64, sequence: u64, origin: Origin) -> Item {
    Item { event, place, sequence, spent: Spent::default(), origin }
}
