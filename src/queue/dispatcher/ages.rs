//! Ages: since when has the oldest event that is not settled been waiting?
//!
//! Events that were accepted within [`STEP`] are kept as one run with one time, so that a full queue
//! costs no memory for it; an age is told up to that much too old.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How far apart the events of one run may be: ages are read in seconds.
const STEP: Duration = Duration::from_millis(100);

/// Events of neighbouring places.
#[derive(Debug)]
struct Run {
    /// The place of the first among all that were accepted.
    first: u64,
    /// When that was accepted.
    since: Instant,
    /// How many of them are not settled.
    unsettled: u32,
}

/// When the events were accepted that are not settled.
#[derive(Debug, Default)]
pub struct Ages(VecDeque<Run>);

impl Ages {
    /// An event was accepted then.
    pub fn add(&mut self, order: u64, since: Instant) {
        match self.run_of(order) {
            // It comes late, to a place that was reserved for it, or soon after the run's first.
            Some(place) if place + 1 < self.0.len() || self.0[place].takes(since) => {
                self.0[place].unsettled += 1;
            }
            found => {
                let place = found.map_or(0, |place| place + 1);
                self.0.insert(place, Run { first: order, since, unsettled: 1 });
            }
        }
    }

    /// An event was settled.
    ///
    /// # Panics
    /// If it was never added.
    pub fn remove(&mut self, order: u64) {
        let place = self.run_of(order).expect("an event that is settled was accepted");
        self.0[place].unsettled -= 1;
        while self.0.front().is_some_and(|run| run.unsettled == 0) {
            self.0.pop_front();
        }
    }

    /// When the oldest was accepted.
    pub fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|run| run.since)
    }

    /// The last run that begins no later.
    fn run_of(&self, order: u64) -> Option<usize> {
        self.0.partition_point(|run| run.first <= order).checked_sub(1)
    }
}

impl Run {
    fn takes(&self, since: Instant) -> bool {
        since.saturating_duration_since(self.since) < STEP && self.unsettled < u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_first_run_with_an_event_that_is_not_settled() {
        let begun = Instant::now();
        let mut ages = Ages::default();
        for order in 0..1000 {
            ages.add(order, begun + Duration::from_millis(order));
        }
        assert_eq!(ages.0.len(), 10);
        for order in (1..1000).rev() {
            ages.remove(order);
            assert_eq!(ages.oldest(), Some(begun));
        }
        ages.remove(0);
        assert_eq!(ages.oldest(), None);
        assert!(ages.0.is_empty());
    }

    #[test]
    fn an_event_that_comes_late_to_its_place_is_found_again() {
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        let mut ages = Ages::default();
        ages.add(5, later(5));
        ages.add(9, later(9));
        // Before all that are left, and between them.
        ages.add(2, later(2));
        ages.add(7, later(10));
        assert_eq!(ages.oldest(), Some(later(2)));
        ages.remove(2);
        ages.remove(5);
        assert_eq!(ages.oldest(), Some(later(5)), "the seventh is of its run");
        ages.remove(7);
        assert_eq!(ages.oldest(), Some(later(9)));
        ages.remove(9);
        assert_eq!(ages.oldest(), None);
    }
}
