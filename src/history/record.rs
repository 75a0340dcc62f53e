//! Records: what is remembered of a call, an event and an attempt.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::requests::{RequestRecord, Requests};
use super::waits::Waits;
use crate::attempt::{Attempt, Failure};
use crate::event::{CallId, Event, EventId, EventType, Item};
use crate::time::{millis, unix_millis};

/// Payloads included: some five hundred events.
pub const MOST_CALL_BYTES: usize = 256 * 1024;

/// Per event: the first attempt and the last ones.
pub const MOST_ATTEMPTS: usize = 32;

/// Estimated size of a call without its events and requests, with its share of the index.
pub const CALL_BYTES: usize = 720;

/// Estimated size without the body.
const EVENT_BYTES: usize = 256;

/// Estimated size without the error and the answer.
const ATTEMPT_BYTES: usize = 80;

/// Per call, besides [`EventType::KNOWN`].
const MOST_OTHER_TYPES: usize = 8;

/// An announced call that is not answered within this time never will be.
const RINGING: Duration = Duration::from_secs(10 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallPhase {
    Announced,
    Live,
    Ended,
    /// Announced ten minutes ago or more, and never live.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventState {
    Waiting,
    Delivered,
    /// Given up, and kept as a dead letter.
    Dead,
    /// The dead letter was deleted.
    Deleted,
    /// The type is not delivered.
    Dropped,
}

/// An attempt that was made. Times (`…_at`, `at`) here and below are Unix milliseconds.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// 1, 2, … for this event.
    pub number: u32,
    /// When it began.
    pub at: u64,
    pub duration_ms: u64,
    /// `None` if the receiver did not answer.
    pub status: Option<u16>,
    /// Code and text.
    pub failure: Option<(&'static str, Box<str>)>,
    /// What the receiver said of the failure.
    pub answer: Option<Box<str>>,
    pub probe: bool,
}

/// An event on its way to one receiver.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// As accepted, or as last replayed.
    pub item: Item,
    /// Whether the event is remembered for another receiver, too, and counts there.
    pub is_copy: bool,
    pub accepted_at: u64,
    pub state: EventState,
    pub replays: u32,
    /// Oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Attempts that were forgotten.
    pub attempts_omitted: u32,
}

/// How many of a call's events are in which state, at any receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// In any state.
    pub events: u32,
    pub waiting: u32,
    /// Waiting after a failed attempt.
    pub retrying: u32,
    pub dead: u32,
}

/// From `call_initiated`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parties {
    pub from: Option<Box<str>>,
    pub to: Option<Box<str>>,
}

#[derive(Clone, Debug)]
pub struct CallRecord {
    pub id: CallId,
    /// 1, 2, … in the order in which calls were first seen.
    pub cursor: u64,
    pub first_at: u64,
    pub last_at: u64,
    /// When the caller was first connected to an agent.
    pub live_at: Option<u64>,
    pub ended_at: Option<u64>,
    /// Reason and duration, if callhook bridged the call.
    pub end: Option<(&'static str, Duration)>,
    /// Whether callhook bridges the call or did.
    pub bridged: bool,
    /// `host` or `host:port` of the receiver's decision.
    pub routed_to: Option<Box<str>>,
    pub counts: EventCounts,
    /// Oldest first; empty in a copy made without events.
    pub events: VecDeque<EventRecord>,
    /// Events that were forgotten.
    pub events_omitted: u32,
    /// Empty in a copy made without events.
    pub requests: Requests,
    pub waits: Waits,
    /// Dead letters among the forgotten events.
    dead_omitted: u32,
    /// A bit for each of [`EventType::KNOWN`].
    known_types: u8,
    other_types: Vec<Box<str>>,
    announcement: Option<Arc<Event>>,
    /// Filled on first use.
    parties: Arc<OnceLock<Parties>>,
    bytes: usize,
    /// Whether the call is among [`Memory`](super::memory::Memory)'s changed ones.
    pub(super) is_noted: bool,
}

impl AttemptRecord {
    pub fn delivered(attempt: &Attempt, status: u16, took: Duration) -> Self {
        Self { status: Some(status), failure: None, ..Self::just_now(attempt, took) }
    }

