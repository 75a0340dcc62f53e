//! Time: how long something in a call takes, fixed or by chance.
//!
//! In a file: `800`, `{ uniform = [400, 900] }`, `{ normal = [1500, 300] }` (mean and standard
//! deviation) or `{ exponential = 2000 }` (mean). All in whole milliseconds, from 0 to [`MAX_TIME`];
//! what chance throws beyond that is cut to it.

use std::time::Duration;

use rand_distr::{Exp, Normal, Uniform};
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeValue;

use super::read::{Node, ScenarioReader, UpTo};
use crate::workbench::dice::Dice;

/// The longest time of one step, in milliseconds: one hour, as calls of many hours are not played.
pub const MAX_TIME: u32 = 3_600_000;

const EXPECTED: &str = "milliseconds, or one of { uniform = [least, most] }, \
                        { normal = [mean, deviation] }, { exponential = mean }";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Time {
    Fixed(u32),
    /// Each from the first to the second as likely.
    Uniform(Uniform<u32>),
    /// Mostly near the mean.
    Normal(Normal<f64>),
    /// Mostly short, at times long: how long until something happens that may happen any moment.
    Exponential(Exp<f64>),
}

/// As a file writes what is left to chance.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Chance {
    Uniform(Spanned<[Millis; 2]>),
    Normal([Millis; 2]),
    Exponential(Millis),
}

type Millis = UpTo<{ MAX_TIME as u64 }>;

impl Time {
    pub const ZERO: Self = Self::Fixed(0);

    pub fn throw(self, dice: &mut Dice) -> Duration {
        let millis = match self {
            Self::Fixed(millis) => millis,
            Self::Uniform(uniform) => dice.throw(&uniform),
            Self::Normal(normal) => whole(dice.throw(&normal)),
            Self::Exponential(exponential) => whole(dice.throw(&exponential)),
        };
        Duration::from_millis(millis.into())
    }

    pub fn read(reader: &mut ScenarioReader<'_>, node: &Node<'_>, what: &str) -> Option<Self> {
        match node.get_ref() {
            DeValue::Integer(_) => {
                reader.value(node, what).map(|millis: Millis| Self::Fixed(millis.short()))
            }
            DeValue::Table(table) if table.len() == 1 => {
                let chance = reader.value(node, what)?;
                Self::by_chance(chance, reader, what)
            }
            _ => reader.expected(node, what, EXPECTED),
        }
    }

    fn by_chance(chance: Chance, reader: &mut ScenarioReader<'_>, what: &str) -> Option<Self> {
        match chance {
            Chance::Uniform(pair) => {
                let [least, most] = pair.get_ref().map(Millis::short);
                let uniform = Uniform::new_inclusive(least, most).ok();
                if uniform.is_none() {
                    let text =
                        format!("{what}: {least} is more than {most}; write the least first");
                    reader.fault(pair.span(), text);
                }
                uniform.map(Self::Uniform)
            }
            Chance::Normal(pair) => {
                let [mean, deviation] = pair.map(|millis| millis.short().into());
                let normal = Normal::new(mean, deviation);
                Some(Self::Normal(normal.expect("whole milliseconds are finite")))
            }
            Chance::Exponential(UpTo(0)) => Some(Self::ZERO),
            Chance::Exponential(mean) => {
                let exponential = Exp::new(1.0 / f64::from(mean.short()));
                Some(Self::Exponential(exponential.expect("the mean is above 0")))
            }
        }
    }
}

impl Millis {
    fn short(self) -> u32 {
        u32::try_from(self.0).expect("it is at most MAX_TIME")
    }
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
