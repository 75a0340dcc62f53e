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
//! Limits: `INSPECTOR_CALLS` calls and [`MOST_BYTES`] in all, the calls first seen longest ago forgotten
//! first; [`MOST_CALL_BYTES`] a call, its oldest events forgotten first; [`MOST_ATTEMPTS`] attempts an
//! event, those in the middle forgotten first.

mod memory;
mod record;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use self::memory::Memory;
pub use self::record::{Call, Counts, Kept, Phase, Standing, Tried};
use crate::attempt::{Attempt, Failure};
use crate::event::{CallId, Event};
use crate::time::unix_millis;

/// The most bytes that are remembered in all, payloads included: a thousand calls of 64 KiB.
pub const MOST_BYTES: usize = 64 * 1024 * 1024;

/// The most bytes that are remembered of one call, payloads included: some five hundred events.
pub const MOST_CALL_BYTES: usize = 256 * 1024;

/// The most attempts of an event that are remembered: the first one, and the last ones.
pub const MOST_ATTEMPTS: usize = 32;

/// The memory's handle; clones share one memory. The default remembers nothing.
#[derive(Clone, Default)]
pub struct History(Option<Arc<Mutex<Memory>>>);

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events taken into the queue, replays included.
    pub accepted: u64,
    /// Events delivered.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events given up.
    pub dead: u64,
}

/// What a look at the memory as a whole shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Calls that are remembered.
    pub calls: usize,
    /// Those that are live.
    pub live: usize,
    /// Bytes, by estimate.
    pub bytes: usize,
    /// `INSPECTOR_CALLS`.
    pub limit: usize,
}

/// What changed since it was last asked for.
#[derive(Debug, Default)]
pub struct Changed {
    /// The calls that did, without their events.
    pub calls: Vec<Call>,
    /// Whether more changed than were asked for: whoever watches has to look at all again.
    pub overflowed: bool,
}

impl History {
    /// A memory of so many calls; of none, it costs nothing.
    pub fn of_calls(most: usize) -> Self {
        Self((most > 0).then(|| Arc::new(Mutex::new(Memory::new(most)))))
    }

    /// Whether anything is remembered.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// An event was taken, with its places among all and within the call.
    pub fn accepted(&self, event: &Arc<Event>, order: u64, sequence: u64) {
        self.tell(|memory| memory.accepted(event, order, sequence, unix_millis()));
    }

    /// An event was taken whose type is not delivered.
    pub fn dropped(&self, event: Event) {
        self.tell(|memory| memory.dropped(&Arc::new(event), unix_millis()));
    }

    /// A dead letter was taken again, under a new place among all.
    pub fn replayed(&self, event: &Arc<Event>, dead: u64, order: u64, sequence: u64) {
        self.tell(|memory| memory.replayed(event, dead, order, sequence, unix_millis()));
    }

    /// An event was taken back: it is promised to nobody, and not sent.
    pub fn withdrawn(&self, call: CallId, order: u64) {
        self.tell(|memory| memory.withdrawn(call, order));
    }

    /// An attempt was answered with this 2xx.
    pub fn delivered(
        &self,
        attempt: &Attempt,
        order: u64,
        probe: bool,
        status: u16,
        took: Duration,
    ) {
        let call = attempt.event.call;
        self.tell(|memory| {
            let tried = Tried::delivered(attempt.number, probe, status, took);
            memory.tried(call, order, tried, Standing::Delivered);
        });
    }

    /// An attempt failed, be it the last one.
    pub fn failed(
        &self,
        attempt: &Attempt,
        order: u64,
        probe: bool,
        failure: &Failure,
        given_up: bool,
    ) {
        let call = attempt.event.call;
        let standing = if given_up { Standing::Dead } else { Standing::Waiting };
        self.tell(|memory| {
            let tried = Tried::failed(attempt.number, probe, failure);
            memory.tried(call, order, tried, standing);
        });
    }

    /// An event was given up without any attempt.
    pub fn died_unsent(&self, call: CallId, order: u64) {
        self.tell(|memory| memory.died_unsent(call, order));
    }

    /// A dead letter was deleted.
    pub fn deleted(&self, call: CallId, order: u64) {
        self.tell(|memory| memory.deleted(call, order));
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
    pub fn calls_before(&self, cursor: u64, most: usize) -> Vec<Call> {
        self.look(|memory| memory.calls_before(cursor, most)).unwrap_or_default()
    }

    /// A call with its events.
    pub fn call(&self, call: CallId) -> Option<Call> {
        self.look(|memory| memory.call(call)).flatten()
    }

    /// What was counted since the start.
    pub fn totals(&self) -> Totals {
        self.look(|memory| memory.totals).unwrap_or_default()
    }

    /// How much is remembered.
    pub fn size(&self) -> Size {
        self.look(|memory| memory.size()).unwrap_or_default()
    }

    /// Whether somebody asks for [`History::take_changed`]; until then nobody notes what changes.
    pub fn watch(&self, watched: bool) {
        self.tell(|memory| memory.watch(watched));
    }

    /// What changed since the last time, at most so many calls.
    pub fn take_changed(&self, most: usize) -> Changed {
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
