//! Share: how many of all, as people say it: `5%`, `0.5%`.

use std::fmt;
use std::str::FromStr;

/// A part of all, from 0% to 100%.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = BadShare;

    fn from_str(text: &str) -> Result<Self, BadShare> {
        let percent: f64 =
            text.strip_suffix('%').and_then(|number| number.trim().parse().ok()).ok_or(BadShare)?;
        if (0.0..=100.0).contains(&percent) { Ok(Self(percent / 100.0)) } else { Err(BadShare) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a share from 0% to 100%, such as 5% or 0.5%")]
pub struct BadShare;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_from_0_to_100() {
        for (text, fraction) in [("0%", 0.0), ("5%", 0.05), ("0.5 %", 0.005), ("100%", 1.0)] {
            let share: Share = text.parse().unwrap();
            assert!((share.fraction() - fraction).abs() < 1e-12, "{text}");
        }
        for bad in ["", "%", "5", "0.05", "-1%", "100.1%", "NaN%", "inf%", "five%", "5%%"] {
            assert_eq!(bad.parse::<Share>(), Err(BadShare), "{bad}");
        }
    }
}
