//! Time: how long something in a call takes, fixed or by chance.
//!
//! In a file: `800`, `{ uniform = [400, 900] }`, `{ normal = [1500, 300] }` (mean and standard
//! deviation) or `{ exponential = 2000 }` (mean). All in whole milliseconds, from 0 to [`MAX_TIME`];
//! what chance throws beyond that is cut to it.

use std::time::Duration;

use rand_distr::{Exp, Normal, Uniform};

use super::read::{Node, Reader};
use crate::workbench::dice::Dice;

/// The longest time of one step, in milliseconds: one hour, as calls of many hours are not played.
pub const MAX_TIME: u32 = 3_600_000;

const EXPECTED: &str = "milliseconds, or one of { uniform = [least, most] }, \
                        { normal = [mean, deviation] }, { exponential = mean }";

/// A time, or how it is thrown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Time {
    /// Always the same.
    Fixed(u32),
    /// Each from the first to the second as likely.
    Uniform(Uniform<u32>),
    /// Mostly near the mean.
    Normal(Normal<f64>),
    /// Mostly short, at times long: how long until something happens that may happen any moment.
    Exponential(Exp<f64>),
}

impl Time {
    /// No time.
    pub const ZERO: Self = Self::Fixed(0);

    /// One throw.
    pub fn throw(self, dice: &mut Dice) -> Duration {
        let millis = match self {
            Self::Fixed(millis) => millis,
            Self::Uniform(uniform) => dice.throw(&uniform),
            Self::Normal(normal) => whole(dice.throw(&normal)),
            Self::Exponential(exponential) => whole(dice.throw(&exponential)),
        };
        Duration::from_millis(millis.into())
    }

    /// Reads a time; what is wrong is told to the reader.
    pub fn read(reader: &mut Reader<'_>, node: &Node<'_>, what: &str) -> Option<Self> {
        if node.get_ref().is_integer() {
            return millis(reader, node, what).map(Self::Fixed);
        }
        let Some(table) = node.get_ref().as_table() else {
            reader.expected(node, what, EXPECTED);
            return None;
        };
        if !reader.keys(table, what, &["uniform", "normal", "exponential"]) {
            return None;
        }
        let mut entries = table.iter();
        let (Some((name, value)), None) = (entries.next(), entries.next()) else {
            reader.fault(node.span(), format!("{what}: expected {EXPECTED}"));
            return None;
        };
        match name.get_ref().as_ref() {
            "uniform" => uniform(reader, value),
            "normal" => normal(reader, value),
            "exponential" => exponential(reader, value),
            // It was told with the keys.
            _ => None,
        }
    }
}

fn uniform(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Time> {
    let [least, most] = pair(reader, node, "uniform", "[least, most]")?;
    if least > most {
        reader.fault(
            node.span(),
            format!("uniform: {least} is more than {most}; write the least first"),
        );
        return None;
    }
    let uniform = Uniform::new_inclusive(least, most).expect("the least is not above the most");
    Some(Time::Uniform(uniform))
}

fn normal(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Time> {
    let [mean, deviation] = pair(reader, node, "normal", "[mean, deviation]")?;
    let normal = Normal::new(mean.into(), deviation.into());
    Some(Time::Normal(normal.expect("whole milliseconds are finite")))
}

fn exponential(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Time> {
    let mean = millis(reader, node, "exponential")?;
    if mean == 0 {
        return Some(Time::ZERO);
    }
    let exponential = Exp::new(1.0 / f64::from(mean)).expect("the mean is above 0");
    Some(Time::Exponential(exponential))
}

fn pair(reader: &mut Reader<'_>, node: &Node<'_>, what: &str, shape: &str) -> Option<[u32; 2]> {
    let list = reader.list(node, what)?;
    let [first, second] = list else {
        let found = list.len();
        reader.fault(node.span(), format!("{what}: expected {shape}, found {found} values"));
        return None;
    };
    let (first, second) = (millis(reader, first, what), millis(reader, second, what));
    Some([first?, second?])
}

fn millis(reader: &mut Reader<'_>, node: &Node<'_>, what: &str) -> Option<u32> {
    let millis = reader.whole(node, &format!("{what} (milliseconds)"), 0..=MAX_TIME.into())?;
    u32::try_from(millis).ok()
}

/// Whole milliseconds within the limits.
fn whole(millis: f64) -> u32 {
    millis.round().clamp(0.0, MAX_TIME.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_throw_is_below_nothing_or_above_an_hour() {
        let mut dice = Dice::new(1, 1);
        let wild = Time::Normal(Normal::new(1_800_000.0, 3_600_000.0).unwrap());
        let throws: Vec<Duration> = (0..1000).map(|_| wild.throw(&mut dice)).collect();
        assert!(throws.contains(&Duration::ZERO));
        assert_eq!(throws.iter().max(), Some(&Duration::from_millis(MAX_TIME.into())));
    }

    #[test]
    fn throws_are_where_their_distribution_says() {
        let mut dice = Dice::new(2, 1);
        let mut mean = |time: Time| {
            let sum: Duration = (0..10_000).map(|_| time.throw(&mut dice)).sum();
            sum.as_secs_f64() / 10.0
        };
        let near = |mean: f64| (950.0..1050.0).contains(&mean);
        assert!(near(mean(Time::Fixed(1000))));
        assert!(near(mean(Time::Uniform(Uniform::new_inclusive(500, 1500).unwrap()))));
        assert!(near(mean(Time::Normal(Normal::new(1000.0, 100.0).unwrap()))));
        assert!(near(mean(Time::Exponential(Exp::new(0.001).unwrap()))));
    }
}
