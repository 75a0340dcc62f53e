//! Memory: which calls are remembered, and which are forgotten when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::record::{AttemptRecord, CallRecord, EventRecord, EventState};
use super::requests::RequestRecord;
use super::waits::Waits;
use crate::event::{CallId, Event, Item, Origin};

/// Payloads included: a thousand calls of 64 KiB.
const MOST_BYTES: usize = 64 * 1024 * 1024;

#[derive(Clone, Copy, Debug, Default)]
pub struct HistorySize {
    pub calls: usize,
    /// Among `calls`.
    pub live: usize,
    /// Estimated.
    pub bytes: usize,
    /// `INSPECTOR_CALLS`.
    pub limit: usize,
}

#[derive(Debug, Default)]
pub struct ChangedCalls {
    /// Without their events.
    pub calls: Vec<CallRecord>,
    /// More calls changed than fit: `calls` is empty, and the watcher has to list all calls again.
    pub overflowed: bool,
}

#[derive(Debug)]
pub struct Memory {
    most: usize,
    calls: HashMap<CallId, CallRecord>,
    /// By [`CallRecord::cursor`], so that the first is the one to forget.
    by_cursor: BTreeMap<u64, CallId>,
    next_cursor: u64,
    bytes: usize,
    live: usize,
    watched: bool,
    /// Since the last look, each call once; at most `most`.
    changed: Vec<CallId>,
    overflowed: bool,
}

