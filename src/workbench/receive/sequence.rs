//! Sequence: are the numbers of a call's events (`X-AVR-WEBHOOK-SEQUENCE`) 1, 2, 3, …?
//!
//! Pure: numbers of events that are new in, what is odd about each out. callhook counts what is to
//! be delivered, so a number that never comes is a dead letter; after a restart it may begin anew.
//!
//! Limit: [`MAX_GAPS`] gaps of a call are remembered; a number out of an older one counts as late.

use std::ops::RangeInclusive;

use super::remark::Remark;

/// The most gaps of a call that are remembered; the oldest is forgotten first.
pub const MAX_GAPS: usize = 64;

/// The numbers of a call.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    highest: u64,
    /// Disjoint, in ascending order.
    gaps: Vec<RangeInclusive<u64>>,
    forgot: bool,
}

impl Sequence {
    /// Takes the number of a new event; what is odd about it.
    pub fn take(&mut self, number: u64) -> Option<Remark> {
        if number > self.highest {
            let gap = self.highest + 1..=number - 1;
            self.highest = number;
            if gap.is_empty() {
                return None;
            }
            if self.gaps.len() == MAX_GAPS {
                self.gaps.remove(0);
                self.forgot = true;
            }
            self.gaps.push(gap.clone());
            return Some(Remark::Gap(gap));
        }
        let late = Some(Remark::OutOfOrder { after: self.highest });
        if self.fill(number) {
            return late;
        }
        if number == 1 {
            *self = Self { highest: 1, ..Self::default() };
            return Some(Remark::NumbersAnew);
        }
        if self.forgot { late } else { Some(Remark::NumberTwice(number)) }
    }

    /// Takes a number out of the gaps; whether it was in one.
    fn fill(&mut self, number: u64) -> bool {
        let Some(at) = self.gaps.iter().position(|gap| gap.contains(&number)) else {
            return false;
        };
        let gap = self.gaps.remove(at);
        // The gap has the number, so neither sum leaves it by more than one.
        let parts = [number + 1..=*gap.end(), *gap.start()..=number - 1];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            self.gaps.insert(at, part);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(missing: RangeInclusive<u64>) -> Option<Remark> {
        Some(Remark::Gap(missing))
    }

    fn late(after: u64) -> Option<Remark> {
        Some(Remark::OutOfOrder { after })
    }

    fn twice(number: u64) -> Option<Remark> {
        Some(Remark::NumberTwice(number))
    }

    #[test]
    fn every_number_has_its_place() {
        let mut sequence = Sequence::default();
        for (number, remark) in [
            (1, None),
            (2, None),
            (6, gap(3..=5)),
            (4, late(6)),
            (4, twice(4)),
            (2, twice(2)),
            (7, None),
            (3, late(7)),
            (5, late(7)),
            (9, gap(8..=8)),
            (1, Some(Remark::NumbersAnew)),
            (2, None),
        ] {
            assert_eq!(sequence.take(number), remark, "{number}");
        }
    }

    #[test]
    fn a_number_that_came_late_can_be_the_first() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.take(2), gap(1..=1));
        assert_eq!(sequence.take(1), late(2));
        assert_eq!(sequence.take(1), Some(Remark::NumbersAnew));
    }

    #[test]
    fn the_greatest_numbers_are_numbers_like_others() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.take(u64::MAX), gap(1..=u64::MAX - 1));
        assert_eq!(sequence.take(u64::MAX), twice(u64::MAX));
        assert_eq!(sequence.take(u64::MAX - 1), late(u64::MAX));
    }

    #[test]
    fn the_oldest_gaps_are_forgotten_and_nothing_false_is_said_of_them() {
        let mut sequence = Sequence::default();
        let most = u64::try_from(MAX_GAPS).unwrap();
        for number in 1..=most + 1 {
            assert_eq!(sequence.take(2 * number), gap(2 * number - 1..=2 * number - 1));
        }
        assert_eq!(sequence.gaps.len(), MAX_GAPS);
        assert_eq!(sequence.take(3), late(2 * most + 2));
        assert_eq!(sequence.take(2), late(2 * most + 2));
    }
}
