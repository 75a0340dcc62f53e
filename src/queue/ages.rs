//! Ages: since when has the oldest unsettled event been waiting?
//!
//! Events accepted within [`STEP`] form one run with one time, so that a full queue needs little memory here;
//! an age is up to that much too high. An event that arrives late, at a place reserved for it, counts as being
//! as old as the run before it.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::event::EventId;

/// How long after its first event a run takes others; ages are shown in seconds.
const STEP: Duration = Duration::from_millis(100);

/// Events at adjacent places.
#[derive(Debug)]
struct AgeRun {
    /// The lowest place.
    first: u64,
    /// When the first event was accepted.
    since: Instant,
    unsettled: usize,
}

/// When the unsettled events were accepted.
#[derive(Debug, Default)]
pub struct Ages {
    runs: VecDeque<AgeRun>,
    /// The highest place so far.
    newest: Option<u64>,
}

impl Ages {
    /// `since` is when the event was accepted.
    pub fn add(&mut self, place: u64, since: Instant) {
        let is_late = self.newest.is_some_and(|newest| place < newest);
        self.newest = self.newest.max(Some(place));
        match self.run_of(place) {
            // A late event gets no run of its own: later places that the run before counts would be looked
            // up in it.
            Some(run) if is_late || self.runs[run].takes(since) => {
                self.runs[run].unsettled += 1;
            }
            Some(_) => self.runs.push_back(AgeRun { first: place, since, unsettled: 1 }),
            None => self.runs.push_front(AgeRun { first: place, since, unsettled: 1 }),
        }
    }

    /// # Panics
    /// If the event was never added.
    pub fn remove(&mut self, place: u64) {
        let run = self.run_of(place).expect("an event is accepted before it is settled");
        self.runs[run].unsettled -= 1;
        if self.runs[run].unsettled == 0 {
            self.runs.remove(run);
        }
    }

    pub fn oldest(&self) -> Option<Instant> {
        self.runs.front().map(|run| run.since)
    }

    /// The last run that begins at `place` or before.
    fn run_of(&self, place: u64) -> Option<usize> {
        self.runs.partition_point(|run| run.first <= place).checked_sub(1)
    }
}

impl AgeRun {
    fn takes(&self, since: Instant) -> bool {
        since.saturating_duration_since(self.since) < STEP
    }
}

/// When a recovered event was accepted. Ids made by callhook contain the time; events with other ids count as
/// accepted now.
pub fn accepted_at(id: &EventId, now: Instant) -> Instant {
    let EventId::Made(id) = id else {
        return now;
    };
    // A printed id of a client may read back as a UUID without a time.
    let Some((seconds, nanos)) = id.get_timestamp().map(|time| time.to_unix()) else {
        return now;
    };
    let made = UNIX_EPOCH + Duration::new(seconds, nanos);
    // If the clock was set back since, the event counts as accepted now.
    let age = SystemTime::now().duration_since(made).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::{NoContext, Timestamp, Uuid};

    #[tokio::test]
    async fn an_id_that_was_made_here_tells_how_old_its_event_is() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let made = SystemTime::now() - minute;
        let unix = made.duration_since(UNIX_EPOCH).unwrap();
        let time = Timestamp::from_unix(NoContext, unix.as_secs(), unix.subsec_nanos());
        let id = EventId::Made(Uuid::new_v7(time));
        let age = now - accepted_at(&id, now);
        assert!(age.abs_diff(minute) < Duration::from_secs(5), "{age:?}");
        let given = EventId::given(&Uuid::new_v7(time).to_string()).unwrap();
        assert_eq!(accepted_at(&given, now), now);
        assert_eq!(accepted_at(&EventId::from_text(&Uuid::new_v4().to_string()), now), now);
    }

    #[test]
    fn the_oldest_is_the_first_run_with_an_event_that_is_not_settled() {
        let begun = Instant::now();
        let mut ages = Ages::default();
        for place in 0..1000 {
            ages.add(place, begun + Duration::from_millis(place));
        }
        assert_eq!(ages.runs.len(), 10);
        for place in (1..1000).rev() {
            ages.remove(place);
            assert_eq!(ages.oldest(), Some(begun));
        }
        ages.remove(0);
        assert_eq!(ages.oldest(), None);
        assert!(ages.runs.is_empty());
    }

    #[test]
    fn an_event_that_comes_late_takes_nothing_over_from_the_run_before() {
        let begun = Instant::now();
        let later = |millis| begun + Duration::from_millis(millis);
        let mut ages = Ages::default();
        ages.add(5, begun);
        ages.add(8, later(97));
        ages.add(7, later(103));
        for place in [8, 7] {
            ages.remove(place);
            assert_eq!(ages.oldest(), Some(begun));
        }
        ages.remove(5);
        assert!(ages.runs.is_empty());
    }

    #[test]
    fn one_event_that_waits_long_keeps_no_others_in_memory() {
        let begun = Instant::now();
        let mut ages = Ages::default();
        ages.add(0, begun);
        for place in 1..100 {
            ages.add(place, begun + Duration::from_secs(place));
            ages.remove(place);
        }
        assert_eq!((ages.runs.len(), ages.oldest()), (1, Some(begun)));
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
