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
    let mut rest = Rest(text.as_bytes());
    let year = i32::try_from(rest.number(4)?).ok()?;
    let is_extended = rest.take(b"-");
    let month = rest.number(2)?;
    let is_dashed = rest.take(b"-");
    NaiveDate::from_ymd_opt(year, month, rest.number(2)?)?;
    let has_clock = rest.take(b"T");
    let hour = rest.number(2)?;
    let has_colon = rest.take(b":");
    let minute = rest.number(2)?;
    let has_seconds = if is_extended { rest.take(b":") } else { rest.begins_with_digit() };
    let second = if has_seconds { rest.number(2)? } else { 0 };
    let fraction = (has_seconds && rest.take(b".,")).then(|| rest.digits());
    let is_in_one_format = [is_dashed, has_colon] == [is_extended; 2];
    // 60 is a leap second.
    let is_clock = has_clock && hour <= 23 && minute <= 59 && second <= 60;
    let fits = is_in_one_format && is_clock && fraction != Some(0) && rest.ends_in_offset()?;
    fits.then(|| fraction.unwrap_or(0))
}

/// What is left to read of a date and time.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Whether it begins with one of the signs, which is read then.
    fn take(&mut self, signs: &[u8]) -> bool {
        let begins = self.0.first().is_some_and(|first| signs.contains(first));
        self.0 = &self.0[usize::from(begins)..];
        begins
    }

    fn begins_with_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    /// The number that so many digits are.
    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
        number.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
    }

    /// Whether nothing is left but an offset, if any.
    fn ends_in_offset(mut self) -> Option<bool> {
        if matches!(self.0, b"" | b"Z") {
            return Some(true);
        }
        let (has_sign, hour) = (self.take(b"+-"), self.number(2)?);
        let has_minute = self.take(b":") || !self.0.is_empty();
        let minute = if has_minute { self.number(2)? } else { 0 };
        Some(has_sign && hour <= 23 && minute <= 59 && self.0.is_empty())
    }

    /// How many digits there are, which are read.
    fn digits(&mut self) -> usize {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.0 = &self.0[digits..];
        digits
    }
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