    pub fn failed(attempt: &Attempt, failure: &Failure) -> Self {
        Self {
            status: failure.status,
            failure: Some((failure.code.name(), failure.error.as_str().into())),
            answer: failure.answer.clone(),
            ..Self::just_now(attempt, failure.took)
        }
    }

    fn just_now(attempt: &Attempt, took: Duration) -> Self {
        let duration_ms = millis(took);
        let at = unix_millis().saturating_sub(duration_ms);
        let (number, probe) = (attempt.number(), attempt.probe);
        Self { number, at, duration_ms, status: None, failure: None, answer: None, probe }
    }

    fn bytes(&self) -> usize {
        let error = self.failure.as_ref().map_or(0, |(_, error)| error.len());
        ATTEMPT_BYTES + error + self.answer.as_ref().map_or(0, |answer| answer.len())
    }
}

impl EventRecord {
    pub fn new(item: Item, state: EventState, now: u64) -> Self {
        Self {
            is_copy: item.is_copy(),
            item,
            accepted_at: now,
            state,
            replays: 0,
            attempts: Vec::new(),
            attempts_omitted: 0,
        }
    }

    /// Estimated.
    pub fn bytes(&self) -> usize {
        let given = match &self.item.event.id {
            EventId::Given(id) => id.len(),
            EventId::Made(_) => 0,
        };
        let attempts: usize = self.attempts.iter().map(AttemptRecord::bytes).sum();
        let body = if self.is_copy { 0 } else { self.item.event.body.len() };
        EVENT_BYTES + body + given + attempts
    }

    /// Forgets the second attempt if there are too many: those in the middle differ least.
    pub fn tried(&mut self, tried: AttemptRecord) {
        if self.attempts.len() == MOST_ATTEMPTS {
            self.attempts.remove(1);
            self.attempts_omitted += 1;
        }
        if self.attempts.is_empty() {
            // Nearly every event needs one attempt.
            self.attempts.reserve_exact(1);
        }
        self.attempts.push(tried);
    }

    fn count(&self) -> EventCounts {
        let waiting = self.state == EventState::Waiting;
        let tried = self.attempts.last().is_some_and(|last| last.failure.is_some());
        EventCounts {
            events: u32::from(!self.is_copy),
            waiting: u32::from(waiting),
            retrying: u32::from(waiting && tried),
            dead: u32::from(self.state == EventState::Dead),
        }
    }
}

impl EventCounts {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.waiting += other.waiting;
        self.retrying += other.retrying;
        self.dead += other.dead;
    }

    fn take(&mut self, other: Self) {
        self.events -= other.events;
        self.waiting -= other.waiting;
        self.retrying -= other.retrying;
        self.dead -= other.dead;
    }
}

impl CallRecord {
    pub fn new(id: CallId, cursor: u64, now: u64) -> Self {
        Self {
            id,
            cursor,
            first_at: now,
            last_at: now,
            live_at: None,
            ended_at: None,
            end: None,
            bridged: false,
            routed_to: None,
            counts: EventCounts::default(),
            events: VecDeque::new(),
            events_omitted: 0,
            requests: Requests::default(),
            waits: Waits::default(),
            dead_omitted: 0,
            known_types: 0,
            other_types: Vec::new(),
            announcement: None,
            parties: Arc::default(),
            bytes: CALL_BYTES,
            is_noted: false,
        }
    }

    pub fn phase(&self, now: u64) -> CallPhase {
        match (self.live_at, self.ended_at) {
            (_, Some(_)) => CallPhase::Ended,
            (Some(_), None) => CallPhase::Live,
            (None, None) if Duration::from_millis(now.saturating_sub(self.first_at)) > RINGING => {
                CallPhase::Abandoned
            }
            (None, None) => CallPhase::Announced,
        }
    }

    /// `None` before the call is live.
    pub fn duration_ms(&self, now: u64) -> Option<u64> {
        if let Some((_, lasted)) = self.end {
            return Some(millis(lasted));
        }
        Some(self.ended_at.unwrap_or(now).saturating_sub(self.live_at?))
    }

    /// Parsed from the payload on first use.
    pub fn parties(&self) -> Option<&Parties> {
        let announcement = self.announcement.as_ref()?;
        Some(self.parties.get_or_init(|| read_parties(&announcement.body)))
    }

