//! History: what happened lately?
//!
//! Remembers recent calls with their events and attempts, what was asked about them, and how long their callers waited,
//! for the inspector. The queue, the bridge and the agent's routes report to it; nothing flows back. Views are built on
//! request, from a copy, outside the lock.
//!
//! Invariants:
//! - A cache, in memory only: nothing depends on it.
//! - A report takes one short lock, parses nothing and copies no payload. With `INSPECTOR_CALLS=0` it does
//!   not even take the lock.
//!
//! Limits: `INSPECTOR_CALLS` calls and 64 MiB in all, where the calls first seen are forgotten first; 256 KiB
//! per call, where its oldest events are forgotten first; 32 attempts per event, where those after the first
//! are forgotten first; 20 requests per call, where the oldest are forgotten first.

mod memory;
mod record;
mod requests;
mod waits;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use self::memory::{ChangedCalls, HistorySize, Memory};
pub use self::record::{
    AttemptRecord, CallPhase, CallRecord, EventCounts, EventRecord, EventState,
};
pub use self::requests::RequestRecord;
use crate::attempt::{Attempt, Failure};
use crate::event::{CallId, Event, Item};
use crate::time::unix_millis;

/// Clones share one memory. The default remembers nothing.
#[derive(Clone, Default)]
pub struct History(Option<Arc<Mutex<Memory>>>);

impl History {
    /// Remembers at most `most` calls; 0 = nothing.
    pub fn of_calls(most: usize) -> Self {
        Self((most > 0).then(|| Arc::new(Mutex::new(Memory::new(most)))))
    }

    pub fn accepted(&self, item: &Item) {
        self.tell(|memory| memory.accepted(item, unix_millis()));
    }

    /// The event was accepted, but its type is not delivered.
    pub fn dropped(&self, event: Event) {
        self.tell(|memory| memory.dropped(event, unix_millis()));
    }

    /// `dead` is the place of the dead letter that is sent again as `item`.
    pub fn replayed(&self, item: &Item, dead: u64) {
        self.tell(|memory| memory.replayed(item, dead, unix_millis()));
    }

    /// The event will not be sent: the disk refused it before its sender was told that it was accepted.
    pub fn withdrawn(&self, call: CallId, place: u64) {
        self.tell(|memory| memory.withdrawn(call, place));
    }

    pub fn delivered(&self, attempt: &Attempt, status: u16, took: Duration) {
        let (call, place) = (attempt.item.event.call, attempt.item.place);
        self.tell(|memory| {
            let tried = AttemptRecord::delivered(attempt, status, took);
            memory.tried(call, place, tried, EventState::Delivered);
        });
    }

    /// `given_up`: it was the last attempt.
    pub fn failed(&self, attempt: &Attempt, failure: &Failure, given_up: bool) {
        let (call, place) = (attempt.item.event.call, attempt.item.place);
        let state = if given_up { EventState::Dead } else { EventState::Waiting };
        self.tell(|memory| {
            memory.tried(call, place, AttemptRecord::failed(attempt, failure), state);
        });
    }

    /// Given up without an attempt.
    pub fn died_unsent(&self, call: CallId, place: u64) {
        self.tell(|memory| memory.died_unsent(call, place));
    }

    /// The dead letter was deleted.
    pub fn deleted(&self, call: CallId, place: u64) {
        self.tell(|memory| memory.deleted(call, place));
    }

    /// The receiver's decision was followed.
    pub fn routed(&self, call: CallId, host_and_port: &str) {
        self.tell(|memory| memory.routed(call, host_and_port, unix_millis()));
    }

    /// callhook bridges the call.
    pub fn started(&self, call: CallId) {
        self.tell(|memory| memory.started(call, unix_millis()));
    }

    /// Something was asked about a call, and answered. Forgotten where the call is not known: whoever asks about others
    /// must not push out calls.
    pub fn asked(&self, call: CallId, request: RequestRecord) {
        self.tell(|memory| memory.asked(call, request));
    }

    /// The caller heard the agent for the first time.
    pub fn first_heard(&self, call: CallId, waited: Duration) {
        self.tell(|memory| memory.first_heard(call, waited));
    }

    /// The agent answered what the user had said.
    pub fn responded(&self, call: CallId, waited: Duration) {
        self.tell(|memory| memory.responded(call, waited));
    }

    pub fn ended(&self, call: CallId, reason: &'static str, lasted: Duration, at: u64) {
        self.tell(|memory| memory.ended(call, reason, lasted, at));
    }

    /// At most `most` calls below `cursor`, newest first, without their events: one page at a time, so that the
    /// lock is held briefly.
    pub fn calls_before(&self, cursor: u64, most: usize) -> Vec<CallRecord> {
        self.look(|memory| memory.calls_before(cursor, most)).unwrap_or_default()
    }

    /// With its events.
    pub fn call(&self, call: CallId) -> Option<CallRecord> {
        self.look(|memory| memory.call(call)).flatten()
    }

    pub fn size(&self) -> HistorySize {
        self.look(|memory| memory.size()).unwrap_or_default()
    }

    /// Switches recording of changes for [`History::take_changed`] on or off.
    pub fn watch(&self, watched: bool) {
        self.tell(|memory| memory.watch(watched));
    }

    /// The calls that changed since the last time, unless they are more than `most`.
    pub fn take_changed(&self, most: usize) -> ChangedCalls {
        self.look(|memory| memory.take_changed(most)).unwrap_or_default()
    }

    fn tell(&self, tell: impl FnOnce(&mut Memory)) {
        if let Some(memory) = &self.0 {
            tell(&mut lock(memory));
        }
    }

    fn look<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> Option<T> {
        self.0.as_ref().map(|memory| look(&mut lock(memory)))
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().expect("nothing panics while it holds this lock")
}
