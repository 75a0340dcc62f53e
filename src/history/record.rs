//! Records: what is remembered of a call, an event and an attempt.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::attempt::{Attempt, Failure};
use crate::event::{CallId, Event, EventId, EventType, Item};
use crate::time::{millis, unix_millis};

/// The most bytes that are remembered of one call, payloads included: some five hundred events.
pub const MOST_CALL_BYTES: usize = 256 * 1024;

/// The most attempts of an event that are remembered: the first one, and the last ones.
pub const MOST_ATTEMPTS: usize = 32;

/// What a call costs without its events, in bytes, by estimate; its share of the index included.
pub const CALL_BYTES: usize = 640;

/// What an event costs without its body.
const EVENT_BYTES: usize = 256;

/// What an attempt costs without its error.
const ATTEMPT_BYTES: usize = 64;

/// The most names of types that are noted of a call, beside those known by name.
const MOST_OTHER_TYPES: usize = 8;

/// How long an announced call may take until somebody answers; after it nobody will.
const RINGING: Duration = Duration::from_secs(10 * 60);

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPhase {
    /// It was announced.
    Announced,
    /// Somebody talks.
    Live,
    /// It is over.
    Ended,
    /// It was announced ten minutes ago, and nothing came of it.
    Abandoned,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventState {
    /// It is in the queue.
    Waiting,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Dead,
    /// It was given up, and its dead letter deleted.
    Deleted,
    /// Its type is not delivered.
    Dropped,
}

/// An attempt that was made.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// 1, 2, … for this event.
    pub number: u32,
    /// When it began, in Unix milliseconds.
    pub at: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// Why it failed: the code, and the sentence.
    pub failure: Option<(&'static str, Box<str>)>,
    /// Whether it probed a receiver that was down.
    pub probe: bool,
}

/// An item that is remembered.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// As it was taken last.
    pub item: Item,
    /// When callhook took it, in Unix milliseconds.
    pub accepted_at: u64,
    /// Where it stands.
    pub standing: EventState,
    /// How often it was replayed.
    pub replays: u32,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Attempts that are not remembered.
    pub attempts_omitted: u32,
}

/// How a call's events stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// All that were taken.
    pub events: u32,
    /// In the queue.
    pub waiting: u32,
    /// Those of them of which an attempt failed.
    pub retrying: u32,
    /// Given up.
    pub dead: u32,
}

/// Who talks, as `call_initiated` said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parties {
    /// The caller.
    pub from: Option<Box<str>>,
    /// The callee.
    pub to: Option<Box<str>>,
}

/// A call that is remembered.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// Which.
    pub id: CallId,
    /// Its place among the calls, in the order they were first seen.
    pub place: u64,
    /// When it was first seen, in Unix milliseconds.
    pub first_at: u64,
    /// When something happened last, in Unix milliseconds.
    pub last_at: u64,
    /// When somebody began to talk, in Unix milliseconds.
    pub live_at: Option<u64>,
    /// When it ended, in Unix milliseconds.
    pub ended_at: Option<u64>,
    /// Why, and how long it was, if callhook bridged it.
    pub end: Option<(&'static str, Duration)>,
    /// Whether callhook bridges it.
    pub bridged: bool,
    /// The place that the receiver routed it to.
    pub routed_to: Option<Box<str>>,
    /// How its events stand.
    pub counts: EventCounts,
    /// Its events, oldest first; empty in a copy that was asked for without them.
    pub events: VecDeque<EventRecord>,
    /// Events that are not remembered any more.
    pub events_omitted: u32,
    /// The dead ones among them.
    dead_omitted: u32,
    known_types: u8,
    other_types: Vec<Box<str>>,
    announcement: Option<Arc<Event>>,
    parties: Arc<OnceLock<Parties>>,
    bytes: usize,
    /// Whether the change is noted for those who watch.
    pub(super) is_noted: bool,
}

impl AttemptRecord {
    /// One that was answered with a 2xx, just now.
    pub fn delivered(attempt: &Attempt, status: u16, took: Duration) -> Self {
        Self { status: Some(status), failure: None, ..Self::just_now(attempt, took) }
    }

    /// One that failed, just now.
    pub fn failed(attempt: &Attempt, failure: &Failure) -> Self {
        Self {
            status: failure.status,
            failure: Some((failure.code.name(), failure.error.as_str().into())),
            ..Self::just_now(attempt, failure.took)
        }
    }

    fn just_now(attempt: &Attempt, took: Duration) -> Self {
        let duration_ms = millis(took);
        let at = unix_millis().saturating_sub(duration_ms);
        let (number, probe) = (attempt.number(), attempt.probe);
        Self { number, at, duration_ms, status: None, failure: None, probe }
    }

    fn bytes(&self) -> usize {
        ATTEMPT_BYTES + self.failure.as_ref().map_or(0, |(_, error)| error.len())
    }
}