    /// The names of its event types, known ones first.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        let known = EventType::KNOWN.iter().enumerate();
        let known = known.filter(|(bit, _)| self.known_types & (1 << bit) != 0);
        known.map(|(_, kind)| kind.name()).chain(self.other_types.iter().map(AsRef::as_ref))
    }

    /// Estimated, with all events and requests.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn without_events(&self) -> Self {
        Self {
            events: VecDeque::new(),
            requests: Requests::default(),
            other_types: self.other_types.clone(),
            routed_to: self.routed_to.clone(),
            announcement: self.announcement.clone(),
            parties: Arc::clone(&self.parties),
            ..*self
        }
    }

    pub fn keep(&mut self, kept: EventRecord) {
        let event = Arc::clone(&kept.item.event);
        match &event.kind {
            EventType::CallInitiated => {
                self.announcement = Some(event);
                self.parties = Arc::default();
            }
            EventType::CallEnded => self.ended_at = self.ended_at.or(Some(kept.accepted_at)),
            _ => self.live_at = self.live_at.or(Some(kept.accepted_at)),
        }
        self.note_type(&kept.item.event.kind);
        self.last_at = kept.accepted_at;
        self.bytes += kept.bytes();
        self.counts.add(kept.count());
        self.events.push_back(kept);
        self.forget_beyond_limit();
    }

    pub fn keep_request(&mut self, request: RequestRecord) {
        let before = self.requests.bytes();
        self.requests.keep(request);
        self.bytes = self.bytes - before + self.requests.bytes();
        self.forget_beyond_limit();
    }

    /// `false` if the event was forgotten.
    pub fn change(&mut self, place: u64, change: impl FnOnce(&mut EventRecord)) -> bool {
        let Some(index) = self.events.iter().rposition(|kept| kept.item.place == place) else {
            return false;
        };
        let kept = &mut self.events[index];
        let (bytes, count) = (kept.bytes(), kept.count());
        change(kept);
        self.bytes = self.bytes - bytes + kept.bytes();
        let changed = kept.count();
        self.counts.take(count);
        self.counts.add(changed);
        self.forget_beyond_limit();
        true
    }

    pub fn remove(&mut self, place: u64) {
        let index = self.events.iter().rposition(|kept| kept.item.place == place);
        if let Some(kept) = index.and_then(|index| self.events.remove(index)) {
            self.bytes -= kept.bytes();
            self.counts.take(kept.count());
        }
    }

    /// A dead letter whose event was forgotten is replayed or deleted.
    pub fn revive_omitted(&mut self) {
        let revived = self.dead_omitted.min(1);
        self.dead_omitted -= revived;
        self.counts.dead -= revived;
    }

    fn forget_beyond_limit(&mut self) {
        while self.bytes > MOST_CALL_BYTES {
            let Some(forgotten) = self.events.pop_front() else { return };
            self.bytes -= forgotten.bytes();
            let count = forgotten.count();
            self.events_omitted += count.events;
            self.dead_omitted += count.dead;
            // It still counts as accepted, and as dead until the dead letter is replayed or deleted.
            self.counts.take(EventCounts { events: 0, dead: 0, ..count });
        }
    }

    fn note_type(&mut self, kind: &EventType) {
        match (EventType::KNOWN.iter().position(|known| known == kind), kind) {
            (Some(bit), _) => self.known_types |= 1 << bit,
            (None, EventType::Other(name))
                if self.other_types.len() < MOST_OTHER_TYPES
                    && !self.other_types.contains(name) =>
            {
                self.other_types.push(name.clone());
            }
            (None, _) => {}
        }
    }
}

fn read_parties(body: &[u8]) -> Parties {
    #[derive(Deserialize)]
    struct CallInitiated<'a> {
        #[serde(borrow)]
        payload: CallInitiatedPayload<'a>,
    }
    #[derive(Deserialize)]
    struct CallInitiatedPayload<'a> {
        #[serde(borrow)]
        from: Option<&'a RawValue>,
        #[serde(borrow)]
        to: Option<&'a RawValue>,
    }
    let text = |value: Option<&RawValue>| {
        value.and_then(|value| serde_json::from_str::<String>(value.get()).ok()).map(Into::into)
    };
    let read = serde_json::from_slice::<CallInitiated<'_>>(body).ok();
    read.map(|CallInitiated { payload }| Parties { from: text(payload.from), to: text(payload.to) })
        .unwrap_or_default()
}
