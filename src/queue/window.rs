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

/// How long an id is remembered.
pub const KEPT: Duration = Duration::from_secs(60 * 60);

/// The most ids that are remembered: 55 a second for the whole hour.
pub const MOST: usize = 200_000;

/// The ids of the last hour, with where a routed call's decision is found.
#[derive(Debug, Default)]
pub struct Window {
    slots: HashMap<EventId, Option<Slot>>,
    order: VecDeque<(Instant, EventId)>,
}

impl Window {
    /// What was answered for this id, if it was given lately.
    pub fn find(&mut self, id: &EventId, now: Instant) -> Option<Option<Slot>> {
        self.forget(now);
        self.slots.get(id).cloned()
    }

    /// Remembers an id that [`Window::find`] did not know.
    pub fn remember(&mut self, id: EventId, slot: Option<Slot>, now: Instant) {
        self.order.push_back((now, id.clone()));
        self.slots.insert(id, slot);
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front() {
            if self.order.len() <= MOST && now.duration_since(*since) <= KEPT {
                return;
            }
            let (_, id) = self.order.pop_front().expect("the front was just looked at");
            self.slots.remove(&id);
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
        window.remember(id(1), None, start);
        assert!(window.find(&id(1), start + KEPT).is_some());
        let later = start + KEPT + Duration::from_millis(1);
        assert!(window.find(&id(1), later).is_none());
    }

    #[test]
    fn the_oldest_ids_are_forgotten_beyond_the_limit() {
        let mut window = Window::default();
        let now = Instant::now();
        for n in 0..=MOST {
            window.remember(id(n), None, now);
        }
        assert!(window.find(&id(0), now).is_none());
        assert!(window.find(&id(1), now).is_some());
        assert!(window.find(&id(MOST), now).is_some());
    }
}
