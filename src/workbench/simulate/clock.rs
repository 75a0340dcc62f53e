//! Clock: how fast calls begin, and how fast time goes by in them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Beyond these, `max` is meant.
const RANGE: RangeInclusive<f64> = 0.001..=1_000_000.0;

/// `max`: a call begins, or an event is due, as soon as there is room.
const MAX: f64 = f64::INFINITY;

const RATE: &str = "expected calls a second, from 0.001 to 1000000, such as 5 or 0.2, or max";

const SPEED: &str = "expected how many times faster, from 0.001x to 1000000x, such as 10x or 0.5x, or \
                     max (or 0) for no waiting at all";

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
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        number(text).map(Self).ok_or(RATE)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAX { f.write_str("max") } else { write!(f, "{}", self.0) }
    }
}

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
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let factor = match text {
            "max" | "0" | "0x" => "max",
            // `max` itself ends in an x.
            other => other.strip_suffix(['x', 'X']).unwrap_or(other),
        };
        number(factor).map(Self).ok_or(SPEED)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MAX { f.write_str("max") } else { write!(f, "{}x", self.0) }
    }
}

fn number(text: &str) -> Option<f64> {
    if text == "max" {
        return Some(MAX);
    }
    text.parse().ok().filter(|number| RANGE.contains(number))
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
            assert_eq!(bad.parse::<Rate>(), Err(RATE), "{bad}");
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
            assert_eq!(bad.parse::<Speed>(), Err(SPEED), "{bad}");
        }
        assert_eq!("10".parse::<Speed>().unwrap().to_string(), "10x");
        assert_eq!("0".parse::<Speed>().unwrap().to_string(), "max");
    }
}
