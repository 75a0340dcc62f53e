//! Dispatcher: what is due at one receiver?
//!
//! Owns whether an event may go at all, and what an outcome means for it. Leaves whose turn it is to
//! [`super::lanes`], and sending and logging to [`super::Queue`]. Pure: time is an argument. Public for tests and
//! for `benches/hot.rs`, which look at it without the tasks around it.
//!
//! Invariants:
//! - One attempt per call, at most `concurrency` in all. Among lanes that are ready those for whose
//!   decision a caller waits go first, and then the one with the oldest front event: a backlog
//!   must not make new callers wait.
//! - While events wait for the receiver ([`ReachState`]) only probes go. The calls take turns, so that no event
//!   that always fails keeps the receiver down for the others; a caller's question goes before all. What finds
//!   nobody as a probe, or while the receiver is down, costs the event no attempt.
//! - An event leaves only as delivered, given up or withdrawn; each frees its room under the limits.

use std::collections::HashMap;
use std::num::NonZero;
use std::time::Duration;

use tokio::time::Instant;

use super::ages::Ages;
use super::breaker::RoutingBreaker;
use super::lane::Queued;
use super::lanes::Lanes;
use super::reach::{Cause, Reach, ReachSign, ReachState, ReceiverChange};
use super::slot::Slot;
use super::status::{QueueStatus, ReceiverStatus};
use crate::attempt::{Attempt, Failure, FailureCode};
use crate::event::{CallId, Event, EventType, Item};
use crate::retry::RetryPolicy;
use crate::routing::NoDecision;

/// The longest pause that a receiver may ask for: AVR's sample receiver asks for 900 seconds.
const MOST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How often an event may time out as a probe before it takes its turn only every [`ASIDE`].
const MOST_PROBE_TIMEOUTS: u8 = 3;

/// How long an event that timed out as a probe too often is left aside.
const ASIDE: Duration = Duration::from_secs(15 * 60);

/// How often an event may be told "not now", each time with others delivered since the time before: a
/// receiver that says so to one event for ever refuses it.
const MOST_NOT_NOW: u8 = 10;

/// The numbers that a dispatcher works with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts in flight in all (`WEBHOOK_CONCURRENCY`).
    pub concurrency: usize,
    /// Events accepted and not yet settled (`QUEUE_LIMIT`).
    pub queue: usize,
    /// The bytes of their bodies (`QUEUE_BYTES`).
    pub bytes: usize,
    /// How long an attempt may take (`WEBHOOK_TIMEOUT`).
    pub timeout: Duration,
    /// How long a caller waits for a decision (`ROUTING_TIMEOUT`); for the main receiver.
    pub routing_timeout: Duration,
    /// Failures in a row after which the receiver counts as down, or the main one's routing as broken
    /// (`WEBHOOK_BREAKER`); 0 = never.
    pub breaker: u32,
}

/// The defaults of the settings.
impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 64,
            queue: 100_000,
            bytes: 256 * 1024 * 1024,
            timeout: Duration::from_secs(3),
            routing_timeout: Duration::from_secs(5),
            breaker: 5,
        }
    }
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

/// What is remembered of an item that had trouble; most have none.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    probe_timeouts: u8,
    not_now: u8,
    /// How many events had been delivered when it was told "not now" for the last time.
    delivered_then: u64,
}

/// All lanes of a receiver, and its state.
#[derive(Debug)]
pub struct Dispatcher {
    limits: Limits,
    policy: RetryPolicy,
    lanes: Lanes,
    /// By place.
    trouble: HashMap<u64, Trouble>,
    reach: Reach,
    routing: RoutingBreaker,
    ages: Ages,
    in_flight: usize,
    unsettled: usize,
    /// Of the bodies of those that are not settled.
    bytes: usize,
    /// Events delivered since the start.
    delivered: u64,
    stopped: bool,
}

impl Dispatcher {
    /// Without any event, for a receiver that decides about nothing.
    pub fn of_copy(limits: Limits, policy: RetryPolicy) -> Self {
        Self { routing: RoutingBreaker::new(0), ..Self::new(limits, policy) }
    }

    /// Without any event, for the main receiver.
    pub fn new(limits: Limits, policy: RetryPolicy) -> Self {
        Self {
            limits,
            policy,
            lanes: Lanes::default(),
            trouble: HashMap::new(),
            reach: Reach::new(limits.breaker, limits.timeout),
            routing: RoutingBreaker::new(limits.breaker),
            ages: Ages::default(),
            in_flight: 0,
            unsettled: 0,
            bytes: 0,
            delivered: 0,
            stopped: false,
        }
    }

