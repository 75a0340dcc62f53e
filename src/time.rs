//! Time: the system's clock, and how a time is written and read.
//!
//! Stored times are a `u64` of Unix milliseconds; shown times are ISO 8601 in UTC with milliseconds and `Z`,
//! as AVR writes them. Measuring and waiting use [`tokio::time::Instant`] instead, which nobody can set
//! back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

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

/// The digits of the fraction of a second in a date and time of ISO 8601, in its extended or its basic format, with or
/// without an offset; `None` for other text.
pub fn iso_8601_fraction(text: &str) -> Option<usize> {
    let (date, rest) = text.split_once('T')?;
    let (clock, offset) = rest.split_at(rest.find(['Z', '+', '-']).unwrap_or(rest.len()));
    let (clock, fraction) = match clock.split_once(['.', ',']) {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let shape = |text: &str| text.replace(|char: char| char.is_ascii_digit(), "0");
    let has_seconds = match (shape(date).as_str(), shape(clock).as_str()) {
        ("0000-00-00", "00:00:00") | ("00000000", "000000") => true,
        ("0000-00-00", "00:00") | ("00000000", "0000") => false,
        _ => return None,
    };
    let known_offset = matches!(
        shape(offset).as_str(),
        "" | "Z" | "+00" | "-00" | "+00:00" | "-00:00" | "+0000" | "-0000"
    );
    let digits = |text: &str| text.replace(['-', '+', ':', 'Z'], "");
    let pairs = |text: &str| -> Vec<u32> {
        let pairs = digits(text).into_bytes();
        pairs
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0')))
            .collect()
    };
    let (date, clock, offset) = (pairs(date), known_offset.then(|| pairs(clock))?, pairs(offset));
    let year = i32::try_from(date[0] * 100 + date[1]).ok()?;
    NaiveDate::from_ymd_opt(year, date[2], date[3])?;
    // 60 is a leap second.
    let within =
        |numbers: &[u32]| numbers.iter().zip([23, 59, 60]).all(|(number, most)| *number <= most);
    let is_fraction = |digits: &str| {
        has_seconds && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let fits = within(&clock) && within(&offset) && fraction.is_none_or(is_fraction);
    fits.then(|| fraction.map_or(0, str::len))
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
    fn a_date_and_time_of_iso_8601_is_told_from_other_text() {
        for (good, digits) in [
            ("2026-01-31T12:00:00.000Z", 3),
            ("2026-01-31T12:00:00Z", 0),
            ("2026-01-31T12:00Z", 0),
            ("2026-01-31T12:00:00", 0),
            ("2026-01-31T12:00:00,123456789+01:00", 9),
            ("2026-01-31T12:00:00.5-0530", 1),
            ("2024-02-29T23:59:60+14", 0),
            ("20260131T120000.123Z", 3),
            ("20260131T1200", 0),
        ] {
            assert_eq!(iso_8601_fraction(good), Some(digits), "{good}");
        }
        for bad in [
            "",
            "T",
            "yesterday",
            "1767225600",
            "2026-01-31",
            "12:00:00",
            "2026-01-31 12:00:00",
            "2026-01-31t12:00:00z",
            "2026-02-30T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-1-1T12:00:00Z",
            "2026-01-31T24:01:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00.5Z",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+1:00",
            "2026-01-31T12:00:00ZZ",
            "2026-01-31T12:00:00.000Z ",
            "2026-01-31T120000Z",
            "20260131T12:00:00Z",
            "+2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00.000é",
            "２026-01-31T12:00:00Z",
        ] {
            assert_eq!(iso_8601_fraction(bad), None, "{bad}");
        }
    }

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