impl EventRecord {
    /// One that was just taken.
    pub fn new(item: Item, standing: EventState, now: u64) -> Self {
        Self {
            item,
            accepted_at: now,
            standing,
            replays: 0,
            attempts: Vec::new(),
            attempts_omitted: 0,
        }
    }

    /// What it costs, in bytes, by estimate.
    pub fn bytes(&self) -> usize {
        let given = match &self.item.event.id {
            EventId::Given(id) => id.len(),
            EventId::Made(_) => 0,
        };
        let attempts: usize = self.attempts.iter().map(AttemptRecord::bytes).sum();
        EVENT_BYTES + self.item.event.body.len() + given + attempts
    }

    /// Remembers another attempt: in the middle there is most of the same.
    pub fn tried(&mut self, tried: AttemptRecord) {
        if self.attempts.len() == MOST_ATTEMPTS {
            self.attempts.remove(1);
            self.attempts_omitted += 1;
        }
        if self.attempts.is_empty() {
            // Nearly every event is tried once.
            self.attempts.reserve_exact(1);
        }
        self.attempts.push(tried);
    }

    fn count(&self) -> EventCounts {
        let waiting = self.standing == EventState::Waiting;
        let tried = self.attempts.last().is_some_and(|last| last.failure.is_some());
        EventCounts {
            events: 1,
            waiting: u32::from(waiting),
            retrying: u32::from(waiting && tried),
            dead: u32::from(self.standing == EventState::Dead),
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
    /// A call that was just seen for the first time.
    pub fn new(id: CallId, place: u64, now: u64) -> Self {
        Self {
            id,
            place,
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
            dead_omitted: 0,
            known_types: 0,
            other_types: Vec::new(),
            announcement: None,
            parties: Arc::default(),
            bytes: CALL_BYTES,
            is_noted: false,
        }
    }

    /// Where it stands.
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

    /// How long it has been live, or was, in milliseconds; `None` before it is.
    pub fn duration_ms(&self, now: u64) -> Option<u64> {
        if let Some((_, lasted)) = self.end {
            return Some(millis(lasted));
        }
        Some(self.ended_at.unwrap_or(now).saturating_sub(self.live_at?))
    }

    /// Who talks; read from the payload when it is asked for the first time.
    pub fn parties(&self) -> Option<&Parties> {
        let announcement = self.announcement.as_ref()?;
        Some(self.parties.get_or_init(|| read_parties(&announcement.body)))
    }

    /// The names of its events' types, those known by name first.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        let known = EventType::KNOWN.iter().enumerate();
        let known = known.filter(|(bit, _)| self.known_types & (1 << bit) != 0);
        known.map(|(_, kind)| kind.name()).chain(self.other_types.iter().map(AsRef::as_ref))
    }

    /// What it costs, in bytes, by estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same without its events.
    pub fn without_events(&self) -> Self {
        Self {
            events: VecDeque::new(),
            other_types: self.other_types.clone(),
            routed_to: self.routed_to.clone(),
            announcement: self.announcement.clone(),
            parties: Arc::clone(&self.parties),
            ..*self
        }
    }

    /// Remembers another event.
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

    /// Changes the event with this place; `false` if it is not remembered.
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

    /// Forgets the event with this place.
    pub fn remove(&mut self, place: u64) {
        let index = self.events.iter().rposition(|kept| kept.item.place == place);
        if let Some(kept) = index.and_then(|index| self.events.remove(index)) {
            self.bytes -= kept.bytes();
            self.counts.take(kept.count());
        }
    }

    /// A dead event that is not remembered is dead no more.
    pub fn revive_omitted(&mut self) {
        let revived = self.dead_omitted.min(1);
        self.dead_omitted -= revived;
        self.counts.dead -= revived;
    }

    fn forget_beyond_limit(&mut self) {
        while self.bytes > MOST_CALL_BYTES {
            let Some(forgotten) = self.events.pop_front() else { return };
            self.bytes -= forgotten.bytes();
            self.events_omitted += 1;
            let count = forgotten.count();
            self.dead_omitted += count.dead;
            // It was taken all the same, and what is dead stays so.
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
    struct Envelope<'a> {
        #[serde(borrow)]
        payload: Payload<'a>,
    }
    #[derive(Deserialize)]
    struct Payload<'a> {
        #[serde(borrow)]
        from: Option<&'a RawValue>,
        #[serde(borrow)]
        to: Option<&'a RawValue>,
    }
    let text = |value: Option<&RawValue>| {
        value.and_then(|value| serde_json::from_str::<String>(value.get()).ok()).map(Into::into)
    };
    let read = serde_json::from_slice::<Envelope<'_>>(body).ok();
    read.map(|Envelope { payload }| Parties { from: text(payload.from), to: text(payload.to) })
        .unwrap_or_default()
}
