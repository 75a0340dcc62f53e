//! Vitals: how the queue and the receiver are, for whoever looks from outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Inner, Queue};
use crate::event::EventId;

/// How the queue and the receiver are at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Events accepted and not yet settled.
    pub events: usize,
    /// Attempts under way.
    pub in_flight: usize,
    /// How long the oldest event that is not settled waits, where there is one.
    pub oldest: Option<Duration>,
    /// Whether the receiver counts as down.
    pub down: bool,
    /// Whether the receiver asked to be left alone, and still is.
    pub paused: bool,
    /// Whether its routing counts as broken.
    pub routing_broken: bool,
}

impl Queue {
    /// How it is now. Holds the lock for a few reads, however many events wait.
    pub fn vitals(&self) -> Vitals {
        self.0.lock().dispatcher.vitals(Instant::now())
    }
}

impl Inner {
    /// Sets what is told once.
    pub(super) fn tell_limits(&self) {
        let limits = self.settings.limits;
        self.metrics.queue.limit.set(limits.queue.try_into().unwrap_or(i64::MAX));
        self.metrics.attempts.limit.set(limits.concurrency.try_into().unwrap_or(i64::MAX));
    }
}

/// When an event of the journal was accepted: an id that was made here holds the time, and others are
/// taken as accepted now.
pub fn accepted_at(id: &EventId, now: Instant) -> Instant {
    let EventId::Made(id) = id else {
        return now;
    };
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |time| time.to_unix());
    let made = UNIX_EPOCH + Duration::new(seconds, nanos);
    // A clock that was set back makes it as old as the process.
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
    }
}
