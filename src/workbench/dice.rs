//! Dice: chance that can be repeated.
//!
//! Owns the one source of chance of the workbench. Each use has a stream of its own, so that what
//! happens to one call depends on the seed and the call's number, and on nothing else.
//!
//! Invariant: the same seed and stream give the same throws, on every machine, in one version of
//! callhook (ChaCha with 8 rounds; 64 bits of a number decide, never the width of `usize`).

use chacha20::ChaCha8Rng;
use chacha20::rand_core::SeedableRng as _;
use rand_distr::{Distribution, StandardUniform, Uniform};

use super::share::Share;

/// A seed that nobody gave is below this: short enough to be typed again.
const SEEDS: u64 = 1_000_000;

/// A seed where none is given.
pub fn seed() -> u64 {
    u64::from(uuid::Uuid::new_v4().as_fields().0) % SEEDS
}

#[derive(Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    pub fn throw<T>(&mut self, distribution: &impl Distribution<T>) -> T {
        distribution.sample(&mut self.0)
    }

    /// A number from 0 up to and without `end`, each as likely; 0 where `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        Uniform::new(0, end).map_or(0, |uniform| self.throw(&uniform))
    }

    /// One of these, each as likely; `None` of none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = self.below(u64::try_from(from.len()).unwrap_or(u64::MAX));
        from.get(usize::try_from(index).unwrap_or(usize::MAX))
    }

    /// Whether a throw falls into this share. Throws even where the share is nothing or all, so
    /// that later throws do not depend on it.
    pub fn hits(&mut self, share: Share) -> bool {
        let throw: f64 = self.throw(&StandardUniform);
        throw < share.fraction()
    }

    pub fn bytes(&mut self) -> [u8; 16] {
        self.throw(&StandardUniform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throws(seed: u64, stream: u64) -> Vec<u64> {
        let mut dice = Dice::new(seed, stream);
        (0..20).map(|_| dice.below(1000)).collect()
    }

    #[test]
    fn a_seed_and_a_stream_give_the_same_throws_and_others_give_others() {
        assert_eq!(throws(1, 2), throws(1, 2));
        assert_ne!(throws(1, 2), throws(1, 3));
        assert_ne!(throws(1, 2), throws(2, 2));
    }

    #[test]
    fn the_throws_are_the_same_on_every_machine() {
        assert_eq!(throws(7, 1)[..4], [992, 9, 721, 528]);
    }

    #[test]
    fn a_share_is_hit_as_often_as_it_says() {
        for (text, least, most) in [("0%", 0, 0), ("100%", 10_000, 10_000), ("5%", 400, 600)] {
            let share = text.parse().unwrap();
            let mut dice = Dice::new(1, 1);
            let hits = (0..10_000).filter(|_| dice.hits(share)).count();
            assert!((least..=most).contains(&hits), "{text}: {hits}");
        }
    }

    #[test]
    fn nothing_is_picked_of_nothing() {
        assert_eq!(Dice::new(1, 1).pick::<u8>(&[]), None);
    }
}
