//! Time: the system's clock, and how a time is written and read.
//!
//! Stored times are a `u64` of Unix milliseconds; shown times are ISO 8601 in UTC with milliseconds and `Z`,
//! as AVR writes them. Measuring and waiting use [`tokio::time::Instant`] instead, which nobody can set
//! back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};

pub fn unix_millis() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    millis(since_epoch.expect("the clock is past 1970"))
}

/// Parses RFC 3339 in any time zone.
///
/// # Errors
/// What was expected, for other text and for times before 1970.
pub fn unix_millis_of(text: &str) -> Result<u64, String> {
    let time = DateTime::parse_from_rfc3339(text).ok();
    let millis = time.and_then(|time| u64::try_from(time.timestamp_millis()).ok());
    millis.ok_or_else(|| "expected a time such as 2026-01-31T12:00:00Z".to_owned())
}

pub fn timestamp_now() -> String {
    timestamp(Utc::now())
}

/// 1970 where the time is out of range.
pub fn timestamp_of(unix_millis: u64) -> String {
    let time = i64::try_from(unix_millis).ok().and_then(DateTime::from_timestamp_millis);
    timestamp(time.unwrap_or_default())
}

pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_back_as_it_is_written() {
        assert_eq!(timestamp_of(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
        assert_eq!(unix_millis_of("2026-01-02T03:04:05.678Z"), Ok(1_767_323_045_678));
        assert_eq!(unix_millis_of("2026-01-02T04:04:05.678+01:00"), Ok(1_767_323_045_678));
        for bad in ["", "2026-01-02", "1969-12-31T23:59:59Z", "yesterday"] {
            assert!(unix_millis_of(bad).is_err(), "{bad:?}");
        }
        assert_eq!(timestamp_of(u64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
