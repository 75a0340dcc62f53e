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
//! - An event leaves only as delivered or given up; both free its place under `limit`.

mod ages;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::ages::Ages;
pub use self::status::{Availability, Status};
use super::breaker::{Breaker, Change, RoutingGuard, Sign, State};
use super::lane::{Lane, LaneState, Queued, Step};
use super::slot::Slot;
use crate::attempt::{Attempt, Failure};
use crate::event::{CallId, Event, EventType};
use crate::journal::Entry;
use crate::retry::RetryPolicy;
use crate::routing::NoDecision;

/// How long the numbering of a call without events is kept: longer than calls stay silent.
const LANE_KEPT: Duration = Duration::from_secs(4 * 60 * 60);

/// The most calls without events whose numbering is kept, the longest silent forgotten first.
/// At under 256 bytes each that is 25 MB.
const MOST_IDLE_LANES: usize = 100_000;

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

/// An attempt that is to be made now.
#[derive(Debug)]
pub struct Dispatch {
    /// The request.
    pub attempt: Attempt,
    /// The event's place among all that were accepted.
    pub order: u64,
    /// Whether it probes a receiver that is down.
    pub probe: bool,
}

/// What becomes of an event after a failed attempt.
#[derive(Debug)]
pub enum Verdict {
    /// To be tried again; says what was spent on it since when, if this attempt counts.
    Retry(Option<Spent>),
    /// Refused, or out of attempts.
    GivenUp(Spent),
}

/// What was spent on an event.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Attempts that count.
    pub attempts: u32,
    /// When the first one failed, in Unix milliseconds.
    pub first_at: u64,
}

/// All lanes, and the state of the receiver.
#[derive(Debug)]
pub struct Dispatcher {
    limits: Limits,
    policy: RetryPolicy,
    lanes: HashMap<CallId, Lane>,
    /// Lanes whose front event may go, by its age: those that a caller waits for, and the others.
    awaited: BTreeMap<u64, CallId>,
    ready: BTreeMap<u64, CallId>,
    /// Lanes whose front event waits for its next attempt, by its time and age.
    held: BTreeMap<(Instant, u64), CallId>,
    /// Lanes without events, the longest idle first.
    idle: BTreeSet<(Instant, CallId)>,
    breaker: Breaker,
    guard: RoutingGuard,
    paused_until: Option<Instant>,
    /// When the events that are not settled were accepted.
    ages: Ages,
    in_flight: usize,
    unsettled: usize,
    accepted: u64,
    stopped: bool,
}