impl Memory {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            calls: HashMap::new(),
            by_cursor: BTreeMap::new(),
            next_cursor: 1,
            bytes: 0,
            live: 0,
            watched: false,
            changed: Vec::new(),
            overflowed: false,
        }
    }

    pub fn accepted(&mut self, item: &Item, now: u64) {
        let kept = EventRecord::new(item.clone(), EventState::Waiting, now);
        self.note(item.event.call, now, |call| call.keep(kept));
    }

    pub fn dropped(&mut self, event: Event, now: u64) {
        let call = event.call;
        let item = Item::new(Arc::new(event), u64::MAX, Origin::Relayed);
        self.note(call, now, |call| call.keep(EventRecord::new(item, EventState::Dropped, now)));
    }

    pub fn replayed(&mut self, item: &Item, dead: u64, now: u64) {
        let id = item.event.call;
        let is_known = self.calls.contains_key(&id);
        self.note(id, now, |call| {
            let again = |kept: &mut EventRecord| {
                kept.item = item.clone();
                kept.state = EventState::Waiting;
                kept.replays += 1;
            };
            if !call.change(dead, again) {
                call.revive_omitted();
                let kept = EventRecord::new(item.clone(), EventState::Waiting, now);
                call.keep(EventRecord { replays: 1, ..kept });
            }
            if !is_known {
                // If only a dead letter is known of a call, the call is over.
                call.ended_at = Some(now);
                call.live_at = None;
            }
            call.last_at = now;
        });
    }

    pub fn withdrawn(&mut self, call: CallId, place: u64) {
        self.change(call, |call| call.remove(place));
        if self.calls.get(&call).is_some_and(|call| call.counts.events == 0 && !call.bridged) {
            self.forget(call);
        }
    }

    pub fn tried(&mut self, call: CallId, place: u64, tried: AttemptRecord, state: EventState) {
        self.change(call, |call| {
            call.change(place, |kept| {
                kept.tried(tried);
                kept.state = state;
            });
        });
    }

    pub fn died_unsent(&mut self, call: CallId, place: u64) {
        self.change(call, |call| {
            call.change(place, |kept| kept.state = EventState::Dead);
        });
    }

    pub fn deleted(&mut self, call: CallId, place: u64) {
        self.change(call, |call| {
            if !call.change(place, |kept| kept.state = EventState::Deleted) {
                call.revive_omitted();
            }
        });
    }

    pub fn routed(&mut self, call: CallId, host_and_port: &str, now: u64) {
        self.note(call, now, |call| call.routed_to = Some(host_and_port.into()));
    }

    pub fn started(&mut self, call: CallId, now: u64) {
        self.note(call, now, |call| {
            call.bridged = true;
            call.live_at = Some(now);
            (call.ended_at, call.end) = (None, None);
            call.waits = Waits::default();
        });
    }

    pub fn asked(&mut self, call: CallId, request: RequestRecord) {
        self.change(call, |call| call.keep_request(request));
    }

    pub fn first_heard(&mut self, call: CallId, waited: Duration) {
        self.change(call, |call| call.waits.first_audio = Some(waited));
    }

    pub fn responded(&mut self, call: CallId, waited: Duration) {
        self.change(call, |call| call.waits.responded(waited));
    }

    pub fn ended(&mut self, call: CallId, reason: &'static str, lasted: Duration, now: u64) {
        self.note(call, now, |call| {
            call.bridged = true;
            call.ended_at = Some(now);
            call.end = Some((reason, lasted));
        });
    }

    /// Newest first, without their events.
    pub fn calls_before(&self, cursor: u64, most: usize) -> Vec<CallRecord> {
        let newest_first = self.by_cursor.range(..cursor).rev().take(most);
        newest_first.filter_map(|(_, id)| Some(self.calls.get(id)?.without_events())).collect()
    }

    pub fn call(&self, call: CallId) -> Option<CallRecord> {
        self.calls.get(&call).cloned()
    }

    pub fn size(&self) -> HistorySize {
        let (calls, live, bytes) = (self.calls.len(), self.live, self.bytes);
        HistorySize { calls, live, bytes, limit: self.most }
    }

    pub fn watch(&mut self, watched: bool) {
        if self.watched == watched {
            return;
        }
        self.watched = watched;
        self.overflowed = false;
        for id in std::mem::take(&mut self.changed) {
            if let Some(call) = self.calls.get_mut(&id) {
                call.is_noted = false;
            }
        }
    }

    pub fn take_changed(&mut self, most: usize) -> ChangedCalls {
        let ids = std::mem::take(&mut self.changed);
        let overflowed = std::mem::take(&mut self.overflowed) || ids.len() > most;
        let mut calls = Vec::new();
        for id in ids {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            call.is_noted = false;
            if !overflowed {
                calls.push(call.without_events());
            }
        }
        ChangedCalls { calls, overflowed }
    }

    /// Changes a call, which is created if it is not known, and forgets others if there are too many.
    fn note(&mut self, id: CallId, now: u64, change: impl FnOnce(&mut CallRecord)) {
        if !self.calls.contains_key(&id) {
            let cursor = self.next_cursor;
            self.next_cursor += 1;
            let call = CallRecord::new(id, cursor, now);
            self.bytes += call.bytes();
            self.by_cursor.insert(cursor, id);
            self.calls.insert(id, call);
        }
        self.change(id, change);
        while self.calls.len() > self.most || self.bytes > MOST_BYTES {
            let Some((_, oldest)) = self.by_cursor.first_key_value() else { return };
            self.forget(*oldest);
        }
    }

    /// Does nothing if the call is not known.
    fn change(&mut self, id: CallId, change: impl FnOnce(&mut CallRecord)) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (bytes, live) = (call.bytes(), is_live(call));
        change(call);
        self.bytes = self.bytes - bytes + call.bytes();
        self.live = self.live - usize::from(live) + usize::from(is_live(call));
        if !self.watched || call.is_noted {
            return;
        }
        // Calls that come and go faster than the watcher looks must not fill the memory.
        if self.changed.len() < self.most {
            call.is_noted = true;
            self.changed.push(id);
        } else {
            self.overflowed = true;
        }
    }

    fn forget(&mut self, id: CallId) {
        let Some(call) = self.calls.remove(&id) else { return };
        self.by_cursor.remove(&call.cursor);
        self.bytes -= call.bytes();
        self.live -= usize::from(is_live(&call));
    }
}

