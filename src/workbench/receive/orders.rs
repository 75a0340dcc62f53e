//! Orders: which answers go wrong or come late, as they are asked for on the command line.
//!
//! | option | grammar | examples |
//! | --- | --- | --- |
//! | `--fail` | `[TYPE:]SHARE[:STATUS]` | `10%:503`, `call_started:2:500`, `3` |
//! | `--drop` | `[TYPE:]SHARE` | `5%`, `dtmf_digit:100%`, `1` |
//! | `--delay` | `[TYPE:][SHARE:]TIME` | `2s`, `20%:2s`, `transcription:1s`, `300` |
//!
//! SHARE is a percentage of the requests, or a count from 1 to [`MOST_TIMES`]: the first requests of
//! each call. TIME is whole milliseconds, or a number with its unit, up to [`LONGEST`].

use std::time::Duration;

use axum::http::StatusCode;

use super::reply::Ending;
use crate::event::EventType;
use crate::workbench::share::Share;

/// The greatest count: what is above it is meant as a status.
pub const MOST_TIMES: u8 = 99;

/// The longest delay of an answer: one hour, longer than any sender waits.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What some requests are to meet with: an ending, or a delay.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultOrder<T> {
    /// The events' type; `None` for all.
    pub kind: Option<EventType>,
    pub dose: Dose,
    pub effect: T,
}

/// How many requests are meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dose {
    /// This share of all, by chance.
    Share(Share),
    /// The first ones of each call.
    Times(u8),
}

impl<T> FaultOrder<T> {
    pub fn admits(&self, kind: &str) -> bool {
        self.kind.as_ref().is_none_or(|own| own.name() == kind)
    }
}

/// Reads `--fail`: a status in place of the usual answer, 503 where none is given.
///
/// # Errors
/// What is expected.
pub fn fail(text: &str) -> Result<FaultOrder<Ending>, String> {
    let order = || {
        let (kind, rest) = typed(text)?;
        let (share, status) = rest.split_once(':').unwrap_or((rest, "503"));
        let status: u16 = status.parse().ok().filter(|code| (300..=599).contains(code))?;
        let effect = Ending::Fault(StatusCode::from_u16(status).ok()?);
        Some(FaultOrder { kind, dose: dose(share)?, effect })
    };
    order().ok_or_else(|| {
        expected(
            "[TYPE:]SHARE[:STATUS], such as 10%:503, call_started:2:500 (its first two in each call) \
             or 100%:429",
            ", STATUS is from 300 to 599",
        )
    })
}

/// Reads `--drop`: the connection is closed in place of an answer.
///
/// # Errors
/// What is expected.
pub fn drop(text: &str) -> Result<FaultOrder<Ending>, String> {
    let order = || {
        let (kind, share) = typed(text)?;
        Some(FaultOrder { kind, dose: dose(share)?, effect: Ending::Closed })
    };
    order().ok_or_else(|| {
        expected(
            "[TYPE:]SHARE, such as 5%, dtmf_digit:100% or 1 (the first request of each call)",
            "",
        )
    })
}

/// Reads `--delay`: the answer comes later.
///
/// # Errors
/// What is expected.
pub fn delay(text: &str) -> Result<FaultOrder<Duration>, String> {
    let order = || {
        let (scope, time) = text.rsplit_once(':').unwrap_or(("100%", text));
        let effect = millis_or_unit(time).filter(|time| *time <= LONGEST)?;
        let (kind, share) = match scope {
            _ if scope.contains(':') || begins_with_share(scope) => typed(scope)?,
            _ => (Some(scope.parse().ok()?), "100%"),
        };
        Some(FaultOrder { kind, dose: dose(share)?, effect })
    };
    order().ok_or_else(|| {
        expected(
            "[TYPE:][SHARE:]TIME, such as 2s, 20%:2s, transcription:1s or 300 (milliseconds)",
            ", TIME is at most one hour",
        )
    })
}

fn expected(grammar: &str, more: &str) -> String {
    format!("expected {grammar}; SHARE is a percentage or a count from 1 to {MOST_TIMES}{more}")
}

/// Whole milliseconds, or a number with its unit.
fn millis_or_unit(text: &str) -> Option<Duration> {
    match text.parse() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

/// The type, where the text begins with one, and the rest.
fn typed(text: &str) -> Option<(Option<EventType>, &str)> {
    if begins_with_share(text) {
        return Some((None, text));
    }
    let (kind, rest) = text.split_once(':')?;
    Some((Some(kind.parse().ok()?), rest))
}

/// No type begins with a digit, and every share does.
fn begins_with_share(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn dose(text: &str) -> Option<Dose> {
    if text.ends_with('%') {
        return text.parse().ok().map(Dose::Share);
    }
    let times = text.parse().ok()?;
    (1..=MOST_TIMES).contains(&times).then_some(Dose::Times(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order<T>(kind: Option<&str>, dose: Dose, effect: T) -> FaultOrder<T> {
        FaultOrder { kind: kind.map(|kind| kind.parse().unwrap()), dose, effect }
    }

    fn share(text: &str) -> Dose {
        Dose::Share(text.parse().unwrap())
    }

    #[test]
    fn a_failure_is_a_share_with_or_without_type_and_status() {
        for (text, kind, dose, status) in [
            ("10%", None, share("10%"), 503),
            ("10%:500", None, share("10%"), 500),
            ("3", None, Dose::Times(3), 503),
            ("2:500", None, Dose::Times(2), 500),
            ("call_started:2:500", Some("call_started"), Dose::Times(2), 500),
            ("tool:0.5%", Some("tool"), share("0.5%"), 503),
            ("99:599", None, Dose::Times(99), 599),
        ] {
            let effect = Ending::Fault(StatusCode::from_u16(status).unwrap());
            assert_eq!(fail(text), Ok(order(kind, dose, effect)), "{text}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused() {
        for bad in ["", ":", "503", "100", "0", "101%", "call_started", "call_started:", "%:503"] {
            assert!(fail(bad).unwrap_err().contains("[TYPE:]SHARE[:STATUS]"), "{bad}");
        }
        for bad in ["10%:200", "10%:600", "10%:", "10%:503:", "a b:10%", "x:10%:503:1", "-1"] {
            assert!(fail(bad).unwrap_err().contains("[TYPE:]SHARE[:STATUS]"), "{bad}");
        }
        for bad in ["", "503", "5%:503", "x", "x:y:5%"] {
            assert!(drop(bad).unwrap_err().contains("[TYPE:]SHARE,"), "{bad}");
        }
        for bad in ["", ":", ":2s", "10%:", "10%", "2 parsecs", "2h", "3600001", "x:y:2s", "a b:2"]
        {
            assert!(delay(bad).unwrap_err().contains("[TYPE:][SHARE:]TIME"), "{bad}");
        }
    }

    #[test]
    fn a_delay_is_a_time_with_or_without_type_and_share() {
        let all = share("100%");
        for (text, kind, dose, millis) in [
            ("300", None, all, 300),
            ("2s", None, all, 2000),
            ("20%:2s", None, share("20%"), 2000),
            ("transcription:1s", Some("transcription"), all, 1000),
            ("transcription:250", Some("transcription"), all, 250),
            ("call_started:2:1m", Some("call_started"), Dose::Times(2), 60_000),
            ("5:300", None, Dose::Times(5), 300),
            ("1h", None, all, 3_600_000),
        ] {
            let time = Duration::from_millis(millis);
            assert_eq!(delay(text), Ok(order(kind, dose, time)), "{text}");
        }
    }
}
