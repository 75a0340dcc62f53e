//! `Retry-After` (RFC 9110, section 10.2.3): whatever a receiver writes there, nobody waits longer
//! than fifteen minutes, and what it may write is understood.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callhook::delivery::parse_retry_after;

const LONGEST: Duration = Duration::from_secs(900);

/// The instants that values are read at: 1970, 1994-11-06 08:49:37, 2026-11-23, 9999-12-31.
const INSTANTS: [u64; 4] = [0, 784_111_777, 1_795_392_000, 253_402_214_400];

/// The first second that a date with two digits for its year cannot name: 2070.
const TWO_DIGITS_END: u64 = 3_155_760_000;

/// Checks one value; its first bytes also make up a date.
pub fn check(input: &[u8]) {
    if let Ok(value) = std::str::from_utf8(input) {
        INSTANTS.iter().for_each(|instant| check_value(value, at(*instant)));
    }
    if let [a, b, c, d, e, wait, ..] = *input {
        let now = u64::from(u32::from_be_bytes([a, b, c, d]));
        let wait = u64::from(wait) * u64::from(e);
        check_date(now, now + wait);
        check_date(now + wait, now);
        check_seconds(wait * u64::from(d));
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn check_value(value: &str, now: SystemTime) {
    let wait = parse_retry_after(value, now);
    assert!(wait.is_none_or(|wait| wait <= LONGEST), "{value:?}: {wait:?}");
    assert_eq!(parse_retry_after(&format!(" {value}\t"), now), wait, "{value:?}");
    let digits = value.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        let significant = digits.trim_start_matches('0');
        let seconds = if significant.len() > 3 {
            900
        } else {
            significant.bytes().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
        };
        assert_eq!(wait, Some(Duration::from_secs(seconds.min(900))), "{value:?}");
        return;
    }
    // A date comes nearer by the second, and never goes away again.
    let later = parse_retry_after(value, now + Duration::from_secs(1));
    assert_eq!(wait.is_some(), later.is_some(), "{value:?}");
    if let (Some(wait), Some(later)) = (wait, later) {
        let nearer = wait.saturating_sub(Duration::from_secs(1));
        assert!(later == nearer || (wait == LONGEST && later == LONGEST), "{value:?}");
        assert!(value.contains(':'), "{value:?} is no date");
    }
}

fn check_seconds(seconds: u64) {
    let wait = parse_retry_after(&seconds.to_string(), UNIX_EPOCH);
    assert_eq!(wait, Some(Duration::from_secs(seconds.min(900))));
}

/// Each of the three ways to write a date (RFC 9110, section 5.6.7) says the same.
fn check_date(now: u64, date: u64) {
    let expected = Some(Duration::from_secs(date.saturating_sub(now).min(900)));
    let Written { preferred, two_digits, ascii } = written(date);
    let dates = [Some(preferred), (date < TWO_DIGITS_END).then_some(two_digits), Some(ascii)];
    for text in dates.into_iter().flatten() {
        assert_eq!(parse_retry_after(&text, at(now)), expected, "{text} at {now}");
    }
}

/// One date, written in three ways.
struct Written {
    preferred: String,
    two_digits: String,
    ascii: String,
}

fn written(seconds: u64) -> Written {
    const DAYS: [&str; 7] =
        ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let (mut day, time) = (seconds / 86_400, seconds % 86_400);
    let name = DAYS[usize::try_from(day % 7).expect("it is below 7")];
    let short = &name[..3];
    let leap = |year: u64| {
        u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
    };
    let mut year = 1970;
    while day >= 365 + leap(year) {
        day -= 365 + leap(year);
        year += 1;
    }
    let mut month = "";
    for (name, length) in MONTHS {
        month = name;
        let length = length + if name == "Feb" { leap(year) } else { 0 };
        if day < length {
            break;
        }
        day -= length;
    }
    let day = day + 1;
    let clock = format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
    Written {
        preferred: format!("{short}, {day:02} {month} {year} {clock} GMT"),
        two_digits: format!("{name}, {day:02}-{month}-{:02} {clock} GMT", year % 100),
        ascii: format!("{short} {month} {day:2} {clock} {year}"),
    }
}
