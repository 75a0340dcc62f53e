//! Window: which ids were given lately?
//!
//! The same id again within [`KEPT`] answers the same and queues nothing. Only ids that clients
//! named are kept; those made here are never sent in.
//!
//! Limit: [`MOST`] ids, the oldest forgotten first: at most 128 bytes each, kept twice, and for a
//! `call_initiated` its decision.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::slot::Slot;
use crate::event::EventId;
use crate::journal::{KnownId, Ticket};
use crate::routing::Decision;

/// How long an id is remembered.
pub const KEPT: Duration = Duration::from_secs(60 * 60);

/// The most ids that are remembered: 55 a second for the whole hour.
pub const MOST: usize = 200_000;

/// What is known of an id that was given.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Where the decision is found, for a `call_initiated`.
    pub slot: Option<Slot>,
    /// The promise that the event is kept; `None` if it was made before the last start.
    pub ticket: Option<Ticket>,
}

/// The ids of the last hour.
#[derive(Debug, Default)]
pub struct Window {
    known: HashMap<EventId, Known>,
    order: VecDeque<(Instant, EventId)>,
    /// Ids whose hour is over, for the journal to forget them too.
    forgotten: Vec<EventId>,
}

impl Window {
    /// Takes the ids that the journal holds; returns those whose hour is over.
    pub fn restore(
        &mut self,
        mut ids: Vec<KnownId>,
        now: Instant,
        unix_millis: u64,
    ) -> Vec<EventId> {
        ids.sort_by_key(|known| known.at);
        for KnownId { id, at, decision } in ids {
            let age = Duration::from_millis(unix_millis.saturating_sub(at));
            let slot = decision.and_then(|given| Decision::recall(&given)).map(Slot::decided);
            match now.checked_sub(age).filter(|_| age <= KEPT) {
                Some(since) => self.remember(id, Known { slot, ticket: None }, since),
                None => self.forgotten.push(id),
            }
        }
        self.take_forgotten()
    }

    /// What was answered for this id, if it was given lately.
    pub fn find(&mut self, id: &EventId, now: Instant) -> Option<Known> {
        self.forget(now);
        self.known.get(id).cloned()
    }

    /// Remembers an id that [`Window::find`] did not know.
    pub fn remember(&mut self, id: EventId, known: Known, now: Instant) {
        self.order.push_back((now, id.clone()));
        self.known.insert(id, known);
        self.forget(now);
    }

    /// The event was not kept after all: its id may be given again.
    pub fn revoke(&mut self, id: &EventId) {
        if self.known.remove(id).is_some() {
            self.order.retain(|(_, known)| known != id);
            self.forgotten.push(id.clone());
        }
    }

    /// The ids that were forgotten since the last time.
    pub fn take_forgotten(&mut self) -> Vec<EventId> {
        std::mem::take(&mut self.forgotten)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front() {
            if self.order.len() <= MOST && now.duration_since(*since) <= KEPT {
                return;
            }
            let (_, id) = self.order.pop_front().expect("the front was just looked at");
            self.known.remove(&id);
            self.forgotten.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> EventId {
        EventId::given(&n.to_string()).unwrap()
    }

    #[test]
    fn an_id_is_known_for_an_hour() {
        let mut window = Window::default();
        let start = Instant::now();
        window.remember(id(1), Known::default(), start);
        assert!(window.find(&id(1), start + KEPT).is_some());
        let later = start + KEPT + Duration::from_millis(1);
        assert!(window.find(&id(1), later).is_none());
    }

    #[test]
    fn the_oldest_ids_are_forgotten_beyond_the_limit() {
        let mut window = Window::default();
        let now = Instant::now();
        for n in 0..=MOST {
            window.remember(id(n), Known::default(), now);
        }
        assert!(window.find(&id(0), now).is_none());
        assert!(window.find(&id(1), now).is_some());
        assert!(window.find(&id(MOST), now).is_some());
    }
}
