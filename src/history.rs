//! History: what happened lately?
//!
//! Remembers the last calls, their events and every attempt, for whoever looks through the inspector.
//! The queue and the bridge tell it what happens; it tells them nothing. What is shown of a call is made
//! when somebody looks, from a copy, outside the lock.
//!
//! Invariants:
//! - A cache of the process: it survives nothing, and nothing depends on it.
//! - Telling it something takes one short lock, parses nothing and copies no payload. Without a memory
//!   (`INSPECTOR_CALLS=0`) it takes no lock either.
//!
//! Limits: `INSPECTOR_CALLS` calls and 64 MiB in all, the calls first seen longest ago forgotten
//! first; 256 KiB a call, its oldest events forgotten first; 32 attempts an
//! event, those in the middle forgotten first.

mod memory;
mod record;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use self::memory::{ChangedCalls, HistorySize, Memory};
pub use self::record::{
    AttemptRecord, CallPhase, CallRecord, EventCounts, EventRecord, EventState,
};
use crate::attempt::{Attempt, Failure};
use crate::event::{CallId, Event, Item};
use crate::time::unix_millis;

/// The memory's handle; clones share one memory. The default remembers nothing.
#[derive(Clone, Default)]
pub struct History(Option<Arc<Mutex<Memory>>>);

impl History {
    /// A memory of so many calls; of none, it costs nothing.
    pub fn of_calls(most: usize) -> Self {
        Self((most > 0).then(|| Arc::new(Mutex::new(Memory::new(most)))))
    }

    /// Whether anything is remembered.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub fn accepted(&self, item: &Item) {
        self.tell(|memory| memory.accepted(item, unix_millis()));
    }

    /// An event was taken whose type is not delivered.
    pub fn dropped(&self, event: Event) {
        self.tell(|memory| memory.dropped(event, unix_millis()));
    }

    /// The dead letter with this place was taken again, as this item.
    pub fn replayed(&self, item: &Item, dead: u64) {
        self.tell(|memory| memory.replayed(item, dead, unix_millis()));
    }

    /// An event was taken back: it is promised to nobody, and not sent.
    pub fn withdrawn(&self, call: CallId, place: u64) {
        self.tell(|memory| memory.withdrawn(call, place));
    }

    /// An attempt was answered with this 2xx.
    pub fn delivered(&self, attempt: &Attempt, status: u16, took: Duration) {
        let (call, place) = (attempt.item.event.call, attempt.item.place);
        self.tell(|memory| {
            let tried = AttemptRecord::delivered(attempt, status, took);
            memory.tried(call, place, tried, EventState::Delivered);
        });
    }

    /// An attempt failed, be it the last one.
    pub fn failed(&self, attempt: &Attempt, failure: &Failure, given_up: bool) {
        let (call, place) = (attempt.item.event.call, attempt.item.place);
        let standing = if given_up { EventState::Dead } else { EventState::Waiting };
        self.tell(|memory| {
            memory.tried(call, place, AttemptRecord::failed(attempt, failure), standing);
        });
    }

    /// An event was given up without any attempt.
    pub fn died_unsent(&self, call: CallId, place: u64) {
        self.tell(|memory| memory.died_unsent(call, place));
    }

    /// A dead letter was deleted.
    pub fn deleted(&self, call: CallId, place: u64) {
        self.tell(|memory| memory.deleted(call, place));
    }

    /// The receiver's decision for the call was followed; `place` is the host that it named.
    pub fn routed(&self, call: CallId, place: &str) {
        self.tell(|memory| memory.routed(call, place, unix_millis()));
    }

    /// callhook bridges the call from now on.
    pub fn started(&self, call: CallId) {
        self.tell(|memory| memory.started(call, unix_millis()));
    }

    /// callhook does not bridge the call any more, for this reason.
    pub fn ended(&self, call: CallId, reason: &'static str, lasted: Duration) {
        self.tell(|memory| memory.ended(call, reason, lasted, unix_millis()));
    }

    /// The calls first seen before `cursor`, newest first, at most `most`, without their events; a page
    /// is copied at a time, so that the lock stays short.
    pub fn calls_before(&self, cursor: u64, most: usize) -> Vec<CallRecord> {
        self.look(|memory| memory.calls_before(cursor, most)).unwrap_or_default()
    }

    /// A call with its events.
    pub fn call(&self, call: CallId) -> Option<CallRecord> {
        self.look(|memory| memory.call(call)).flatten()
    }

    /// How much is remembered.
    pub fn size(&self) -> HistorySize {
        self.look(|memory| memory.size()).unwrap_or_default()
    }

    /// Whether somebody asks for [`History::take_changed`]; until then nobody notes what changes.
    pub fn watch(&self, watched: bool) {
        self.tell(|memory| memory.watch(watched));
    }

    /// What changed since the last time, at most so many calls.
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