    /// With events of an earlier process in it, one of them goes first, as nobody knows of the receiver.
    pub fn start(&mut self, now: Instant) {
        if self.unsettled > 0 {
            self.reach.start_waiting(now);
        }
    }

    /// Whether so many events more, with so many bytes, find room.
    pub fn has_room_for(&self, events: usize, bytes: usize) -> bool {
        self.unsettled + events <= self.limits.queue && self.bytes + bytes <= self.limits.bytes
    }

    /// Events accepted and not yet settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// How many events of the call wait, or are on their way.
    pub fn waiting_of(&self, call: CallId) -> usize {
        self.lanes.waiting_of(call)
    }

    /// Whether an event of a call without others would be sent at once.
    pub fn sends_at_once(&self) -> bool {
        let room = self.in_flight < self.limits.concurrency;
        !self.stopped && self.reach.is_up() && !self.lanes.any_ready() && room
    }

    /// Why nobody need wait until then for a decision about this call, if so: nobody is there, the
    /// receiver's routing is broken, or the receiver asked to be left alone for longer. Where a probe is due
    /// the question is the probe.
    pub fn cannot_decide_by(
        &self,
        deadline: Instant,
        call: CallId,
        now: Instant,
    ) -> Option<NoDecision> {
        let broken = self.routing.is_open().then_some(NoDecision::RoutingBroken);
        match self.reach.state() {
            ReachState::Up { .. } => broken,
            // It goes first, or beside the event that does.
            ReachState::Waiting { cause: Cause::Start, .. }
            | ReachState::Probing { cause: Cause::Start, .. } => None,
            ReachState::Waiting { at, .. } if at <= now && self.waiting_of(call) == 0 => None,
            ReachState::Waiting { cause: Cause::Down, .. }
            | ReachState::Probing { cause: Cause::Down, .. } => Some(NoDecision::ReceiverDown),
            ReachState::Waiting { at, .. } if at > deadline => Some(NoDecision::ReceiverPaused),
            ReachState::Waiting { .. } | ReachState::Probing { .. } => broken,
        }
    }

    /// Numbers a new item, and takes it into its call's lane.
    pub fn accept(&mut self, item: &mut Item, slot: Option<Slot>, now: Instant) {
        self.count(&item.event, item.place, now);
        self.lanes.accept(item, slot, now);
    }

    /// Numbers a new item; it joins later ([`Dispatcher::restore`]) or never.
    pub fn reserve(&mut self, item: &mut Item, now: Instant) {
        item.sequence = self.lanes.reserve(item.event.call, now);
    }

    /// Takes an item that is numbered and was accepted then. They come in the order of their places.
    pub fn restore(&mut self, item: Item, since: Instant, now: Instant) {
        self.count(&item.event, item.place, since);
        self.lanes.join(Queued { item, slot: None }, now);
    }

    /// Takes an item away that is not on its way and shall not be sent, if `confirm` agrees.
    pub fn withdraw(
        &mut self,
        call: CallId,
        place: u64,
        now: Instant,
        confirm: impl FnOnce() -> bool,
    ) -> Option<Queued> {
        let withdrawn = self.lanes.withdraw(call, place, now, confirm)?;
        self.forget(&withdrawn.item);
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
        self.lanes.release(now);
        if self.stopped || self.in_flight >= self.limits.concurrency {
            return None;
        }
        let (call, probe) = match self.reach.state() {
            ReachState::Up { .. } => {
                (self.lanes.pop_awaited(now).or_else(|| self.lanes.pop_ready())?, false)
            }
            ReachState::Waiting { at, .. } if at <= now => {
                (self.lanes.pop_awaited(now).or_else(|| self.lanes.pop_in_turn())?, true)
            }
            // Callers do not wait for the outcome of the first event.
            ReachState::Probing { cause: Cause::Start, .. } => (self.lanes.pop_awaited(now)?, true),
            ReachState::Waiting { .. } | ReachState::Probing { .. } => return None,
        };
        let timeout = self.reach.patience();
        if probe {
            self.reach.note(ReachSign::ProbeSent, now);
        }
        self.in_flight += 1;
        Some(Attempt { item: self.lanes.send(call).clone(), probe, timeout })
    }

    /// When [`Dispatcher::next`] may have something that it has not now, if time alone brings it.
    pub fn wake_at(&self) -> Option<Instant> {
        let probe = match self.reach.state() {
            ReachState::Waiting { at, .. } => Some(at).filter(|_| self.lanes.any_ready()),
            ReachState::Up { .. } | ReachState::Probing { .. } => None,
        };
        self.lanes.next_release().into_iter().chain(probe).min()
    }

