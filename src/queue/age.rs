//! Age: since when has an event of the journal been waiting?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::event::EventId;

/// When an event of the journal was accepted: an id that was made here holds the time, and others are
/// taken as accepted now.
pub fn accepted_at(id: &EventId, now: Instant) -> Instant {
    let EventId::Made(id) = id else {
        return now;
    };
    // A client's own id may be a UUID without a time.
    let Some((seconds, nanos)) = id.get_timestamp().map(|time| time.to_unix()) else {
        return now;
    };
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
        assert_eq!(accepted_at(&EventId::from_text(&Uuid::new_v4().to_string()), now), now);
    }
}