fn is_live(call: &CallRecord) -> bool {
    call.live_at.is_some() && call.ended_at.is_none()
}

#[cfg(test)]
mod tests {
    use super::super::record::{CALL_BYTES, MOST_ATTEMPTS, MOST_CALL_BYTES};
    use super::super::requests::MOST_REQUESTS;
    use super::*;
    use crate::attempt::Attempt;
    use crate::event::{EventId, EventType, Payload, Spent};
    use crate::time::timestamp_now;

    fn item(call: CallId, bytes: usize, place: u64) -> Item {
        let payload = Payload::of(&serde_json::json!({"text": "x".repeat(bytes)}));
        let kind = EventType::Transcription;
        let event = Arc::new(Event::new(EventId::make(), call, kind, &timestamp_now(), &payload));
        Item { sequence: place, ..Item::new(event, place, Origin::Relayed) }
    }

    fn tried(number: u32) -> AttemptRecord {
        let spent = Spent { attempts: number - 1, first_failed_at: None };
        let item = Item { spent, ..item(CallId::random(), 0, 0) };
        let attempt = Attempt { item, probe: false, timeout: Duration::ZERO };
        AttemptRecord::delivered(&attempt, 200, Duration::ZERO)
    }

    #[test]
    fn the_oldest_calls_are_forgotten_beyond_the_bytes_of_all() {
        let mut memory = Memory::new(20_000);
        let calls: Vec<CallId> = (0..400).map(|_| CallId::random()).collect();
        for (place, call) in (0..).zip(&calls) {
            memory.accepted(&item(*call, MOST_CALL_BYTES - 2000, place), 1);
            assert!(memory.size().bytes <= MOST_BYTES);
        }
        let kept = memory.size().calls;
        assert_eq!(kept, MOST_BYTES / memory.call(calls[399]).unwrap().bytes());
        assert!(memory.call(calls[399 - kept]).is_none());
        assert!(memory.call(calls[400 - kept]).is_some());
    }

    #[test]
    fn an_event_that_is_larger_than_a_call_may_be_is_not_kept_but_counted() {
        let mut memory = Memory::new(1);
        let call = CallId::random();
        memory.accepted(&item(call, MOST_CALL_BYTES, 1), 1);
        memory.tried(call, 1, tried(1), EventState::Dead);
        let seen = memory.call(call).unwrap();
        assert_eq!((seen.events.len(), seen.events_omitted, seen.counts.events), (0, 1, 1));
        assert_eq!(seen.bytes(), CALL_BYTES);
    }

    #[test]
    fn what_is_dead_stays_so_when_it_is_forgotten_until_it_is_replayed() {
        let mut memory = Memory::new(1);
        let call = CallId::random();
        let lost = item(call, 10, 1);
        memory.accepted(&lost, 1);
        memory.tried(call, 1, tried(1), EventState::Dead);
        memory.accepted(&item(call, MOST_CALL_BYTES - 1100, 2), 1);
        assert_eq!(memory.call(call).unwrap().counts.dead, 1);
        memory.replayed(&Item { place: 3, ..lost }, 1, 1);
        memory.tried(call, 3, tried(1), EventState::Delivered);
        let seen = memory.call(call).unwrap();
        assert_eq!((seen.counts.dead, seen.counts.waiting), (0, 0));
    }

    #[test]
    fn the_first_attempt_and_the_last_ones_are_kept() {
        let mut memory = Memory::new(1);
        let call = CallId::random();
        memory.accepted(&item(call, 10, 1), 1);
        let before = memory.size().bytes;
        for number in 1..=100 {
            memory.tried(call, 1, tried(number), EventState::Waiting);
        }
        let seen = memory.call(call).unwrap();
        let numbers: Vec<u32> = seen.events[0].attempts.iter().map(|tried| tried.number).collect();
        assert_eq!(numbers.len(), MOST_ATTEMPTS);
        assert_eq!((numbers[0], numbers[1], numbers[MOST_ATTEMPTS - 1]), (1, 70, 100));
        assert_eq!(seen.events[0].attempts_omitted, 68);
        memory.withdrawn(call, 1);
        assert!(before > 0);
        assert_eq!((memory.size().calls, memory.size().bytes), (0, 0));
    }