    /// Takes note of an attempt that was delivered after that time; returns where its decision goes. The
    /// event holds its lane until [`Dispatcher::settle`].
    pub fn delivered(
        &mut self,
        sent: &Attempt,
        took: Duration,
        now: Instant,
    ) -> (Option<Slot>, Vec<ReceiverChange>) {
        self.in_flight -= 1;
        self.delivered += 1;
        let mut changes = Vec::new();
        self.note(ReachSign::Answered { probe: sent.probe }, Some(took), now, &mut changes);
        let event = &sent.item.event;
        if event.kind == EventType::CallInitiated {
            // A decision that comes later serves nobody.
            changes.extend(match took > self.limits.routing_timeout {
                true => self.note_bad_routing(),
                false => self.routing.note_success().then_some(ReceiverChange::RoutingWorks),
            });
        }
        (self.lanes.front(event.call).slot.clone(), changes)
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
        let (call, was_down, mut changes) =
            (sent.item.event.call, self.reach.is_down(), Vec::new());
        let not_now =
            failure.pause().map(|wait| wait.max(self.policy.first_delay()).min(MOST_PAUSE));
        self.note_first_failure(sent, unix_millis, &mut changes);
        let answered = (!failure.is_nobody_there()).then_some(failure.took);
        let sign = match (not_now, answered) {
            (Some(wait), _) => ReachSign::NotNow { probe: sent.probe, wait },
            (None, Some(_)) => ReachSign::Answered { probe: sent.probe },
            (None, None) => ReachSign::NobodyThere { probe: sent.probe },
        };
        self.note(sign, answered.filter(|_| not_now.is_none()), now, &mut changes);
        let spared = match sign {
            ReachSign::NotNow { .. } => !self.is_told_too_often(sent.item.place),
            ReachSign::NobodyThere { .. } => sent.probe || (was_down && self.reach.is_down()),
            ReachSign::Answered { .. } | ReachSign::ProbeSent => false,
        };
        let after = if spared {
            self.put_back(sent, failure, now);
            AfterFailure::Unspent
        } else {
            let item = self.spend(sent);
            if failure.is_final() || sent.number() >= self.policy.attempts() {
                AfterFailure::GivenUp(item)
            } else {
                self.hold(call, failure, now);
                AfterFailure::Retry(item)
            }
        };
        if let AfterFailure::GivenUp(_) = after {
            self.close_front(call, NoDecision::Failed);
        }
        if changes.contains(&ReceiverChange::WentDown) {
            self.close_slots(NoDecision::ReceiverDown);
            self.lanes.release_held();
        }
        if let ReachState::Waiting { at, cause: Cause::Pause, .. } = self.reach.state() {
            // Callers who would wait for longer than their time are told at once.
            self.lanes.close_slots_before(at, NoDecision::ReceiverPaused);
        }
        (after, changes)
    }

    /// The event that was delivered or given up is gone, and the call's next one may go.
    pub fn settle(&mut self, call: CallId, now: Instant) {
        let settled = self.lanes.settle(call, now);
        self.forget(&settled.item);
    }

    /// No decision will come for anybody who waits now, and why.
    pub fn close_slots(&self, why: NoDecision) {
        self.lanes.close_slots(why);
    }

    /// The same for those whose event is not on its way.
    pub fn close_unsent_slots(&self, why: NoDecision) {
        self.lanes.close_unsent_slots(why);
    }

    /// How things stand.
    pub fn status(&self, now: Instant) -> QueueStatus {
        let receiver = match self.reach.state() {
            ReachState::Up { unanswered } => ReceiverStatus::Up { unanswered },
            ReachState::Waiting { at, cause: Cause::Pause, .. } if at > now => {
                ReceiverStatus::Paused { until: at }
            }
            ReachState::Waiting { at, cause: Cause::Down, failed } => {
                ReceiverStatus::Down { probe_at: Some(at), probes: failed }
            }
            ReachState::Probing { cause: Cause::Down, failed } => {
                ReceiverStatus::Down { probe_at: None, probes: failed }
            }
            // One event goes first; nothing bad is known.
            ReachState::Waiting { .. } | ReachState::Probing { .. } => {
                ReceiverStatus::Up { unanswered: 0 }
            }
        };
        QueueStatus {
            receiver,
            routing_broken: self.routing.is_open(),
            unsettled: self.unsettled,
            in_flight: self.in_flight,
            oldest_since: self.ages.oldest(),
        }
    }

