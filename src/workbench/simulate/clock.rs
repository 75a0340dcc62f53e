//! Clock: how fast calls begin, and how fast time goes by in them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The lowest and the highest rate and speed: beyond that `max` is meant.
const LEAST: f64 = 0.001;
/// The highest rate and speed.
const MOST: f64 = 1_000_000.0;

/// `max`: a call begins, or an event is due, as soon as there is room.
const MAX: f64 = f64::INFINITY;

/// Calls a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// How long after the first call this one begins: 0, 1, 2, …
    pub fn begins(self, call: u32) -> Duration {
        Duration::from_secs(1).div_f64(self.0) * call
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        number(text).map(Self).ok_or(BadRate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAX { f.write_str("max") } else { write!(f, "{}", self.0) }
    }
}

/// The text is no rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected calls a second, from 0.001 to 1000000, such as 5 or 0.2, or max")]
pub struct BadRate;

/// How many times faster than real a call goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// How long a time of the scenario lasts here.
    pub fn lasts(self, time: Duration) -> Duration {
        time.div_f64(self.0)
    }
}

impl FromStr for Speed {
    type Err = BadSpeed;

    fn from_str(text: &str) -> Result<Self, BadSpeed> {
        let factor = match text {
            "max" | "0" | "0x" => "max",
            // `max` itself ends in an x.
            other => other.strip_suffix(['x', 'X']).unwrap_or(other),
        };
        number(factor).map(Self).ok_or(BadSpeed)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAX { f.write_str("max") } else { write!(f, "{}x", self.0) }
    }
}

/// The text is no speed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected how many times faster, from 0.001x to 1000000x, such as 10x or 0.5x, or max (or 0) \
     for no waiting at all"
)]
pub struct BadSpeed;

fn number(text: &str) -> Option<f64> {
    if text == "max" {
        return Some(MAX);
    }
    text.parse().ok().filter(|number| (LEAST..=MOST).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_says_when_calls_begin() {
        let begins = |rate: &str, call| rate.parse::<Rate>().unwrap().begins(call).as_millis();
        assert_eq!([begins("5", 0), begins("5", 1), begins("5", 10)], [0, 200, 2000]);
        assert_eq!([begins("0.2", 1), begins("max", 1000)], [5000, 0]);
        for bad in ["", "0", "-1", "0.0009", "1000001", "inf", "NaN", "5x", "five"] {
            assert_eq!(bad.parse::<Rate>(), Err(BadRate), "{bad}");
        }
    }

    #[test]
    fn a_speed_says_how_long_a_time_lasts() {
        let lasts = |speed: &str| {
            speed.parse::<Speed>().unwrap().lasts(Duration::from_secs(10)).as_millis()
        };
        assert_eq!(
            [lasts("1x"), lasts("10x"), lasts("2"), lasts("0.5X")],
            [10000, 1000, 5000, 20000]
        );
        assert_eq!([lasts("max"), lasts("0"), lasts("0x")], [0, 0, 0]);
        for bad in ["", "x", "-1x", "0.0009x", "1000001x", "infx", "ten"] {
            assert_eq!(bad.parse::<Speed>(), Err(BadSpeed), "{bad}");
        }
        assert_eq!("10".parse::<Speed>().unwrap().to_string(), "10x");
        assert_eq!("0".parse::<Speed>().unwrap().to_string(), "max");
    }
}