impl Dispatcher {
    /// Without any event.
    pub fn new(limits: Limits, policy: RetryPolicy) -> Self {
        Self {
            limits,
            policy,
            lanes: HashMap::new(),
            awaited: BTreeMap::new(),
            ready: BTreeMap::new(),
            held: BTreeMap::new(),
            idle: BTreeSet::new(),
            breaker: Breaker::new(limits.breaker),
            guard: RoutingGuard::new(limits.breaker),
            paused_until: None,
            ages: Ages::default(),
            in_flight: 0,
            unsettled: 0,
            accepted: 0,
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

    /// Why waiting for a decision until the deadline is of no use, if so: nobody is there, the
    /// receiver's routing is broken, or the receiver asked to be left alone for longer.
    pub fn cannot_decide_by(&self, deadline: Instant) -> Option<NoDecision> {
        let paused = self.paused_until.is_some_and(|until| until > deadline);
        if self.breaker.is_down() {
            Some(NoDecision::ReceiverDown)
        } else if self.guard.is_closed() {
            Some(NoDecision::RoutingBroken)
        } else {
            paused.then_some(NoDecision::ReceiverPaused)
        }
    }

    /// Takes a new event into its call's lane; returns its place among all, and within the call.
    pub fn accept(&mut self, event: Arc<Event>, slot: Option<Slot>, now: Instant) -> (u64, u64) {
        let order = self.next_order();
        let mut sequence = 0;
        self.ages.add(order, now);
        self.join(event.call, now, |lane| sequence = lane.join(event, order, slot));
        (order, sequence)
    }

    /// Takes an event again that was accepted before, with its place within the call.
    pub fn replay(&mut self, event: Arc<Event>, sequence: u64, now: Instant) -> u64 {
        let order = self.next_order();
        let (call, spent, first_failed_at, slot) = (event.call, 0, None, None);
        let queued = Queued { event, order, sequence, spent, first_failed_at, slot };
        self.ages.add(order, now);
        self.join(call, now, |lane| lane.rejoin(queued));
        order
    }

    /// The places, among all and within the call, of an event that joins later or never.
    pub fn reserve(&mut self, call: CallId, now: Instant) -> (u64, u64) {
        self.forget_idle(now);
        let order = self.next_order();
        let lane = self.lanes.entry(call).or_insert_with(|| {
            self.idle.insert((now, call));
            Lane::new(now)
        });
        (order, lane.reserve())
    }

    /// Takes an event as the journal holds it, accepted at that time. They come in the order of their
    /// acceptance.
    pub fn restore(&mut self, entry: Entry, since: Instant, now: Instant) {
        self.ages.add(entry.order, since);
        let queued = Queued {
            event: entry.event,
            order: entry.order,
            sequence: entry.sequence,
            spent: entry.spent,
            first_failed_at: NonZero::new(entry.first_at),
            slot: None,
        };
        self.join(queued.event.call, now, |lane| lane.rejoin(queued));
    }

    /// The place that the next event gets among all.
    pub fn next_place(&self) -> u64 {
        self.accepted
    }

    /// Sets the place that the next event gets among all.
    pub fn continue_from(&mut self, order: u64) {
        self.accepted = order;
    }

    /// Takes an event away that is not on its way and shall not be sent.
    pub fn withdraw(&mut self, call: CallId, order: u64, now: Instant) -> Option<Queued> {
        let lane = self.lanes.get_mut(&call)?;
        let before = lane.state();
        let front = lane.front().map(|front| front.order);
        let withdrawn = lane.withdraw(order, now)?;
        self.ages.remove(order);
        self.unsettled -= 1;
        if front == Some(order) {
            self.awaited.remove(&order);
            self.ready.remove(&order);
            if let LaneState::Held(at) = before {
                self.held.remove(&(at, order));
            }
            self.enqueue_or_idle(call, now);
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
    pub fn next(&mut self, now: Instant) -> Option<Dispatch> {
        self.release(now);
        if self.stopped || self.in_flight >= self.limits.concurrency || self.is_paused(now) {
            return None;
        }
        let probe = match self.breaker.state() {
            State::Up { .. } => false,
            State::Down { probe_at, .. } if probe_at <= now => true,
            State::Down { .. } | State::Probing { .. } => return None,
        };
        let call = if probe { self.pop_oldest() } else { self.pop_most_urgent(now) }?;
        if probe {
            self.breaker.note(Sign::ProbeSent, now);
        }
        self.in_flight += 1;
        let lane = self.lanes.get_mut(&call).expect("a ready lane exists");
        lane.step(Step::Sent);
        let front = lane.front().expect("a ready lane has a front event");
        Some(Dispatch {
            order: front.order,
            attempt: Attempt {
                event: Arc::clone(&front.event),
                number: front.spent + 1,
                sequence: front.sequence,
            },
            probe,
        })
    }

    /// When [`Dispatcher::next`] may have something that it has not now, if time alone brings it.
    pub fn wake_at(&self) -> Option<Instant> {
        let release = self.held.first_key_value().map(|((at, _), _)| *at);
        let waiting_for_receiver = match self.breaker.state() {
            State::Up { .. } => self.paused_until,
            State::Down { probe_at, .. } => {
                Some(self.paused_until.map_or(probe_at, |until| until.max(probe_at)))
            }
            State::Probing { .. } => None,
        };
        let any_ready = !self.ready.is_empty() || !self.awaited.is_empty();
        let blocked = waiting_for_receiver.filter(|_| any_ready);
        release.into_iter().chain(blocked).min()
    }

    /// Takes note of a delivered attempt; returns where its decision goes. The event holds its lane
    /// until [`Dispatcher::settle`].
    pub fn delivered(&mut self, attempt: &Attempt, now: Instant) -> (Option<Slot>, Vec<Change>) {
        self.in_flight -= 1;
        let routed = attempt.event.kind == EventType::CallInitiated;
        let works = routed && self.guard.note_success();
        let back = self.breaker.note(Sign::Answered, now);
        let changes = back.into_iter().chain(works.then_some(Change::RoutingWorks)).collect();
        let lane = self.lanes.get(&attempt.event.call).expect("a lane in flight exists");
        (lane.front().and_then(|front| front.slot.clone()), changes)
    }

    /// Takes note of a failed attempt. An event that is given up holds its lane until
    /// [`Dispatcher::settle`]. `unix_millis` is now, too, as people read it.
    pub fn failed(
        &mut self,
        sent: &Dispatch,
        failure: &Failure,
        now: Instant,
        unix_millis: u64,
    ) -> (Verdict, Vec<Change>) {
        self.in_flight -= 1;
        let was_down = self.breaker.is_down();
        let mut changes = Vec::new();
        let first_at = self.note_first_failure(sent, unix_millis, &mut changes);
        self.note_failure(sent, failure, now, &mut changes);
        let spent = Spent { attempts: sent.attempt.number, first_at };
        let call = sent.attempt.event.call;
        let spared = failure.is_nobody_there() && was_down && self.breaker.is_down();
        let verdict = if spared {
            self.put_back(call);
            Verdict::Retry(None)
        } else if failure.is_final() || sent.attempt.number >= self.policy.attempts() {
            self.close_front(call);
            Verdict::GivenUp(spent)
        } else {
            self.hold(call, failure, now);
            Verdict::Retry(Some(spent))
        };
        if changes.contains(&Change::WentDown) {
            self.close_slots(NoDecision::ReceiverDown);
            self.release_all();
        }
        (verdict, changes)
    }

    fn next_order(&mut self) -> u64 {
        let order = self.accepted;
        self.accepted += 1;
        order
    }

    fn join(&mut self, call: CallId, now: Instant, join: impl FnOnce(&mut Lane)) {
        self.forget_idle(now);
        self.unsettled += 1;
        let lane = self.lanes.entry(call).or_insert_with(|| Lane::new(now));
        let before = lane.state();
        join(lane);
        if let LaneState::Idle(since) = before {
            self.idle.remove(&(since, call));
            self.enqueue(call);
        }
    }

    /// When the event failed for the first time; a call's first failure counts for the guard.
    fn note_first_failure(
        &mut self,
        sent: &Dispatch,
        unix_millis: u64,
        changes: &mut Vec<Change>,
    ) -> u64 {
        let lane = self.lanes.get_mut(&sent.attempt.event.call).expect("a lane in flight exists");
        let front = lane.front_mut().expect("a lane in flight has a front event");
        let first_of_call =
            front.first_failed_at.is_none() && front.event.kind == EventType::CallInitiated;
        if first_of_call && self.guard.note_failure() {
            changes.push(Change::RoutingBroke { failed: self.limits.breaker });
        }
        let now = NonZero::new(unix_millis).expect("the clock is past 1970");
        front.first_failed_at.get_or_insert(now).get()
    }

    fn note_failure(
        &mut self,
        sent: &Dispatch,
        failure: &Failure,
        now: Instant,
        changes: &mut Vec<Change>,
    ) {
        if let Some(wait) = failure.pause().filter(|wait| !wait.is_zero()) {
            let until = now + wait;
            if self.paused_until.is_none_or(|old| old < until) {
                self.paused_until = Some(until);
                changes.push(Change::Paused { wait });
            }
        }
        let sign = match (failure.is_nobody_there(), sent.probe) {
            (false, _) => Sign::Answered,
            (true, false) => Sign::NobodyThere,
            (true, true) => Sign::ProbeInVain,
        };
        changes.extend(self.breaker.note(sign, now));
    }

    /// The front event waits for its next attempt; whoever waits for its decision in vain is told.
    fn hold(&mut self, call: CallId, failure: &Failure, now: Instant) {
        let lane = self.lanes.get_mut(&call).expect("a lane in flight exists");
        let front = lane.front_mut().expect("a lane in flight has a front event");
        front.spent += 1;
        let delay = self.policy.delay_after(front.spent);
        let at = now + delay.max(failure.retry_after.unwrap_or_default());
        let order = front.order;
        if let Some(slot) = &front.slot {
            if self.guard.is_closed() {
                slot.close(NoDecision::RoutingBroken);
            } else if at > slot.deadline() {
                slot.close(NoDecision::Failed);
            }
        }
        if self.breaker.is_down() {
            // This attempt found the receiver down: now the event waits for a probe instead.
            lane.step(Step::Unspent);
            self.enqueue(call);
        } else {
            lane.step(Step::Retry(at));
            self.held.insert((at, order), call);
        }
    }

    fn put_back(&mut self, call: CallId) {
        let lane = self.lanes.get_mut(&call).expect("a lane in flight exists");
        lane.step(Step::Unspent);
        self.enqueue(call);
    }

    /// The event that was delivered or given up is gone, and the call's next one may go.
    pub fn settle(&mut self, call: CallId, now: Instant) {
        self.unsettled -= 1;
        let lane = self.lanes.get_mut(&call).expect("a lane in flight exists");
        let settled = lane.settle_front(now);
        self.ages.remove(settled.order);
        self.enqueue_or_idle(call, now);
    }

    fn close_front(&mut self, call: CallId) {
        let front = self.lanes.get(&call).and_then(Lane::front);
        if let Some(slot) = front.and_then(|front| front.slot.as_ref()) {
            slot.close(NoDecision::Failed);
        }
    }

    fn enqueue_or_idle(&mut self, call: CallId, now: Instant) {
        let lane = self.lanes.get(&call).expect("the lane was just used");
        if lane.front().is_some() {
            self.enqueue(call);
        } else {
            self.idle.insert((now, call));
        }
    }

    /// Puts a lane that is ready into its queue.
    fn enqueue(&mut self, call: CallId) {
        let lane = self.lanes.get(&call).expect("a ready lane exists");
        let front = lane.front().expect("a ready lane has a front event");
        let awaited = front.slot.as_ref().is_some_and(|slot| !slot.is_settled());
        let queue = if awaited { &mut self.awaited } else { &mut self.ready };
        queue.insert(front.order, call);
    }

    fn pop_oldest(&mut self) -> Option<CallId> {
        let first =
            |queue: &BTreeMap<u64, CallId>| queue.first_key_value().map(|(order, _)| *order);
        let awaited_is_older = match (first(&self.awaited), first(&self.ready)) {
            (Some(awaited), Some(ready)) => awaited < ready,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let queue = if awaited_is_older { &mut self.awaited } else { &mut self.ready };
        queue.pop_first().map(|(_, call)| call)
    }

    fn pop_most_urgent(&mut self, now: Instant) -> Option<CallId> {
        while let Some((order, call)) = self.awaited.pop_first() {
            let front = self
                .lanes
                .get(&call)
                .and_then(Lane::front)
                .expect("a ready lane has a front event");
            if front.slot.as_ref().is_some_and(|slot| slot.is_open(now)) {
                return Some(call);
            }
            // Nobody waits for it any more.
            self.ready.insert(order, call);
        }
        self.ready.pop_first().map(|(_, call)| call)
    }

    /// No decision will come for anybody who waits now, and why.
    pub fn close_slots(&mut self, why: NoDecision) {
        for queued in self.lanes.values().flat_map(Lane::waiting) {
            if let Some(slot) = &queued.slot {
                slot.close(why);
            }
        }
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
        let lane = self.lanes.get_mut(&call).expect("a held lane exists");
        lane.step(Step::Released);
        self.enqueue(call);
    }

    fn is_paused(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.paused_until.is_some()
    }

    fn forget_idle(&mut self, now: Instant) {
        while let Some((since, call)) = self.idle.first().copied() {
            if self.idle.len() <= MOST_IDLE_LANES && now.duration_since(since) <= LANE_KEPT {
                return;
            }
            self.idle.pop_first();
            self.lanes.remove(&call);
        }
    }
}