    fn request(at: u64, next: Option<&str>) -> RequestRecord {
        let next = next.map(Into::into);
        RequestRecord { at, by: "agent", asked: "transfer", next, answer: "taken" }
    }

    #[test]
    fn the_last_requests_are_kept_and_their_bytes_counted() {
        let mut memory = Memory::new(2);
        let call = CallId::random();
        memory.accepted(&item(call, 10, 1), 1);
        let before = memory.size().bytes;
        memory.asked(call, request(0, None));
        let one = memory.size().bytes - before;
        memory.asked(call, request(1, Some("people,100,1")));
        assert_eq!(memory.size().bytes - before, 2 * one + "people,100,1".len());
        let most = MOST_REQUESTS as u64;
        for at in 2..most + 5 {
            memory.asked(call, request(at, None));
        }
        assert_eq!(memory.size().bytes - before, MOST_REQUESTS * one);
        let seen = memory.call(call).unwrap();
        let times: Vec<u64> = seen.requests.kept.iter().map(|request| request.at).collect();
        assert_eq!(times, (5..most + 5).collect::<Vec<u64>>());
        assert_eq!(seen.requests.omitted, 5);
        assert!(memory.calls_before(u64::MAX, 9)[0].requests.kept.is_empty());
    }

    #[test]
    fn a_request_about_a_call_that_is_not_known_is_forgotten() {
        let mut memory = Memory::new(1);
        memory.asked(CallId::random(), request(1, None));
        assert_eq!((memory.size().calls, memory.size().bytes), (0, 0));
    }

    #[test]
    fn waits_are_those_of_the_last_connection() {
        let mut memory = Memory::new(1);
        let (call, millis) = (CallId::random(), Duration::from_millis);
        memory.started(call, 1);
        memory.first_heard(call, millis(700));
        for waited in [300, 900, 500] {
            memory.responded(call, millis(waited));
        }
        let waits = memory.call(call).unwrap().waits;
        assert_eq!((waits.first_audio, waits.responses), (Some(millis(700)), 3));
        assert_eq!(
            (waits.last_response, waits.worst_response),
            (Some(millis(500)), Some(millis(900)))
        );
        memory.started(call, 2);
        assert_eq!(memory.call(call).unwrap().waits, Waits::default());
    }

    #[test]
    fn what_changes_is_noted_once_a_call_and_for_no_more_calls_than_are_kept() {
        let mut memory = Memory::new(3);
        let call = CallId::random();
        memory.accepted(&item(call, 10, 1), 1);
        assert!(memory.take_changed(9).calls.is_empty(), "nobody watched");
        memory.watch(true);
        memory.tried(call, 1, tried(1), EventState::Delivered);
        memory.accepted(&item(call, 10, 2), 1);
        let changed = memory.take_changed(9);
        assert_eq!((changed.calls.len(), changed.overflowed), (1, false));
        for place in 3..9 {
            memory.accepted(&item(CallId::random(), 10, place), 1);
        }
        assert!(memory.changed.len() <= 3);
        assert!(memory.take_changed(9).overflowed);
        assert!(!memory.take_changed(9).overflowed);
    }

    #[test]
    fn a_call_that_only_a_replay_is_known_of_is_over() {
        let mut memory = Memory::new(3);
        let call = CallId::random();
        memory.replayed(&item(call, 10, 9), 1, 1);
        assert_eq!(memory.size().live, 0);
        assert!(memory.call(call).unwrap().ended_at.is_some());
    }
}