    /// An event is waiting, which was accepted then.
    fn count(&mut self, event: &Event, place: u64, since: Instant) {
        self.unsettled += 1;
        self.bytes += event.body.len();
        self.ages.add(place, since);
    }

    /// When the event failed for the first time; a call's first failure counts for its routing.
    fn note_first_failure(
        &mut self,
        sent: &Attempt,
        unix_millis: u64,
        changes: &mut Vec<ReceiverChange>,
    ) {
        let item = &mut self.lanes.front(sent.item.event.call).item;
        if item.spent.first_failed_at.is_some() {
            return;
        }
        item.spent.first_failed_at = NonZero::new(unix_millis);
        if item.event.kind == EventType::CallInitiated {
            changes.extend(self.note_bad_routing());
        }
    }

    fn note_bad_routing(&mut self) -> Option<ReceiverChange> {
        let broke = self.routing.note_failure();
        broke.then_some(ReceiverChange::RoutingBroke { failed: self.limits.breaker })
    }

    /// What an attempt tells of the receiver; `took` is for one that was answered.
    fn note(
        &mut self,
        sign: ReachSign,
        took: Option<Duration>,
        now: Instant,
        changes: &mut Vec<ReceiverChange>,
    ) {
        let probe = matches!(sign, ReachSign::Answered { probe: true });
        let was_up = self.reach.is_up();
        let change = self.reach.note(sign, now);
        if change == Some(ReceiverChange::CameBack) {
            // What the outage did to callers says nothing about the receiver that is there again.
            self.routing.forget();
        }
        changes.extend(change);
        changes.extend(took.and_then(|took| self.reach.note_took(probe, took)));
        if !was_up && self.reach.is_up() {
            self.lanes.release_aside();
        }
    }

    /// Whether the item was told "not now" for the last time that is forgiven.
    fn is_told_too_often(&mut self, place: u64) -> bool {
        let delivered = self.delivered;
        let trouble = self.trouble.entry(place).or_default();
        if trouble.not_now == 0 || delivered > trouble.delivered_then {
            trouble.not_now = trouble.not_now.saturating_add(1);
            trouble.delivered_then = delivered;
        }
        trouble.not_now > MOST_NOT_NOW
    }

    /// An attempt that counts.
    fn spend(&mut self, sent: &Attempt) -> Item {
        let item = &mut self.lanes.front(sent.item.event.call).item;
        item.spent.attempts = sent.number();
        item.clone()
    }

    /// An attempt that costs nothing: the event goes when the receiver is there, or its turn comes.
    fn put_back(&mut self, sent: &Attempt, failure: &Failure, now: Instant) {
        let (call, place) = (sent.item.event.call, sent.item.place);
        if self.reach.is_down() {
            self.close_front(call, NoDecision::ReceiverDown);
        }
        let mut is_aside = false;
        if sent.probe && failure.code == FailureCode::Timeout {
            let trouble = self.trouble.entry(place).or_default();
            trouble.probe_timeouts = trouble.probe_timeouts.saturating_add(1);
            is_aside = trouble.probe_timeouts >= MOST_PROBE_TIMEOUTS && !self.reach.is_up();
        }
        match is_aside {
            true => self.lanes.set_aside(call, now + ASIDE),
            false => self.lanes.put_back(call),
        }
    }

    /// The front event waits for its next attempt; whoever waits for its decision in vain is told.
    fn hold(&mut self, call: CallId, failure: &Failure, now: Instant) {
        let front = self.lanes.front(call);
        let delay = self.policy.delay_after(front.item.spent.attempts);
        let at = now + delay.max(failure.retry_after.unwrap_or_default());
        if let Some(slot) = &front.slot {
            if self.routing.is_open() {
                slot.close(NoDecision::RoutingBroken);
            } else if at > slot.deadline() {
                slot.close(NoDecision::Failed);
            }
        }
        match self.reach.is_down() {
            // This attempt found the receiver down: now the event waits for a probe instead.
            true => self.lanes.put_back(call),
            false => self.lanes.hold(call, at),
        }
    }

    fn close_front(&mut self, call: CallId, why: NoDecision) {
        if let Some(slot) = &self.lanes.front(call).slot {
            slot.close(why);
        }
    }

    /// The item is not waiting any more.
    fn forget(&mut self, item: &Item) {
        self.unsettled -= 1;
        self.bytes -= item.event.body.len();
        self.ages.remove(item.place);
        self.trouble.remove(&item.place);
    }
}
